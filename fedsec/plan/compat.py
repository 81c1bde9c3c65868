"""What may not be combined, and why: one table, read when a plan is parsed."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fedsec.plan import secure_aggregation, visibility
from fedsec.plan.data import data_and_task
from fedsec.plan.figures import noised_figures
from fedsec.plan.privacy import (
    adaptive_clip,
    amplification,
    fixed_denominator,
    honest_shares,
    one_number_of_corrupt,
    own_privacy_keys,
    privacy_of_what,
)
from fedsec.plan.refusal import Refusal
from fedsec.plan.robust_rules import robust_rules
from fedsec.plan.sections import OWN_KEYS, Training, share

if TYPE_CHECKING:
    from fedsec.plan.federation import FederationPlan


def refusals(plan: "FederationPlan") -> list[Refusal]:
    """Returns every reason to refuse `plan`; none for a sound one."""
    return [refusal for rule in RULES for refusal in rule(plan)]


def app_or_task(plan: "FederationPlan") -> Iterator[Refusal]:
    """The built-in app needs a task; a Flower app brings its own and draws its own cohorts."""
    if not plan.built_in:
        decided = f"must be left out: the app {plan.app.name!r} decides this for itself"
        given = {*plan.model_fields_set & {"task", "training", "model", "data"}}
        given |= {f"nodes.{key}" for key in plan.nodes.model_fields_set & {"quorum", "fraction"}}
        given |= {
            f"round.{key}"
            for key in plan.round.model_fields_set & {"attempts", "evaluate_every", "compare_alone"}
        }
        yield from (Refusal(key, decided) for key in sorted(given))
        return
    for key in ("task", "training"):
        if getattr(plan, key) is None:
            yield Refusal(key, f'missing: app.name = "fedsec" needs a [{key}] table')
    if plan.app.config:
        yield Refusal("app.config", 'only a Flower app reads it; "fedsec" reads [training]')


def enough_nodes(plan: "FederationPlan") -> Iterator[Refusal]:
    """A quorum that the draw can never reach makes every round fail."""
    nodes = plan.nodes
    if nodes.quorum > nodes.min_available:
        yield Refusal(
            "nodes.quorum",
            f"{nodes.quorum} is more than nodes.min_available = {nodes.min_available}; "
            f"allowed: 1..{nodes.min_available}",
        )
    elif share(nodes.min_available, nodes.fraction) < nodes.quorum:
        yield Refusal(
            "nodes.quorum",
            f"{nodes.quorum} is more than the {share(nodes.min_available, nodes.fraction)} that "
            f"nodes.fraction = {nodes.fraction} draws of nodes.min_available = "
            f"{nodes.min_available}; lower the quorum or raise the fraction",
        )


def own_keys(plan: "FederationPlan") -> Iterator[Refusal]:
    """A key that the algorithm does not read would be ignored in silence."""
    training = plan.training
    if training is None:
        return
    for algorithm, keys in OWN_KEYS.items():
        if algorithm == training.algorithm:
            continue
        for key in keys:
            if getattr(training, key) is not None:
                yield Refusal(
                    f"training.{key}",
                    f'{getattr(training, key)} is read by algorithm = "{algorithm}" only, '
                    f'this plan has "{training.algorithm}"',
                )


def local_work(plan: "FederationPlan") -> Iterator[Refusal]:
    """What a node does in a round is said once, in one unit."""
    training = plan.training
    if training is None:
        return
    if training.local_epochs is not None and training.local_steps is not None:
        yield Refusal(
            "training.local_steps",
            f"{training.local_steps} stands beside training.local_epochs = "
            f"{training.local_epochs}; give one of the two",
        )
    if training.optimizer != "sgd" and training.momentum is not None:
        yield Refusal(
            "training.momentum",
            f'{training.momentum} is read by optimizer = "sgd" only, '
            f'this plan has "{training.optimizer}"',
        )


def weights(plan: "FederationPlan") -> Iterator[Refusal]:
    """A node's own claim buys no more influence than the plan's author allows."""
    training = plan.training
    if training is None:
        return
    if training.weighting == "examples" and training.max_examples is None:
        yield Refusal(
            "training.max_examples",
            'missing: weighting = "examples" needs a cap, since a node can claim any number; '
            f"allowed: 1..{2**53}",
        )
    if training.weighting != "examples" and training.max_examples is not None:
        yield Refusal(
            "training.max_examples",
            f'{training.max_examples} is read with weighting = "examples" only, '
            f'this plan has "{training.weighting}"',
        )


def periods(plan: "FederationPlan") -> Iterator[Refusal]:
    """A period longer than the run would mean never; that is written 0."""
    if plan.round.reconnect_s >= plan.round.deadline_s:
        yield Refusal(
            "round.reconnect_s",
            f"{plan.round.reconnect_s} must be less than round.deadline_s = "
            f"{plan.round.deadline_s}",
        )
    if plan.training is None:
        return
    yield from _within("round.evaluate_every", plan.round.evaluate_every, plan.training)
    yield from _within("model.save_every", plan.model.save_every, plan.training)


def comparison(plan: "FederationPlan") -> Iterator[Refusal]:
    """Each site's own figures are told at an evaluation, and leave it as they are."""
    if not plan.round.compare_alone:
        return
    if plan.round.evaluate_every == 0:
        yield Refusal("round.compare_alone", "needs an evaluation: round.evaluate_every = 0")
    for key in ("privacy", "secure_aggregation"):
        if getattr(plan, key) is not None:
            yield Refusal(
                "round.compare_alone", f"tells figures of single sites, which [{key}] withholds"
            )


def _within(key: str, period: int, training: Training) -> Iterator[Refusal]:
    if period > training.rounds:
        yield Refusal(
            key,
            f"{period} is more than training.rounds = {training.rounds}; "
            f"allowed: 0..{training.rounds}",
        )


RULES: tuple[Callable[["FederationPlan"], Iterator[Refusal]], ...] = (
    app_or_task,
    enough_nodes,
    own_keys,
    local_work,
    weights,
    periods,
    privacy_of_what,
    own_privacy_keys,
    fixed_denominator,
    amplification,
    adaptive_clip,
    honest_shares,
    one_number_of_corrupt,
    visibility.visible,
    visibility.sound_groups,
    noised_figures,
    secure_aggregation.enough_for_a_sum,
    secure_aggregation.long_enough_words,
    secure_aggregation.sound_metrics,
    secure_aggregation.said_once,
    secure_aggregation.with_privacy,
    robust_rules,
    data_and_task,
    comparison,
)
