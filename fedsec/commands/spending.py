"""What a plan's privacy costs and how much noise it takes, reckoned before anything runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from fedsec.errors import ConfigError
from fedsec.flower.perturb import Perturb
from fedsec.flower.private import central_mechanism
from fedsec.flower.sums import noisy_sum
from fedsec.plan import FederationPlan, Privacy
from fedsec.plan.figures import figures_of, joined_of, update_multiplier, width
from fedsec.plan.privacy import expected, honest, population
from fedsec.plan.terms import price, terms
from fedsec.privacy.accounting import COARSE, spent
from fedsec.privacy.calibration import calibrate
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.ledger import Terms

POINTS = 8
DELTAS = (1e-5, 1e-6)


@dataclass(frozen=True)
class Noise:
    """The noise on the mean of a round's updates.

    Args:
        size: d, entries.
        std: Standard deviation per entry, in the unit of the updates.
        sensitivity: How far one node moves what the noise is added to, in L2.
        added: Standard deviation per entry of what is added there.
        where: Who adds it, to what.
    """

    size: int
    std: float
    sensitivity: float
    added: float
    where: str

    def to_signal(self, clip: float) -> float:
        """Returns the length of the noise over that of the longest possible mean."""
        return self.std * math.sqrt(self.size) / clip


def noise_of(plan: FederationPlan, size: int) -> Noise:
    """Returns the noise of a round under `plan`, for a model of `size` entries.

    Raises:
        ConfigError: The plan has no node-level privacy, or its words are too short.
    """
    privacy = _privacy(plan)
    if privacy.model == "central":
        mechanism = central_mechanism(plan, privacy.clip)
        std = mechanism.std(size)
        return Noise(size, std, mechanism.sensitivity, std, "the coordinator, to the aggregate")
    if privacy.model == "local":
        local = Perturb.of(privacy).mechanism
        answering = plan.cohort(population(plan))
        std = local.std(size) / math.sqrt(answering)
        return Noise(size, std, local.sensitivity, local.std(size), "each node, to its update")
    found, n = noisy_sum(plan, width(plan, size)), population(plan)
    added = found.std(1)
    std = found.std(n) / n
    reach = found.l2 / found.scale
    return Noise(size, std, reach, added, f"each of at least {honest(plan)} honest nodes")


def noise_of_figures(plan: FederationPlan, size: int) -> dict[str, float]:
    """Returns the standard deviation of the noise on each figure's mean, in its own unit.

    Args:
        plan: With a table [privacy].
        size: d, entries of the model; noise that the nodes add depends on it, a little.

    Raises:
        ConfigError: The plan has no node-level privacy.
    """
    privacy = _privacy(plan)
    figures = figures_of(privacy)
    if figures is None:
        return {}
    if privacy.model == "local":
        share = figures.mechanism(1, replaces=True).std(figures.count)
        share /= math.sqrt(plan.cohort(population(plan)))
    elif (joined := joined_of(plan)) is not None:
        share = noise_of(plan, size).std / joined.weight
    else:
        share = figures.mechanism(expected(plan)).std(figures.count)
    return {name: share * (high - low) for name, low, high in figures.ranges}


@dataclass(frozen=True)
class Spending:
    """What a plan costs.

    Args:
        terms: Guarantee and price.
        epsilons: After so many releases, at the plan's delta.
        at: Of the whole plan, by delta.
        unsampled: Of the whole plan if all nodes took part in every round; None if they do.
    """

    terms: Terms
    epsilons: dict[int, float]
    at: dict[float, float]
    unsampled: float | None

    @property
    def epsilon(self) -> float:
        """Of the whole plan, at its own delta."""
        return self.epsilons[max(self.epsilons)]


def spending_of(plan: FederationPlan) -> Spending:
    """Returns what the releases of `plan` cost.

    Raises:
        ConfigError: The plan states no price.
    """
    privacy, of = _privacy(plan), terms(plan)
    last = of.releases
    counts = sorted({max(1, round(last * point / POINTS)) for point in range(1, POINTS)})
    epsilons = {n: spent([of.price.times(n)], privacy.delta, interval=COARSE) for n in counts}
    epsilons[last] = spent([of.whole], privacy.delta)
    at = {delta: spent([of.whole], delta, interval=COARSE) for delta in DELTAS}
    event = of.price.event
    unsampled = None
    if isinstance(event, Gaussian) and event.sampling < 1:
        unsampled = spent([Price(Gaussian(event.noise_multiplier), last)], privacy.delta)
    return Spending(of, epsilons, {privacy.delta: epsilons[last], **at}, unsampled)


def calibrated(
    plan: FederationPlan, epsilon: float, *, tried: Callable[[float], object]
) -> FederationPlan:
    """Returns `plan` with the smallest noise multiplier that keeps the whole within `epsilon`.

    Args:
        plan: With a table [privacy].
        epsilon: The most that the whole may cost.
        tried: Is told each multiplier before its price is reckoned.

    Raises:
        ConfigError: No multiplier does, or the plan states no price.
    """
    privacy, of = _privacy(plan), terms(plan)
    budget = privacy.model_copy(update={"epsilon": epsilon})

    def whole(multiplier: float) -> Price:
        asked = price(budget, multiplier)
        return replace(asked, delta=max(asked.delta, of.price.delta)).times(of.releases)

    found = calibrate(whole, epsilon=epsilon, delta=privacy.delta, tried=tried)
    changed = budget.model_copy(update={"noise_multiplier": found})
    made = plan.model_copy(update={"privacy": changed})
    try:
        update_multiplier(made)
    except ConfigError:
        keys = [key for key in ("metrics_noise", "clip_noise") if getattr(privacy, key) is not None]
        raise ConfigError(
            f"noise_multiplier = {found:.4g} would keep the whole within epsilon {epsilon:g}, but "
            f"what it must cover beside the updates takes all of it; raise or leave out "
            f"{' and '.join(f'privacy.{key}' for key in keys) or 'privacy.metrics'}"
        ) from None
    return made


def _privacy(plan: FederationPlan) -> Privacy:
    if plan.privacy is None:
        raise ConfigError("the plan has no table [privacy]: it promises nothing and costs nothing")
    if plan.privacy.model == "example":
        raise ConfigError(
            'the plan has privacy.model = "example": what it costs depends on how many examples a '
            "node has; each node reckons it when it takes part"
        )
    return plan.privacy


def nodes_sentence(plan: FederationPlan) -> str:
    """Returns who takes part, in words."""
    n, mean = population(plan), expected(plan)
    return f"{n}" if mean == n else f"{n}, of which {mean:g} on average take part in a round"
