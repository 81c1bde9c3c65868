"""Central privacy as an audit sees it: what the coordinator makes of updates and of figures."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeAlias

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedsec.flower.audited import SAME, Planned, distance, without_figures
from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.combination import Combination
from fedsec.flower.private import Central, central_sensitivity, row_norms, rows_of, rule_of
from fedsec.flower.publishing import Publish
from fedsec.flower.robust import CENTRE
from fedsec.flower.strategy import Matrix
from fedsec.plan import FederationPlan
from fedsec.plan.figures import figures_noise
from fedsec.plan.privacy import clip_noise, drawn_in_secret, expected, population
from fedsec.plan.visibility import fewest_in_a_sum, group_size
from fedsec.privacy.clipping import clip_factors
from fedsec.privacy.keystream import Keystream
from fedsec.robust import Pipeline
from fedsec.robust.worst import buckets, extremes
from fedsec.secagg.groups import group_sizes
from fedsec.vectors import Vector

Doubles: TypeAlias = NDArray[np.float64]

HALF = 0.5
"""By which an update changes the count of short ones, when it becomes zero."""

Combine: TypeAlias = Callable[[FederationPlan, Publish, Keystream], Combination]


def known() -> np.random.Generator:
    """Returns the chance of a rule that draws, e.g. buckets: the auditor knows it."""
    return np.random.default_rng(0)


def central(plan: FederationPlan, publish: Publish, source: Keystream) -> Combination:
    """Returns the combination of a run."""
    return Central(plan, publish, source, known)


@dataclass(frozen=True)
class CentralMechanism(Planned):
    """What the coordinator makes of the updates.

    Args:
        plan: With ``privacy.model = "central"``.
        combine: Makes the combination from plan, where it publishes, and source of noise.
    """

    combine: Combine = central

    @property
    def sampling(self) -> float:
        """See `Mechanism`."""
        rate = self.privacy.sampling
        return 1.0 if rate is None else rate

    @property
    def survivors(self) -> tuple[int, ...]:
        """See `Mechanism`: few, half and all of the nodes answer; few make one sum, if any.

        Where there are groups, also all of them, with the last one as small as it may be.
        """
        size, few = group_size(self.plan), max(1, self.units // 4)
        if size is None:
            return tuple(sorted({few, max(few, self.units // 2), self.units}))
        few = fewest_in_a_sum(self.plan)
        *_, last = group_sizes(self.units, size)
        short = self.units - last + few
        return tuple(sorted({few, max(few, self.units // 2), short, self.units}))

    def sensitivity(self, survivors: int, clip: float) -> float:
        """See `Mechanism`: whoever answers, as absent rows are zero."""
        del survivors
        return central_sensitivity(self.plan, clip)

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`."""
        return self.published(without_figures(rows, self.privacy), source)[: rows.shape[1]]

    def published(self, rows: Matrix, source: Keystream, start: Vector | None = None) -> Vector:
        """Returns all that a round publishes: ``[update (d,) | count | figures (k,) | over]``.

        The count, and figures with the number of nodes that they are over, where the plan has them.

        Args:
            rows: Of the nodes that answered (m, d + k).
            source: Of the noise.
            start: Where a rule that moves begins (d,); the origin if left out.
        """
        groups: tuple[tuple[int, ...], ...] = tuple((node,) for node in range(len(rows)))
        if group_size(self.plan) is not None:
            groups = _groups(self.plan, len(rows))
            rows = _means(rows, groups, self.privacy.clip)
        collected = Collected(
            rows=rows, groups=groups, weights=np.ones(len(rows)), metrics=(), failed={}, rejected={}
        )
        attempt = Attempt(1, 1, tuple(range(self.units)), RecordDict())
        seen: list[Vector] = []

        def publish(round_number: int, attempt: int, make: Callable[[], Vector]) -> Vector:
            del round_number, attempt
            seen.append(make())
            return seen[-1]

        self.combine(self.plan, publish, source)(
            attempt, collected, {} if start is None else {CENTRE: start}
        )
        return seen[-1]

    def changes(
        self, survivors: int, size: int, clip: float, rng: np.random.Generator
    ) -> Iterator[tuple[float, str]]:
        """See `Mechanism`: under a robust rule, also the inputs that move it the most."""
        yield from super().changes(survivors, size, clip, rng)
        robust = rule_of(self.plan)
        if robust is None:
            return
        pipeline = robust.pipeline(robust.count(self.units))
        line = np.full(size, clip / math.sqrt(size), np.float32)
        for extreme in extremes(self._mixing(pipeline, survivors), pipeline, clip):
            rows = np.outer(extreme.values, line).astype(np.float32)
            start = np.float32(extreme.start) * line if extreme.start else None
            one, two = (
                self.published(without_figures(each, self.privacy), Keystream(SAME), start)[:size]
                for each in (rows, self.moved(rows, extreme.row))
            )
            yield distance(one, two), extreme.name

    def _mixing(self, pipeline: Pipeline, survivors: int) -> Doubles:
        """Returns what each row that the rule sees takes from each node that answered."""
        rows = rows_of(self.plan)
        means = np.eye(rows, survivors)
        if group_size(self.plan) is not None:
            means = np.zeros((rows, survivors))
            for row, group in enumerate(_groups(self.plan, survivors)):
                means[row, list(group)] = 1 / len(group)
        return buckets(pipeline, rows, known()) @ means


@dataclass(frozen=True)
class CentralFigures(Planned):
    """Figures of nodes that the coordinator tells, under noise of their own.

    Args:
        plan: With ``privacy.model = "central"`` and ``privacy.metrics``.
        beside: The updates.
    """

    beside: CentralMechanism

    @property
    def survivors(self) -> tuple[int, ...]:
        """See `Mechanism`: the fewest and all of them."""
        return _fewest_and_all(self.beside)

    @property
    def multiplier(self) -> float:
        """See `Mechanism`."""
        return figures_noise(self.privacy)

    def sensitivity(self, survivors: int, clip: float) -> float:
        """See `Mechanism`: `clip` is the largest norm of a node's figures."""
        return clip / (expected(self.plan) if drawn_in_secret(self.plan) else survivors)

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`: of encoded figures (m, k), on updates of one entry."""
        given = np.hstack((np.zeros((len(rows), 1), np.float32), rows))
        return self.beside.published(given, source)[-rows.shape[1] - 1 : -1]


@dataclass(frozen=True)
class ClipCount(Planned):
    """How many updates were shorter than the clip, under noise of its own.

    Args:
        plan: With ``privacy.clip_quantile``.
        beside: The updates.
    """

    beside: CentralMechanism

    @property
    def survivors(self) -> tuple[int, ...]:
        """See `Mechanism`: the fewest and all of them."""
        return _fewest_and_all(self.beside)

    @property
    def multiplier(self) -> float:
        """See `Mechanism`: an update counts for a half, or against it."""
        return 2 * clip_noise(self.plan)

    def sensitivity(self, survivors: int, clip: float) -> float:
        """See `Mechanism`: a half, as an update counts for it or against it."""
        del survivors, clip
        return HALF

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`: of updates (m, d), one number."""
        size = rows.shape[1]
        return self.beside.published(without_figures(rows, self.privacy), source)[size : size + 1]


def _fewest_and_all(mechanism: CentralMechanism) -> tuple[int, ...]:
    """Returns two of the numbers of survivors: what is released again and again takes its time."""
    return tuple(sorted({min(mechanism.survivors), max(mechanism.survivors)}))


def _groups(plan: FederationPlan, survivors: int) -> tuple[tuple[int, ...], ...]:
    """Returns who is in each sum: of all nodes' groups, the first nodes answer, group by group."""
    least = fewest_in_a_sum(plan)
    ends = list(accumulate(group_sizes(population(plan), group_size(plan) or 1)))
    split = [tuple(range(at, min(end, survivors))) for at, end in pairwise([0, *ends])]
    return tuple(group for group in split if len(group) >= least)


def _means(rows: Matrix, groups: tuple[tuple[int, ...], ...], clip: float) -> Matrix:
    """Returns the mean of each group of nodes, which clip for themselves."""
    clipped = rows * clip_factors(row_norms(rows), clip)[:, np.newaxis]
    means = np.array([clipped[list(group)].mean(axis=0) for group in groups], np.float32)
    return means.reshape(len(groups), rows.shape[1])
