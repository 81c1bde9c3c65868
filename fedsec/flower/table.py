"""From a plan's words to the values that do the work."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from fedsec.errors import ConfigError
from fedsec.flower.collection import LONGEST, Collection, Plain
from fedsec.flower.combination import Combination, OverPopulation, Weighted
from fedsec.flower.draws import Draw, Poisson, Ranked
from fedsec.flower.noised_figures import NoisedFigures
from fedsec.flower.private import Central, rule_of
from fedsec.flower.publishing import Publish
from fedsec.flower.robust import RobustCombination, RootUpdate
from fedsec.flower.secure_sum import SecureSum
from fedsec.flower.strategy import FedAdam, FedAvg, FedAvgM, ServerOptimizer, Weighting
from fedsec.plan import FederationPlan, Training
from fedsec.plan.figures import figures_of, joined_of, width
from fedsec.plan.privacy import Privacy, population
from fedsec.privacy.keystream import Keystream
from fedsec.tasks.training import LocalTraining

if TYPE_CHECKING:
    from fedsec.tasks.private_training import PrivateTraining


def fedavg(training: Training) -> FedAvg:
    """Returns the plain mean; FedProx has the same: its term is the nodes' business."""
    return FedAvg(learning_rate=training.server_learning_rate)


def fedavgm(training: Training) -> FedAvgM:
    """Returns server momentum."""
    return FedAvgM(
        learning_rate=training.server_learning_rate,
        momentum=_own(training, "server_momentum", training.server_momentum),
    )


def fedadam(training: Training) -> FedAdam:
    """Returns Adam on the coordinator."""
    return FedAdam(
        learning_rate=training.server_learning_rate,
        beta_1=_own(training, "beta_1", training.beta_1),
        beta_2=_own(training, "beta_2", training.beta_2),
        tau=_own(training, "tau", training.tau),
    )


ALGORITHMS: MappingProxyType[str, Callable[[Training], ServerOptimizer]] = MappingProxyType(
    {"fedavg": fedavg, "fedprox": fedavg, "fedavgm": fedavgm, "fedadam": fedadam}
)


def collection(
    plan: FederationPlan, size: int, trusted: Mapping[int, bytes] | None = None
) -> Collection:
    """Returns how updates get from the nodes to rows: of each node, of each group, or one of all.

    Args:
        plan: For the built-in app.
        size: d, entries of an update.
        trusted: Signing keys by node id, from the federation's signed roster, for secure sums.
    """
    if plan.secure_aggregation is not None:
        return SecureSum(plan, width(plan, size), trusted)
    return Plain(
        width(plan, size),
        weighting(plan.learning[1]),
        withheld=plan.privacy is not None,
        longest=longest(plan),
    )


def longest(plan: FederationPlan) -> float:
    """Returns the L2 norm beyond which an update is refused by name.

    None is, where all are clipped: there it does no harm, and who was refused would tell of it.
    """
    central = plan.privacy is not None and plan.privacy.model == "central"
    return math.inf if central or plan.secure_aggregation is not None else LONGEST


def combination(
    plan: FederationPlan,
    chance: Callable[[], np.random.Generator] = np.random.default_rng,
    publish: Publish | None = None,
    source: Keystream | None = None,
    root: RootUpdate | None = None,
) -> Combination:
    """Returns what is made of the rows.

    Args:
        plan: For the built-in app.
        chance: Makes a rule's source of chance; anew from the system, except in simulations.
        publish: How noised aggregates get out, where the coordinator adds the noise.
        source: Of that noise; anew from the system, except in simulations.
        root: Makes the update on the coordinator's own data that a rule trusts.

    Raises:
        ConfigError: The plan asks for privacy, and there is no way to publish; or for a root
            update, and there is nobody who makes it.
    """
    if plan.privacy is not None and plan.privacy.model == "central":
        if publish is None:
            raise ConfigError("the plan has [privacy]; say how noised aggregates are published")
        return Central(plan, publish, Keystream() if source is None else source, chance)
    figures, made = figures_of(plan.privacy), _by_rule(plan, chance, root)
    if figures is None:
        return made
    joined = joined_of(plan)
    return NoisedFigures(figures, made, 1.0 if joined is None else joined.weight)


def _by_rule(
    plan: FederationPlan, chance: Callable[[], np.random.Generator], root: RootUpdate | None
) -> Combination:
    noised = plan.privacy is not None and plan.privacy.model == "distributed"
    if noised and rule_of(plan) is None:
        return OverPopulation(population(plan))  # of what the nodes have noised
    if plan.robust is None:
        return Weighted()
    if plan.robust.root is not None and root is None:
        raise ConfigError(
            f'robust.root = "{plan.robust.root}" names data that a coordinator has ([data.NAME] in '
            "its server.toml), and there is none here"
        )
    by_weight = plan.learning[1].weighting == "examples"
    return RobustCombination(plan.robust, by_weight=by_weight, chance=chance, root=root)


def drawing(plan: FederationPlan) -> Draw:
    """Returns how the nodes of a round are drawn from those that are ready."""
    privacy = plan.privacy
    if privacy is not None and privacy.sampling is not None:
        return Poisson(privacy.sampling, population(plan))
    return Ranked(plan.learning[1].seed, plan.cohort)


def weighting(training: Training) -> Weighting:
    """Returns how much each node counts."""
    return Weighting(training.max_examples if training.weighting == "examples" else None)


def local_training(training: Training) -> LocalTraining:
    """Returns what a node does in a round."""
    return LocalTraining(
        epochs=training.local_epochs,
        steps=training.local_steps,
        batch_size=training.batch_size,
        optimizer=training.optimizer,
        learning_rate=training.learning_rate,
        momentum=training.momentum or 0.0,
        proximal_mu=training.proximal_mu or 0.0,
    )


def private_training(training: Training, privacy: Privacy) -> "PrivateTraining":
    """Returns what a node does in a round that hides each of its examples."""
    from fedsec.tasks.private_training import PrivateTraining  # noqa: PLC0415 - Opacus takes long

    return PrivateTraining(
        local_training(training), clip=privacy.clip, noise_multiplier=privacy.noise_multiplier
    )


def _own(training: Training, key: str, value: float | None) -> float:
    if value is None:
        raise ConfigError(f"training.{key} is missing for algorithm = {training.algorithm!r}")
    return value
