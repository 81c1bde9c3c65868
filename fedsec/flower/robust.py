"""Rows to one vector in spite of hostile nodes: the combination that `[robust]` asks for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt, AttemptMissed, Collected
from fedsec.flower.combination import Combined
from fedsec.flower.records import NodeRecord, records_of
from fedsec.flower.reporting import Json
from fedsec.plan import Robust
from fedsec.plan.robust import WEIGHT_CAP
from fedsec.processors import threads_allowed
from fedsec.robust import CenteredClipping, Mean, TooManyFaults
from fedsec.robust.aggregate import Aggregate
from fedsec.robust.options import Options
from fedsec.vectors import Arrays, Vector

CENTRE = "centre"
"""Name in the memory: where centred clipping starts, the vector that was released last."""

RootUpdate: TypeAlias = Callable[[Attempt], Vector]
"""From an attempt's model to the update (d,) that clean data of the coordinator's own give."""

MOST_THREADS = 4
THREAD_ENTRIES = 1 << 25
"""Of the rows, for each further thread: to start one takes as long as some million of them."""


@dataclass(frozen=True)
class RobustCombination:
    """Pre-aggregations and a rule, for at most f hostile nodes among those drawn.

    Where a row is the sum of a group, f of them spoil f rows at most. A node whose reply was
    rejected counts against f. If there are more than f, or too few rows are left for the rule's
    promise, the attempt is missed: nothing weaker takes the rule's place.

    Args:
        robust: What the plan says.
        by_weight: Whether rows count by what their nodes claim, up to robust.weight_cap.
        chance: Makes the source for rules that draw. Nodes must not be able to foresee it.
        root: Makes the update that the rule trusts, where it trusts one.
        threads: Over how many much work is spread; the result does not depend on it.
    """

    robust: Robust
    by_weight: bool = False
    chance: Callable[[], np.random.Generator] = np.random.default_rng
    root: RootUpdate | None = None
    threads: int = field(default_factory=lambda: min(MOST_THREADS, threads_allowed()))

    def __call__(self, attempt: Attempt, collected: Collected, memory: Arrays) -> Combined:
        """See `Combination`."""
        hostile = {n: why for n, why in collected.rejected.items() if n in attempt.cohort}
        asked = len(attempt.cohort) if collected.asked is None else collected.asked
        allowed = self.robust.count(asked)
        left = allowed - len(hostile)
        if left < 0:
            raise AttemptMissed(
                f"{len(hostile)} updates cannot be used, robust.byzantine allows {allowed}",
                collected.failed,
                collected.rejected,
            )
        reference = self._reference(attempt, memory)
        try:
            found = self._aggregate(collected, range(len(collected.rows)), left, reference)
            records = records_of(collected.groups, found)
            if self.robust.on_suspect == "exclude":
                found, records = self._excluding(collected, found, records, left, reference)
        except TooManyFaults as error:
            many = len(hostile) + len(error.excluded)
            text = f"{many} updates cannot be used, robust.byzantine allows {allowed}"
            raise _missed(collected, text, error.excluded) from error
        except ConfigError as error:
            raise _missed(collected, str(error), {}) from error
        rejected = (NodeRecord((node,), excluded=why) for node, why in hostile.items())
        kept = {CENTRE: found.vector} if self._moves else {}
        return Combined(found.vector, kept, figures(records), (*records, *rejected))

    @property
    def _moves(self) -> bool:
        """Whether the rule starts where the round before ended."""
        return isinstance(self.robust.pipeline(0).rule, CenteredClipping)

    def _reference(self, attempt: Attempt, memory: Arrays) -> Vector | None:
        """Returns the vector that the rule starts from or trusts; None where there is none."""
        if self.root is not None:
            return self.root(attempt)
        return memory.get(CENTRE) if self._moves else None

    def _aggregate(
        self,
        collected: Collected,
        chosen: Sequence[int],
        byzantine: int,
        reference: Vector | None,
    ) -> Aggregate:
        """Returns what the pipeline makes of the `chosen` rows."""
        self.robust.check(len(chosen), byzantine)
        pipeline = self.robust.pipeline(byzantine)
        threads = min(self.threads, 1 + collected.rows.size // THREAD_ENTRIES)
        options = Options(threads=threads, rng=self.chance())
        if self.by_weight:
            options["weights"] = collected.weights[list(chosen)]
            options["weight_cap"] = self.robust.weight_cap or WEIGHT_CAP
        elif isinstance(pipeline.rule, Mean) and not pipeline.before:
            options["weights"] = collected.weights[list(chosen)]  # groups by their nodes
            options["weight_cap"] = float(len(chosen))
        if reference is not None:
            options["reference"] = reference
        whole = len(chosen) == len(collected.rows)
        rows = collected.rows if whole else [collected.rows[row] for row in chosen]
        return pipeline(rows, **options)

    def _excluding(
        self,
        collected: Collected,
        found: Aggregate,
        records: list[NodeRecord],
        left: int,
        reference: Vector | None,
    ) -> tuple[Aggregate, list[NodeRecord]]:
        """Returns the result without the suspects: at most f of them, the farthest ones.

        Who stands out need not be hostile: the rule still withstands all that are left of f, so
        that no more are left out than it allows.
        """
        distances = np.nan_to_num(found.diagnostics.distances, nan=-1.0)
        far = [row for row, record in enumerate(records) if record.suspect is not None]
        worst = sorted(far, key=lambda row: -distances[row])
        unusable = [row for row, record in enumerate(records) if record.excluded is not None]
        hostile = left - len(unusable)
        most = self._most(len(records) - len(unusable), hostile, min(len(worst), hostile))
        if not most:
            return found, records
        out = sorted([*unusable, *worst[:most]])
        kept = [row for row in range(len(records)) if row not in set(out)]
        again = self._aggregate(collected, kept, hostile, reference)
        rest = records_of([collected.groups[row] for row in kept], again)
        told = dict(zip(kept, rest, strict=True))
        for row in out:
            told[row] = _left_out(records[row], collected.rows[row], again.vector)
        return again, [told[row] for row in range(len(records))]

    def _most(self, rows: int, byzantine: int, wanted: int) -> int:
        """Returns how many of `wanted` rows can be left out; the rule's promise holds without."""
        for out in range(wanted, 0, -1):
            try:
                self.robust.check(rows - out, byzantine)
            except ConfigError:
                continue
            return out
        return 0


def _missed(collected: Collected, text: str, unusable: Mapping[int, str]) -> AttemptMissed:
    named = {node: why for row, why in unusable.items() for node in collected.groups[row]}
    return AttemptMissed(text, collected.failed, {**collected.rejected, **named})


def figures(records: Sequence[NodeRecord]) -> dict[str, Json]:
    """Returns who stands out and who was left out, why, by node id; for the round's report."""
    suspects = {str(n): r.suspect for r in records if r.suspect for n in r.nodes}
    excluded = {str(n): r.excluded for r in records if r.excluded for n in r.nodes}
    return {"suspects": suspects, "excluded": excluded}


def _left_out(record: NodeRecord, row: Vector, aggregate: Vector) -> NodeRecord:
    """Returns the record of a suspect after the rule ran without it."""
    if record.suspect is None:
        return record
    lengths = float(np.linalg.norm(row)) * float(np.linalg.norm(aggregate))
    cosine = float(np.dot(row, aggregate)) / lengths if lengths else 0.0
    return replace(
        record, weight=0.0, rank=None, cosine=cosine, suspect=None, excluded=record.suspect
    )
