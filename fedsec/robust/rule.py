"""What every rule has: a precondition on n and f, a bound on its sensitivity, and a call.

Rules are read where there is no numpy: a plan names them. What a call takes is in `options`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from fedsec.robust.faults import Faults, check_byzantine, count_byzantine, positive

if TYPE_CHECKING:
    from typing import Unpack

    from fedsec.robust.aggregate import Aggregate
    from fedsec.robust.options import Options, Updates

Adjacency: TypeAlias = Literal["replace-one", "zero-out"]
"""What a neighbouring input is: one row replaced by any other, or by the zero row."""


@dataclass(frozen=True)
class Rule(ABC):
    """A way to turn n updates into one. Frozen parameters; the arithmetic lives elsewhere.

    The order in which the rows come moves the result by rounding only: of equally good rows the
    one goes first that is smaller in the first coordinate in which they differ. Places decide
    where they are meant to: for the row that `Monna` trusts, and for `Bucketing`, which draws them.
    """

    weighted: ClassVar[bool] = False
    """Whether it takes `Options.weights`."""

    def __call__(self, updates: "Updates", **options: "Unpack[Options]") -> "Aggregate":
        """Returns one vector and how each row came into it; see `fedsec.robust.engine.aggregate`.

        Raises:
            ConfigError: n is too small for the rule, or an option does not go with it.
            TooManyFaults: More than f rows are unusable.
        """
        from fedsec.robust.engine import aggregate  # noqa: PLC0415 - parameters need no arithmetic

        return aggregate(self, updates, **options)

    @property
    @abstractmethod
    def faults(self) -> Faults:
        """How many rows may be hostile: a count, or a share of n."""

    @abstractmethod
    def check(self, n: int) -> None:
        """Raises unless the rule's promise holds for `n` rows.

        Raises:
            ConfigError: n is too small for f; the message says what is needed.
        """

    def lipschitz(self, n: int) -> float | None:
        """Returns how far the result moves at most when one row moves by 1; None: not bounded.

        Both in the L2 norm, the other rows fixed.
        """
        del n
        return None

    def sensitivity(self, clip: float, n: int, adjacency: Adjacency) -> float | None:
        """Returns the worst-case L2 change of the result between neighbouring inputs.

        Holds for unweighted rows of norm <= `clip`, a fixed public n and ``unusable="zero"``.

        Args:
            clip: C, the largest norm of a row, > 0, in the unit of the updates.
            n: Number of rows.
            adjacency: What neighbouring means.

        Returns:
            The bound, or None where none is known that is better than 2C, that of any rule.
        """
        self.check(n)
        factor = self.lipschitz(n)
        return None if factor is None else factor * row_change(clip, adjacency)


@dataclass(frozen=True)
class TolerantRule(Rule):
    """A rule whose first parameter is f.

    Args:
        byzantine: f, the largest number of hostile rows to withstand, >= 0; or a share of the
            rows in [0, 0.5).
    """

    byzantine: Faults

    def __post_init__(self) -> None:
        check_byzantine(self.byzantine)

    @property
    def faults(self) -> Faults:
        """`byzantine`."""
        return self.byzantine

    def f(self, n: int) -> int:
        """Returns f for `n` rows."""
        return count_byzantine(self.byzantine, n)


def row_change(clip: float, adjacency: Adjacency) -> float:
    """Returns how far one row of norm <= `clip` moves at most.

    Raises:
        ConfigError: `clip` is not a finite number > 0.
    """
    positive("clip", clip)
    return 2 * clip if adjacency == "replace-one" else clip
