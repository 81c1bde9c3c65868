"""Central privacy: the coordinator clips the updates, combines them and adds noise before it tells.

    rows --clip--> mean over a public number --+
           |       or a rule on n rows --------+--> noise --> publish (store, charge) --> vector
           +--> how many were short (adaptive clip) --> noise --^

What the noise covers does not depend on who answered: absent, rejected and unusable updates are
zero, and the number that the sum is divided by follows from the plan alone.

Sources: McMahan, Ramage, Talwar, Zhang, "Learning Differentially Private Recurrent Language
Models", ICLR 2018, algorithm 1 (fixed denominator, Poisson cohorts). Andrew et al., NeurIPS 2021
(adaptive clip). The sensitivity of rules: `fedsec.robust`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.combination import Combined
from fedsec.flower.noised_figures import cut, report, split
from fedsec.flower.publishing import Publish
from fedsec.flower.records import NodeRecord
from fedsec.flower.reporting import Json
from fedsec.flower.robust import CENTRE, RobustCombination
from fedsec.plan import FederationPlan, Privacy, Robust
from fedsec.plan.figures import figures_of, update_multiplier
from fedsec.plan.privacy import (
    CLIP_LEARNING_RATE,
    clip_noise,
    drawn_in_secret,
    expected,
    population,
)
from fedsec.plan.visibility import fewest_in_a_sum, group_size, most_in_a_sum
from fedsec.privacy.clipping import AdaptiveClip, clip_factors
from fedsec.privacy.gaussian import GaussianMechanism
from fedsec.privacy.keystream import Keystream
from fedsec.robust import CenteredClipping, Pipeline
from fedsec.vectors import Arrays, Vector, norm

Doubles: TypeAlias = NDArray[np.float64]

CLIP = "clip"
"""Name in the memory: the clip of the next round, where it adapts."""

_BLOCK = 1 << 14  # columns at a time
_LARGE = 256  # rows from which rules work in double precision, so that rounding stays below 1 %


class Central:
    """A mean or a rule with a known sensitivity, under noise.

    Args:
        plan: With ``privacy.model = "central"``.
        publish: Stores and charges what is released, before anybody sees it.
        source: Of the noise; a new `Keystream()`, except in simulations.
        chance: Makes a rule's source of chance, e.g. of buckets.
    """

    def __init__(
        self,
        plan: FederationPlan,
        publish: Publish,
        source: Keystream,
        chance: Callable[[], np.random.Generator],
    ) -> None:
        if plan.privacy is None or plan.privacy.model != "central":
            raise ConfigError('the plan has no privacy.model = "central"')
        self._plan = plan
        self._privacy: Privacy = plan.privacy
        self._rows = rows_of(plan)
        self._nodes = population(plan)
        self._expected = expected(plan)
        self._adaptive = adaptive(plan)
        self._told = figures_of(plan.privacy)
        self._publish = publish
        self._source = source
        self._robust = rule_of(plan)
        self._moves = self._robust is not None and self._robust.rule == "centered-clipping"
        self._chance = chance

    def __call__(self, attempt: Attempt, collected: Collected, memory: Arrays) -> Combined:
        """See `fedsec.flower.combination.Combination`."""
        clip = float(memory[CLIP]) if CLIP in memory else self._privacy.clip
        collected, told = split(collected, self._told)
        records: list[NodeRecord] = []  # stays empty where the release was made before

        def make() -> Vector:
            aggregate, found = self._combine(attempt, collected, memory, clip)
            records.extend(found)
            return np.concatenate(
                (
                    self._noised(aggregate, collected, clip),
                    self._noised_figures(told, self._over(attempt, collected)),
                )
            )

        released = self._publish(attempt.round, attempt.number, make)
        released, told_means = self._means(released)
        kept: dict[str, NDArray[np.floating[Any]]] = {}
        if self._adaptive is not None:
            count, released = float(released[-1]), released[:-1]
            kept[CLIP] = np.array(self._adaptive.step(clip, count, self._expected))
        if self._moves:  # from a public start: what was released, not what the rule returned
            kept[CENTRE] = released
        figures = {**self._figures(clip, released.size), **told_means}
        return Combined(released, kept, figures, tuple(records))

    def mechanism(self, clip: float) -> GaussianMechanism:
        """Returns the noise on the aggregate at this clip."""
        return central_mechanism(self._plan, clip)

    def _noised(self, aggregate: Doubles, collected: Collected, clip: float) -> Vector:
        noised = self.mechanism(clip).release(aggregate, self._source)
        if self._adaptive is None:
            return noised
        count = self._adaptive.count(row_norms(collected.rows), clip, self._source)
        return np.append(noised, np.float32(count))

    def _noised_figures(self, told: NDArray[np.float32], over: float) -> Vector:
        """Returns ``[means of encoded figures (k,) | over (1,)]``; nothing where none is told."""
        if self._told is None:
            return np.empty(0, np.float32)
        shares = self._told.clamp(told).sum(axis=0) / over
        return np.append(self._told.release(shares, over, self._source), np.float32(over))

    def _means(self, released: Vector) -> tuple[Vector, Mapping[str, Json]]:
        """Returns what was released of updates, and what a round's event says of figures.

        Both as they were stored: a release that is asked for again is over whom it was over.
        """
        if self._told is None:
            return released, {}
        vector, shares = cut(released[:-1], self._told)
        return vector, report(self._told, shares, float(released[-1]))

    def _over(self, attempt: Attempt, collected: Collected) -> float:
        """Returns the number of nodes that means of figures are over.

        Known to whoever is told the means, and the same whichever update becomes zero: a node that
        was asked and whose answer cannot be used counts, too. Where who was drawn is a secret, how
        many is one.
        """
        if drawn_in_secret(self._plan):
            return self._expected
        refused = collected.rejected.keys() & set(attempt.cohort)
        return max(1, len(collected.nodes) + len(refused))

    def _combine(
        self, attempt: Attempt, collected: Collected, memory: Arrays, clip: float
    ) -> tuple[Doubles, tuple[NodeRecord, ...]]:
        """Returns the aggregate without noise, and how each row came into it."""
        factors = clip_factors(row_norms(collected.rows), clip)
        if self._robust is not None:
            rows = self._all_rows(collected.rows, factors)
            return self._by_rule(self._robust, attempt, collected, memory, rows)
        sizes = np.array([len(group) for group in collected.groups], np.float64)
        return weighted_sum(collected.rows, factors * sizes) / self._expected, ()

    def _all_rows(self, given: NDArray[np.float32], factors: Doubles) -> NDArray[Any]:
        """Returns all rows: the clipped ones, and zero for what is absent or unusable."""
        kind = np.float32 if self._rows <= _LARGE else np.float64
        rows: NDArray[Any] = np.zeros((self._rows, given.shape[1]), kind)
        for row, update, factor in zip(rows, given, factors, strict=False):
            if factor > 0:
                np.multiply(update, factor, out=row, casting="same_kind")
        return rows

    def _by_rule(
        self,
        robust: Robust,
        attempt: Attempt,
        collected: Collected,
        memory: Arrays,
        rows: NDArray[Any],
    ) -> tuple[Doubles, tuple[NodeRecord, ...]]:
        absent = ((),) * (self._rows - len(collected.rows))
        whole = replace(
            collected,
            rows=rows,
            groups=(*collected.groups, *absent),
            weights=np.ones(self._rows),
            rejected={},
            asked=self._nodes,
        )
        # f is counted of n, whoever was drawn and answered
        everybody = replace(attempt, cohort=tuple(range(self._nodes)))
        found = RobustCombination(robust, chance=self._chance)(everybody, whole, memory)
        return found.vector.astype(np.float64), found.records[: len(collected.rows)]

    def _figures(self, clip: float, size: int) -> dict[str, Json]:
        return {"clip": clip, "noise_std": self.mechanism(clip).std(size)}


def rule_of(plan: FederationPlan) -> Robust | None:
    """Returns the plan's robust rule; None for the plain mean."""
    robust = plan.robust
    plain = robust is None or (robust.rule == "mean" and not robust.before)
    return None if plain else robust


def central_mechanism(plan: FederationPlan, clip: float) -> GaussianMechanism:
    """Returns the noise that central privacy adds to the aggregate.

    Args:
        plan: With ``privacy.model = "central"``.
        clip: Largest L2 norm of an update.

    Raises:
        ConfigError: The plan asks for something else, or for a rule of unknown sensitivity.
    """
    if plan.privacy is None or plan.privacy.model != "central":
        raise ConfigError('the plan has no privacy.model = "central"')
    return GaussianMechanism(central_sensitivity(plan, clip), update_multiplier(plan))


def central_sensitivity(plan: FederationPlan, clip: float) -> float:
    """Returns the worst-case L2 change of the aggregate when one node's update becomes zero.

    Where there are groups, that moves the mean of its group by the clip over the fewest nodes that
    such a mean may be of.

    Raises:
        ConfigError: No useful bound is known for the plan's rule.
    """
    robust, n = rule_of(plan), rows_of(plan)
    if robust is None:
        return clip / expected(plan) * (1 + _rounding_of_a_sum(plan))
    pipeline = robust.pipeline(robust.count(population(plan)))
    if group_size(plan) is None:
        found, stretch = pipeline.sensitivity(clip, n, "zero-out"), _rounding(pipeline, clip, n)
    else:
        many = fewest_in_a_sum(plan)
        found = pipeline.sensitivity(clip / many / 2, n, "replace-one")  # of any two means so near
        stretch = many * _rounding(pipeline, clip, n) + _rounding_of_a_sum(plan)
    if found is None:
        raise ConfigError(f"no useful bound is known for the sensitivity of {pipeline!r}")
    return found * (1 + stretch)


def rows_of(plan: FederationPlan) -> int:
    """Returns how many rows a rule gets under central privacy: a public number."""
    size, nodes = group_size(plan), population(plan)
    return nodes if size is None else nodes // size


def _rounding_of_a_sum(plan: FederationPlan) -> float:
    """Returns by how much the sensitivity grows since a secure sum comes as a mean in float32.

    Each of two neighbours' means, no longer than the clip, is off by one unit roundoff at most.
    """
    if plan.secure_aggregation is None:
        return 0.0
    most = plan.secure_aggregation.max_nodes if group_size(plan) is None else most_in_a_sum(plan)
    return 2 * most * 2.0**-24


def _rounding(pipeline: Pipeline, clip: float, n: int) -> float:
    """Returns by how much rounding errors may stretch the sensitivity of a rule, relative to it.

    Each of two neighbours' results is off by at most (n + 8) u times the longest row, u the unit
    roundoff (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 4.2); the
    sensitivity of a rule is at least the clip over n, or a step of centred clipping over n.
    """
    unit = 2.0**-24 if n <= _LARGE else 2.0**-53
    rule, longest = pipeline.rule, 1.0
    if isinstance(rule, CenteredClipping):
        longest = clip / min(rule.radius, clip) + rule.iterations
    return 2 * n * (n + 8) * unit * longest


def adaptive(plan: FederationPlan) -> AdaptiveClip | None:
    """Returns how the plan's clip adapts; None where it is fixed."""
    privacy = plan.privacy
    if privacy is None or privacy.clip_quantile is None:
        return None
    rate = privacy.clip_learning_rate
    return AdaptiveClip(
        privacy.clip_quantile, CLIP_LEARNING_RATE if rate is None else rate, clip_noise(plan)
    )


def row_norms(rows: NDArray[np.float32]) -> Doubles:
    """Returns the L2 norm of each row (n,), summed in double precision."""
    return np.array([norm(row) for row in rows], np.float64)


def weighted_sum(rows: NDArray[np.float32], factors: Doubles) -> Doubles:
    """Returns ``factors @ rows`` (d,) in double precision; a row with factor 0 is not looked at."""
    used = np.flatnonzero(factors)
    total = np.zeros(rows.shape[1])
    for start in range(0, rows.shape[1], _BLOCK):
        block = rows[used, start : start + _BLOCK].astype(np.float64)
        total[start : start + _BLOCK] = factors[used] @ block
    return total
