"""The table `[privacy]` of a plan: which differential privacy, how much noise, what it may cost."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from fedsec.plan.refusal import Refusal
from fedsec.plan.sections import Ranges, Section
from fedsec.plan.visibility import corrupt_per_group, group_size

if TYPE_CHECKING:
    from fedsec.plan.federation import FederationPlan

Model: TypeAlias = Literal["central", "local", "distributed", "example"]

MIN_HONEST = 3
"""Fewest noise shares that a sum rests on: with two, each of the two knows half of the noise."""

_GROUP_SIZE = "secure_aggregation.group_size"

Positive: TypeAlias = Annotated[float, Field(gt=0, le=1e6)]
Nodes: TypeAlias = Annotated[int, Field(ge=1, le=100_000)]
Missing: TypeAlias = Annotated[int, Field(ge=0, le=100_000)]


class Privacy(Section):
    """How records are protected. A key that the model does not read is ``None``.

    Args:
        model: ``"central"``: the coordinator adds noise to the aggregate. ``"local"``: each node
            adds noise to its update. ``"distributed"``: each node adds a share of the noise to
            integers that are summed. ``"example"``: each node trains with DP-SGD.
        epsilon: The most that the whole plan may cost, at `delta`; it is refused if it costs more.
        delta: Of the guarantee.
        noise_multiplier: Standard deviation of the noise over the sensitivity of what is released.
        clip: Largest L2 norm of a node's update, or of an example's gradient with ``"example"``;
            where it starts if it adapts.
        population: How many nodes can take part, fixed and public: what sums are divided by.
            ``nodes.min_available`` if left out.
        sampling: Of ``"central"``: the probability with which each node is drawn for a round, in
            secret. Left out: all take part and no amplification is claimed.
        clip_quantile: Of ``"central"``: the clip adapts until this share of updates is shorter.
        clip_learning_rate: Of the adaptation, per round.
        clip_noise: Of the adaptation: standard deviation of the noise on the number of nodes
            whose update was shorter than the clip.
        bits: Of ``"distributed"``: of each word.
        dropouts: Of ``"distributed"``: how many of the population, or of a group where there are
            groups, may be missing from a sum.
        corrupt: Of ``"distributed"``: how many may leave their noise out, or tell it others; as
            many as secure_aggregation.corrupt makes of the population if left out. Where there are
            groups, secure_aggregation.corrupt_per_group says it.
        metrics: Not of ``"example"``: whose noised means are told, by name, each with the range
            that it is kept to: ``train-loss``, ``num-examples``, and what the task measures, on
            each node's test records, of the model that a round begins with. All others are
            withheld.
        metrics_noise: Standard deviation of the noise on these over what one node changes, which
            comes out of `noise_multiplier`; 3 times that if left out.
    """

    model: Model
    epsilon: Annotated[float, Field(gt=0, le=50)]
    delta: Annotated[float, Field(ge=1e-15, lt=1)]
    noise_multiplier: Annotated[float, Field(ge=0.05, le=1000)]
    clip: Positive
    population: Nodes | None = None
    sampling: Annotated[float, Field(gt=0, lt=1)] | None = None
    clip_quantile: Annotated[float, Field(gt=0, lt=1)] | None = None
    clip_learning_rate: Annotated[float, Field(gt=0, le=2)] | None = None
    clip_noise: Positive | None = None
    bits: Annotated[int, Field(ge=8, le=32)] | None = None
    dropouts: Missing | None = None
    corrupt: Missing | None = None
    metrics: Ranges | None = None
    metrics_noise: Annotated[float, Field(ge=0.05, le=1e6)] | None = None


DEFAULT_BITS = 16
CLIP_LEARNING_RATE = 0.2
CLIP_NOISE_SHARE = 0.05
"""Default of `clip_noise`, as a share of the nodes expected in a round (Andrew et al.)."""

OWN_KEYS: dict[str, Model] = {
    "sampling": "central",
    "clip_quantile": "central",
    "clip_learning_rate": "central",
    "clip_noise": "central",
    "bits": "distributed",
    "dropouts": "distributed",
    "corrupt": "distributed",
}
"""Keys that only one model reads."""


def population(plan: "FederationPlan") -> int:
    """Returns how many nodes can take part: the public number that sums are divided by."""
    given = plan.privacy.population if plan.privacy is not None else None
    return plan.nodes.min_available if given is None else given


def expected(plan: "FederationPlan") -> float:
    """Returns how many nodes take part in a round on average: the denominator of the mean."""
    rate = plan.privacy.sampling if plan.privacy is not None else None
    return population(plan) * (1.0 if rate is None else rate)


def clip_noise(plan: "FederationPlan") -> float:
    """Returns the standard deviation of the noise on the number of short updates."""
    given = plan.privacy.clip_noise if plan.privacy is not None else None
    return CLIP_NOISE_SHARE * expected(plan) if given is None else given


def corrupt(plan: "FederationPlan") -> int:
    """Returns how many nodes of a sum may leave their noise out, or tell it others."""
    if group_size(plan) is not None:
        return corrupt_per_group(plan)
    if plan.privacy is not None and plan.privacy.corrupt is not None:
        return plan.privacy.corrupt
    return _colluding(plan)


def honest(plan: "FederationPlan") -> int:
    """Returns how many noise shares every sum of a distributed plan holds at least."""
    size, privacy = group_size(plan), plan.privacy
    if privacy is None or privacy.model != "distributed":
        return population(plan)
    lost = privacy.dropouts or 0
    return (population(plan) if size is None else size) - lost - corrupt(plan)


def _colluding(plan: "FederationPlan") -> int:
    """Returns how many of the population may collude by what secure aggregation is told."""
    section = plan.secure_aggregation
    return 0 if section is None else section.assumptions(1).corrupt_of(population(plan))


def privacy_of_what(plan: "FederationPlan") -> Iterator[Refusal]:
    """Only the built-in app is known to release nothing but what is accounted for."""
    if plan.privacy is not None and not plan.built_in:
        yield Refusal(
            "privacy",
            f"must be left out: what the app {plan.app.name!r} releases is not known, so no "
            'guarantee can be given; nearest sound: app.name = "fedsec"',
        )


def own_privacy_keys(plan: "FederationPlan") -> Iterator[Refusal]:
    """A key that the model does not read would be ignored in silence."""
    privacy = plan.privacy
    if privacy is None:
        return
    for key, model in OWN_KEYS.items():
        value = getattr(privacy, key)
        if value is not None and model != privacy.model:
            yield Refusal(
                f"privacy.{key}",
                f'{value} is read by model = "{model}" only, this plan has "{privacy.model}"',
            )
    if privacy.clip_quantile is None:
        for key in ("clip_learning_rate", "clip_noise"):
            if getattr(privacy, key) is not None:
                yield Refusal(
                    f"privacy.{key}",
                    f"{getattr(privacy, key)} is read together with privacy.clip_quantile only, "
                    "which makes the clip adapt",
                )


def fixed_denominator(plan: "FederationPlan") -> Iterator[Refusal]:
    """Node-level guarantees rest on a public number of nodes that count alike."""
    privacy, training = plan.privacy, plan.training
    if privacy is None or training is None:
        return
    if training.weighting != "uniform":
        why = "a node claims its own weight, so the noise would not cover what it adds"
        if privacy.model == "example":
            why = "how many examples a node has is withheld"
        yield Refusal(
            "training.weighting",
            f'"{training.weighting}": {why}; with [privacy] only "uniform" is sound',
        )
    if privacy.model == "example":
        return
    many = population(plan)
    if privacy.delta * many > 1:
        yield Refusal(
            "privacy.delta",
            f"{privacy.delta:g} would allow one of {many} nodes to be published as it is; "
            f"allowed: at most 1/{many}, better far less",
        )
    if privacy.model == "local":
        return
    if plan.nodes.fraction != 1:
        yield Refusal(
            "nodes.fraction",
            f"{plan.nodes.fraction}: a share that is drawn openly saves nothing; leave it out, or "
            'draw in secret with privacy.sampling (model = "central")',
        )
    if many < plan.nodes.min_available:
        yield Refusal(
            "privacy.population",
            f"{many} is less than nodes.min_available = {plan.nodes.min_available}",
        )


def drawn_in_secret(plan: "FederationPlan") -> bool:
    """Returns whether nobody but the coordinator may learn who takes part in a round."""
    return plan.privacy is not None and plan.privacy.sampling is not None


def answers_needed(plan: "FederationPlan") -> int:
    """Returns how many answers make a round: none where who was drawn is a secret."""
    return 0 if drawn_in_secret(plan) else plan.nodes.quorum


def amplification(plan: "FederationPlan") -> Iterator[Refusal]:
    """A secret cohort must stay secret: no release may depend on who was in it."""
    privacy = plan.privacy
    if privacy is None or privacy.sampling is None:
        return
    if "quorum" in plan.nodes.model_fields_set:
        yield Refusal(
            "nodes.quorum",
            f"{plan.nodes.quorum}: with privacy.sampling a round is released whoever was drawn "
            "and answered, else its coming about would tell who was drawn; leave it out",
        )


def adaptive_clip(plan: "FederationPlan") -> Iterator[Refusal]:
    """The count of short updates shares the noise of the round with the mean."""
    privacy, robust = plan.privacy, plan.robust
    if privacy is None or privacy.clip_quantile is None:
        return
    if robust is not None and (robust.rule != "mean" or robust.before):
        yield Refusal(
            "privacy.clip_quantile",
            f"{privacy.clip_quantile}: a clip that adapts goes with the mean only, not with "
            f'robust.rule = "{robust.rule}"; leave it out and choose privacy.clip',
        )
    noise = clip_noise(plan)
    if noise * 2 <= privacy.noise_multiplier:
        yield Refusal(
            "privacy.clip_noise",
            f"{noise:g} must be more than half of privacy.noise_multiplier = "
            f"{privacy.noise_multiplier}: else the count alone costs more than the round may; "
            "raise it, or leave clip_quantile out",
        )


def honest_shares(plan: "FederationPlan") -> Iterator[Refusal]:
    """Noise that comes in shares is enough only if enough of them are there."""
    privacy = plan.privacy
    if privacy is None or privacy.model != "distributed":
        return
    size, many, lost = group_size(plan), population(plan), privacy.dropouts or 0
    least = honest(plan)
    if least < MIN_HONEST:
        key, nodes = ("privacy.population", many) if size is None else (_GROUP_SIZE, size)
        yield Refusal(
            key,
            f"{nodes} nodes less {lost} dropouts less {corrupt(plan)} corrupt leave {least} honest "
            f"noise shares; at least {MIN_HONEST} are needed",
        )
    if size is None and plan.nodes.quorum < many - lost:
        yield Refusal(
            "nodes.quorum",
            f"{plan.nodes.quorum} is less than the {many - lost} that privacy.population = {many} "
            f"and privacy.dropouts = {lost} leave: a sum of fewer has too little noise",
        )


def one_number_of_corrupt(plan: "FederationPlan") -> Iterator[Refusal]:
    """Who colludes in a secure sum tells its noise, too."""
    privacy = plan.privacy
    if privacy is None or privacy.model != "distributed" or plan.secure_aggregation is None:
        return
    given, share = privacy.corrupt, plan.secure_aggregation.corrupt
    if group_size(plan) is not None:
        if given is not None:
            yield Refusal(
                "privacy.corrupt",
                f"{given}: where there are groups, secure_aggregation.corrupt_per_group = "
                f"{corrupt_per_group(plan)} says it; leave it out",
            )
    elif given is not None and given < _colluding(plan):
        yield Refusal(
            "privacy.corrupt",
            f"{given} is less than the {_colluding(plan)} of {population(plan)} nodes that collude "
            f"by secure_aggregation.corrupt = {share:g}, and who colludes tells its noise; leave "
            "it out, or lower that share",
        )
