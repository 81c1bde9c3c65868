"""An audit of a plan's privacy: the mechanism is measured, and attacked with canaries.

    noise at each number of survivors --+
    the most that one unit can change --+--> noise / change >= claimed multiplier?   (deterministic)
    canaries, all in      --> estimate --+
    canaries, by a coin   --> bound    --+--> more than the claimed epsilon?             (canaries)

The mechanism is that of a run, with updates of the auditor's making in place of trained ones.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.flower.audited import Mechanism, privacy_of
from fedsec.flower.audited_central import CentralFigures, CentralMechanism, ClipCount
from fedsec.flower.audited_nodes import (
    DistributedMechanism,
    ExampleMechanism,
    LocalFigures,
    LocalMechanism,
    WholeSum,
)
from fedsec.flower.strategy import Matrix
from fedsec.plan import FederationPlan
from fedsec.plan.figures import figures_of, joined_of
from fedsec.privacy.accounting import spent
from fedsec.privacy.audit import (
    FEW,
    LEVEL,
    Estimate,
    directions,
    noise_p,
    one_run,
    one_shot,
    shape_p,
)
from fedsec.privacy.events import Gaussian, Price, Skellam
from fedsec.privacy.keystream import Keystream

Doubles: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95
"""Of the bound."""

_FAIR = 0.5  # of a coin


@dataclass(frozen=True, slots=True)
class Part:
    """What a round releases, as far as one noise covers it.

    Args:
        name: In words.
        mechanism: That releases it.
        clip: Largest L2 norm of what a unit gives to it.
        size: Entries of that.
    """

    name: str
    mechanism: Mechanism
    clip: float
    size: int


def parts_of(plan: FederationPlan, size: int) -> list[Part]:
    """Returns what a round of a plan releases; the first is the updates, the others beside them.

    Args:
        plan: To audit.
        size: d, entries of a model.

    Raises:
        ConfigError: The plan has no [privacy].
    """
    privacy, mechanism = privacy_of(plan), mechanism_of(plan)
    parts = [Part("updates", mechanism, privacy.clip, size)]
    figures, joined = figures_of(privacy), joined_of(plan)
    if joined is not None:
        many = size + joined.figures.count
        parts.append(Part("updates and figures", WholeSum(plan), joined.norm, many))
    elif figures is not None:
        beside: Mechanism = LocalFigures(plan)
        if isinstance(mechanism, CentralMechanism):
            beside = CentralFigures(plan, _without_rule(mechanism))
        parts.append(Part("figures", beside, math.sqrt(figures.count) / 2, figures.count))
    if privacy.clip_quantile is not None and isinstance(mechanism, CentralMechanism):
        parts.append(Part("count of short updates", ClipCount(plan, mechanism), privacy.clip, 1))
    return parts


def _without_rule(mechanism: CentralMechanism) -> CentralMechanism:
    """Returns it with the mean of the updates: figures pass by the rule, which takes its time."""
    return replace(mechanism, plan=mechanism.plan.model_copy(update={"robust": None}))


def together(parts: Sequence[Part]) -> float:
    """Returns the multiplier of one release that costs what all parts of a round do."""
    whole = [part.mechanism.multiplier for part in parts if isinstance(part.mechanism, WholeSum)]
    return whole[0] if whole else sum(part.mechanism.multiplier**-2 for part in parts) ** -0.5


def charged(mechanism: Mechanism) -> float:
    """Returns the multiplier that the ledger is charged for."""
    match mechanism.price.event:
        case Gaussian(noise_multiplier=multiplier):
            return multiplier
        case Skellam(l2=l2, variance=variance):
            return math.sqrt(variance) / l2


def mechanism_of(plan: FederationPlan) -> Mechanism:
    """Returns what releases the updates.

    Raises:
        ConfigError: The plan has no [privacy].
    """
    match privacy_of(plan).model:
        case "central":
            return CentralMechanism(plan)
        case "local":
            return LocalMechanism(plan)
        case "distributed":
            return DistributedMechanism(plan)
        case "example":
            return ExampleMechanism(plan)


@dataclass(frozen=True, slots=True)
class Measured:
    """The noise of a release beside what it must cover.

    Args:
        survivors: Units that were there.
        std: Of the noise per entry, as measured.
        change: The most that moving one unit changed, in L2.
        sensitivity: The most that it can, as stated: the claim counts with it.
        worst: In which set of rows.
        claimed: The multiplier: `std` over `change`, at least.
        p: How likely noise so small is under the claim; less than `LEVEL` fails.
        shape: How likely noise of that shape is; less than `LEVEL` fails.
    """

    survivors: int
    std: float
    change: float
    sensitivity: float
    worst: str
    claimed: float
    p: float
    shape: float

    @property
    def multiplier(self) -> float:
        """As measured."""
        return self.std / self.change if self.change > 0 else float("inf")

    @property
    def reach(self) -> float:
        """The change over the sensitivity as stated, whatever the noise is; about 1 at most.

        Noise that is smaller than stated by this factor or less would pass.
        """
        return self.change / self.sensitivity

    @property
    def passed(self) -> bool:
        """Whether the noise covers the change as claimed."""
        return self.p >= LEVEL and self.shape >= LEVEL


@dataclass(frozen=True, slots=True)
class Canaries:
    """What the released models show of canaries.

    Args:
        count: Canaries of each of the two figures.
        rounds: That were audited.
        claimed: Epsilon of these rounds.
        delta: At which all of it holds.
        estimate: From canaries that were all in.
        bound: Certified at `CONFIDENCE`, from canaries in by a coin.
    """

    count: int
    rounds: int
    claimed: float
    delta: float
    estimate: Estimate
    bound: float

    @property
    def passed(self) -> bool:
        """Whether neither shows more than was claimed, chance aside."""
        return self.bound <= self.claimed and self.estimate.low <= self.claimed


def measure(
    mechanism: Mechanism, *, clip: float, size: int, rng: np.random.Generator
) -> list[Measured]:
    """Returns the noise beside the largest change, for each number of survivors.

    Args:
        mechanism: To audit.
        clip: Largest L2 norm of a row that it is said to let through.
        size: d, entries of a release; `audit.MIN_SIZE` at least for the stated power. Where it is
            less than `audit.FEW`, so many releases are made that they have that many in all.
        rng: Of directions.
    """
    found, source = [], Keystream()
    for survivors in mechanism.survivors:
        nothing = np.zeros((survivors, size), np.float32)
        made = [mechanism.release(nothing, source) for _ in range(math.ceil(FEW / size))]
        noise = np.concatenate(made).astype(np.float64)
        change, worst = max(mechanism.changes(survivors, size, clip, rng))
        claimed = mechanism.multiplier
        p = noise_p(noise, claimed * change) if change > 0 else 1.0
        std = float(np.sqrt(np.mean(noise**2)))
        stated = mechanism.sensitivity(survivors, clip)
        shape = shape_p(noise)
        found.append(Measured(survivors, std, change, stated, worst, claimed, p, shape))
    return found


@dataclass(frozen=True)
class Planting:
    """How canaries are planted.

    Args:
        mechanism: To audit.
        clip: Length of a canary.
        delta: Of the claim.
        size: d, entries of a release.
        count: Canaries, for each figure; more than there are units are planted in several runs.
        rounds: From each of which the release is known, as their sum.
        rng: Of directions, coins and draws.
        source: Of each release's noise.
    """

    mechanism: Mechanism
    clip: float
    delta: float
    size: int
    count: int
    rounds: int
    rng: np.random.Generator
    source: Callable[[], Keystream] = Keystream

    def __call__(self) -> Canaries:
        """Returns both figures beside the claim."""
        claimed = spent([self.mechanism.price.times(self.rounds)], self.delta)
        return Canaries(self.count, self.rounds, claimed, self.delta, self.estimate(), self.bound())

    def estimate(self) -> Estimate:
        """Returns what canaries that are all in show."""
        cosines = []
        for made in self._canaries():
            total = self._released(self.clip * made)
            cosines.append(made @ total / np.linalg.norm(total))
        reach = 2.0 if self.mechanism.replaces else 1.0
        return one_shot(np.concatenate(cosines), self.size, self._gaussian, reach=reach)

    def bound(self) -> float:
        """Returns what canaries that are in by a coin certify, at `CONFIDENCE`."""
        inside: list[Doubles] = []
        outside: list[Doubles] = []
        for made in self._canaries():
            coins = self.rng.random(len(made)) < _FAIR
            rows = self.clip * made
            rows[~coins] *= -1.0 if self.mechanism.replaces else 0.0
            scores = made @ self._released(rows)
            inside.append(scores[coins])
            outside.append(scores[~coins])
        found, others = np.concatenate(inside), np.concatenate(outside)
        return one_run(found, others, self.delta, level=1 - CONFIDENCE)

    def _canaries(self) -> Iterator[Matrix]:
        """Yields the directions of each run's canaries."""
        whole, rest = divmod(self.count, self.mechanism.units)
        for many in [self.mechanism.units] * whole + [rest] * (rest > 0):
            yield directions(many, self.size, self.rng)

    def _released(self, rows: Matrix) -> Doubles:
        """Returns the sum of the releases of all rounds (d,)."""
        total = np.zeros(self.size)
        for _ in range(self.rounds):
            drawn = self.rng.random(len(rows)) < self.mechanism.sampling
            total += self.mechanism.release(rows[drawn], self.source())
        return total

    def _gaussian(self, multiplier: float) -> float:
        return spent([Price(Gaussian(multiplier))], self.delta)
