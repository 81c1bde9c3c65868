"""`[secure_aggregation]`: the coordinator learns the sum of the updates, and no update.

    [secure_aggregation]
    mode = "malicious"           # or "semi-honest": a coordinator that keeps to the protocol
    corrupt = 0.1                # share of the nodes that may collude with the coordinator
    dropout = 0.1                # share of the nodes that may leave while a round goes on
    clip = 1.0                   # largest L2 norm of an update; with [privacy], that says it
    max_nodes = 100              # no round has more; words are long enough for so many
    word_bits = 32               # or 16: half the bytes, a coarser grid
    metrics = { train-loss = [0.0, 10.0] }   # means that are told, each value kept to its range
    group_size = 5               # with visibility = "groups": a sum for each group of so many

How the parameters follow from the shares: docs/spec/secagg-graph.md.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from fedsec.errors import ConfigError
from fedsec.plan import visibility
from fedsec.plan.figures import sound_ranges
from fedsec.plan.privacy import DEFAULT_BITS, population
from fedsec.plan.refusal import Refusal
from fedsec.plan.sections import Frozen, Ranges, Section
from fedsec.plan.visibility import group_size, most_in_a_sum
from fedsec.secagg.groups import LEAST_SIZE, group_sizes
from fedsec.secagg.parameters import Assumptions, Mode, choose

if TYPE_CHECKING:
    from fedsec.plan.federation import FederationPlan

MIN_STEPS = 100
"""Grid steps from 0 to the clip; with fewer, rounding drowns what was learned."""

AGAINST = {
    "semi-honest": "it is trusted to keep to the protocol",
    "malicious": "nodes check it against the roster that the federation's root signed",
}
_DENOMINATOR = 10_000  # a share of 0.29 means 29/100, whatever floating point makes of it


Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class SecureAggregation(Section):
    """How the updates of a round are added up so that only their sum is seen.

    Args:
        mode: Against a coordinator that keeps to the protocol, or against any.
        corrupt: Share of the nodes that may collude with it.
        dropout: Share of the nodes that may leave while a round goes on.
        clip: Largest L2 norm of a node's update, before it is weighted; read by `update_clip`.
            Left out where [privacy] says it; with local privacy, of the update with its noise.
        max_nodes: No round has more nodes; of more that are ready, so many are drawn.
        group_size: With ``visibility = "groups"``: nodes of the smallest group; 5 if left out.
        corrupt_per_group: With groups: how many nodes of each may collude with the coordinator;
            `corrupt` of the smallest group, rounded up, if left out. A sum withstands one always;
            with 0, distributed privacy counts on the noise of all.
        word_bits: Of the integers that are added; 4 or 2 bytes for each entry of an update. Read
            by `word_bits`: left out where privacy.bits says it, else 32.
        max_weight: For a Flower app: largest weight that a node may claim; none weighs if left out.
        metrics: Whose weighted means are told, by name; a node keeps each value to its range.
            All other figures of a node stay there, the number of its examples, too.
    """

    mode: Literal["semi-honest", "malicious"]
    corrupt: Share = 0.1
    dropout: Share = 0.1
    clip: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    max_nodes: Annotated[int, Field(ge=4, le=65_535)] = 100
    group_size: Annotated[int, Field(ge=LEAST_SIZE, le=50_000)] | None = None
    corrupt_per_group: Annotated[int, Field(ge=0, le=50_000)] | None = None
    word_bits: Literal[16, 32] | None = None
    max_weight: Annotated[int, Field(ge=1, le=2**31)] | None = None
    metrics: Ranges = Frozen()

    def assumptions(self, draws: int) -> Assumptions:
        """Returns what a round must withstand.

        Args:
            draws: How often the graph may be drawn for one sum: the plan's attempts per round.
        """
        return Assumptions(Mode(self.mode), _exact(self.corrupt), _exact(self.dropout), draws=draws)


def update_clip(plan: "FederationPlan") -> float:
    """Returns the largest L2 norm of a node's update under a plan with secure aggregation."""
    section = plan.secure_aggregation
    if section is not None and section.clip is not None:
        return section.clip
    if plan.privacy is None:
        raise ConfigError("the plan has no secure_aggregation.clip")
    return plan.privacy.clip


def word_bits(plan: "FederationPlan") -> int:
    """Returns the bits of the words that are added, 16 or 32."""
    section, coded = plan.secure_aggregation, coded_bits(plan)
    if coded is not None:
        return 16 if coded <= 16 else 32  # noqa: PLR2004 - words have 2 or 4 bytes
    return 32 if section is None or section.word_bits is None else section.word_bits


def coded_bits(plan: "FederationPlan") -> int | None:
    """Returns the bits of distributed privacy's integers; None where the grid is a plain one."""
    privacy = plan.privacy
    if privacy is None or privacy.model != "distributed":
        return None
    return DEFAULT_BITS if privacy.bits is None else privacy.bits


def grid_steps(plan: "FederationPlan") -> int:
    """Returns the steps from 0 to the clip: as many as words hold sums of the most updates."""
    return ((1 << (word_bits(plan) - 1)) - 1) // most_in_a_sum(plan) - 1


def max_weight(plan: "FederationPlan") -> int | None:
    """Returns the largest weight of a node in the mean; None where all weigh alike."""
    if plan.training is not None:
        return plan.training.max_examples
    return plan.secure_aggregation.max_weight if plan.secure_aggregation else None


# --- what is refused -----------------------------------------------------------------------------


def enough_for_a_sum(plan: "FederationPlan") -> Iterator[Refusal]:
    """A round in which no sum may be opened, or that may be opened too early, is no round."""
    section = plan.secure_aggregation
    if section is None:
        return
    if plan.built_in and plan.nodes.quorum > section.max_nodes:
        yield Refusal(
            "secure_aggregation.max_nodes",
            f"{section.max_nodes} is less than nodes.quorum = {plan.nodes.quorum}",
        )
        return
    if group_size(plan) is not None:  # see `fedsec.plan.visibility.sound_groups`
        return
    smallest = plan.smallest_cohort
    for nodes in sorted({smallest, section.max_nodes}):
        try:
            needed = choose(nodes, section.assumptions(plan.round.attempts)).least
        except ConfigError as error:
            of = "the smallest round" if nodes == smallest else "secure_aggregation.max_nodes"
            yield Refusal("secure_aggregation", f"{error} (the number of nodes is that of {of})")
            return
        if nodes == smallest and plan.built_in and plan.nodes.quorum < needed:
            yield Refusal(
                "nodes.quorum",
                f"{plan.nodes.quorum} is less than the {needed} of {nodes} nodes without whom no "
                f"sum is opened; allowed: {needed}..{nodes}",
            )


def long_enough_words(plan: "FederationPlan") -> Iterator[Refusal]:
    """Sums never overflow; what is left of a word must still say something."""
    section = plan.secure_aggregation
    if section is None:
        return
    bits, steps, most = word_bits(plan), grid_steps(plan), most_in_a_sum(plan)
    if coded_bits(plan) is None and steps < MIN_STEPS:
        yield Refusal(
            "secure_aggregation.word_bits",
            f"{bits} bits leave {max(steps, 0)} steps from 0 to the clip for sums of {most} "
            f"updates, {MIN_STEPS} are needed; use 32 bits, or at most "
            f"{((1 << (bits - 1)) - 1) // (MIN_STEPS + 1)} nodes in a sum",
        )
    weight = max_weight(plan)
    if weight is not None and weight * most >= 1 << bits:
        yield Refusal(
            "training.max_examples" if plan.built_in else "secure_aggregation.max_weight",
            f"{weight} times the {most} nodes of a sum does not fit into a word of {bits} bits; "
            f"allowed: 1..{((1 << bits) - 1) // most}",
        )


def sound_metrics(plan: "FederationPlan") -> Iterator[Refusal]:
    """A range is one, and there are no more than a few."""
    if plan.secure_aggregation is not None:
        yield from sound_ranges("secure_aggregation.metrics", plan.secure_aggregation.metrics)


def said_once(plan: "FederationPlan") -> Iterator[Refusal]:
    """The largest weight, the clip and the word are said in one place."""
    section, privacy = plan.secure_aggregation, plan.privacy
    if section is None:
        return
    if section.max_weight is not None and plan.built_in:
        yield Refusal(
            "secure_aggregation.max_weight",
            f"{section.max_weight} is read for a Flower app only; the built-in app weighs by "
            "training.weighting and training.max_examples",
        )
    clips_updates = privacy is not None and privacy.model in {"central", "distributed"}
    if privacy is not None and clips_updates and section.clip is not None:
        yield Refusal(
            "secure_aggregation.clip",
            f"{section.clip:g} stands beside privacy.clip = {privacy.clip:g}; leave it out",
        )
    if section.clip is None and not clips_updates:
        noised = privacy is not None and privacy.model == "local"
        yield Refusal(
            "secure_aggregation.clip",
            "missing: the largest L2 norm of a node's update, a number > 0"
            + ("; with its noise: about sqrt(d) * 2 * noise_multiplier * clip" if noised else ""),
        )
    if coded_bits(plan) is not None and section.word_bits is not None:
        yield Refusal(
            "secure_aggregation.word_bits",
            f"{section.word_bits} stands beside privacy.bits = {coded_bits(plan)}; leave it out",
        )


def with_privacy(plan: "FederationPlan") -> Iterator[Refusal]:
    """What privacy claims must hold for the one sum that is seen."""
    section, privacy = plan.secure_aggregation, plan.privacy
    if privacy is None:
        return
    if section is None:
        if privacy.model == "distributed":
            yield Refusal(
                "privacy.model",
                '"distributed": each update carries a share of the noise only, so it must not be '
                "seen by itself; add a table [secure_aggregation]",
            )
        return
    if section.metrics:
        instead = ", or write privacy.metrics" if privacy.model == "distributed" else ""
        yield Refusal(
            "secure_aggregation.metrics",
            f"{', '.join(section.metrics)}: told without noise, which [privacy] does not allow; "
            "leave it out" + instead,
        )
    if privacy.sampling is not None:
        yield Refusal(
            "privacy.sampling",
            f"{privacy.sampling}: nodes of a secure sum know who takes part in a round, so a "
            "secret draw claims too much; leave it out",
        )
    if privacy.clip_quantile is not None:
        yield Refusal(
            "privacy.clip_quantile",
            f"{privacy.clip_quantile}: the clip cannot adapt, since a secure sum does not count "
            "short updates; leave it out",
        )
    if privacy.model in {"central", "distributed"} and population(plan) > section.max_nodes:
        yield Refusal(
            "secure_aggregation.max_nodes",
            f"{section.max_nodes} is less than the {population(plan)} nodes of privacy.population, "
            "all of which may be in a round",
        )


# --- for people ----------------------------------------------------------------------------------


def sentences(plan: "FederationPlan") -> Iterator[tuple[str, str]]:
    """Returns rows of subject and sentence for a plan's summary."""
    section = plan.secure_aggregation
    if section is None:
        return
    size = group_size(plan)
    what = "the sum of the updates" if size is None else "sums of the updates of groups"
    yield "secure sum", f"the coordinator sees {what}, not one; {AGAINST[section.mode]}"
    if size is None:
        colluding = f"at most {section.corrupt:.4g} of the nodes collude with it"
        yield "", f"holds while {colluding} and at most {section.dropout:.4g} leave during a round"
    yield from visibility.sentences(plan)
    sizes = {plan.smallest_cohort, section.max_nodes}
    if size is not None:
        sizes = {*group_sizes(plan.smallest_cohort, size)}
    yield "", "; ".join(_sum_of(plan, nodes) for nodes in sorted(sizes))
    grid = f", {grid_steps(plan)} steps from 0 to there" if coded_bits(plan) is None else ""
    words = f"words of {word_bits(plan)} bits"
    yield "encoding", f"updates of L2 norm at most {update_clip(plan):g}{grid}, {words}"
    means = [f"{name} in {low:g}..{high:g}" for name, (low, high) in section.metrics.items()]
    told = f"told as means: {', '.join(means)}; no others" if means else "withheld, all of them"
    yield "figures", f"of nodes: {told}"


def _sum_of(plan: "FederationPlan", nodes: int) -> str:
    found = visibility.parameters(plan, nodes)
    return (
        f"of {nodes} nodes {found.least} must stay, each has {found.neighbours} neighbours, "
        f"{found.threshold} shares open a secret"
    )


def _exact(share: float) -> Fraction:
    return Fraction(share).limit_denominator(_DENOMINATOR)
