"""A rule behind its pre-aggregations, as one value: what a plan checks and prices."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsec.errors import ConfigError
from fedsec.robust.coordinate_rules import Median
from fedsec.robust.faults import count_byzantine
from fedsec.robust.norm_rules import CenteredClipping
from fedsec.robust.premixing import Clip, Premix
from fedsec.robust.rule import Adjacency, Rule, row_change

if TYPE_CHECKING:
    from typing import Unpack

    from fedsec.robust.aggregate import Aggregate
    from fedsec.robust.options import Options, Updates


@dataclass(frozen=True)
class Pipeline:
    """Pre-aggregations in their order, then a rule.

    Args:
        rule: What makes one vector of the mixed rows.
        before: What is done to the rows first.

    >>> from fedsec.robust import Bucketing
    >>> Pipeline(Median(), before=(Bucketing(size=2),)).sensitivity(1.0, 10, "replace-one")
    1.0
    """

    rule: Rule
    before: tuple[Premix, ...] = ()

    def __call__(self, updates: "Updates", **options: "Unpack[Options]") -> "Aggregate":
        """Returns what the rule makes of the mixed rows; see `fedsec.robust.engine.aggregate`.

        Raises:
            ConfigError: n is too small, or an option does not go with the rule.
            TooManyFaults: More than f rows are unusable.
        """
        if "before" in options:
            raise ConfigError("before belongs to the pipeline, not to the call")
        options["before"] = self.before
        return self.rule(updates, **options)

    def check(self, n: int) -> None:
        """Raises unless every stage's promise holds for `n` rows at its entrance.

        A count of hostile rows stays what it is when buckets make the rows fewer.

        Raises:
            ConfigError: n is too small for a stage, or the stages do not fit together.
        """
        f, rows = count_byzantine(self.rule.faults, n), n
        for stage in self.before:
            stage.check(rows)
            rows = stage.rows(rows)
        self.rule.check(rows)
        if rows < n and not isinstance(self.rule, Median):
            # A share of fewer buckets is fewer, but each hostile row may spoil a bucket.
            left = count_byzantine(self.rule.faults, rows)
            if left < f:
                raise ConfigError(
                    f"byzantine as a share means {f} of {n} rows but only {left} of {rows} "
                    "buckets; give it as a count"
                )

    def sensitivity(self, clip: float, n: int, adjacency: Adjacency) -> float | None:
        """Returns the worst-case L2 change of the result; None where no useful bound is known.

        As `Rule.sensitivity`; buckets must be drawn without looking at the rows, as they are.
        """
        self.check(n)
        if not self.before:
            return self.rule.sensitivity(clip, n, adjacency)
        if isinstance(self.before[0], Clip):  # as if the rows had been clipped further
            rest = Pipeline(self.rule, self.before[1:])
            return rest.sensitivity(min(clip, self.before[0].norm), n, adjacency)
        change: float | None = row_change(clip, adjacency)
        rows = n
        for stage in self.before:
            if change is None:
                return None
            change, rows = stage.row_change(change, rows), stage.rows(rows)
        factor = self.rule.lipschitz(rows)
        if change is None or factor is None:
            return None
        if isinstance(self.rule, CenteredClipping):
            change = min(change, 2 * self.rule.radius)
        bound = factor * change
        # The trivial bound of any rule: both results lie within the ball of radius C.
        return bound if bound < row_change(clip, adjacency) else None
