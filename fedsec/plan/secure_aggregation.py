"""`[secure_aggregation]`: the coordinator learns the sum of the updates, and no update.

    [secure_aggregation]
    mode = "malicious"           # or "semi-honest": a coordinator that keeps to the protocol
    corrupt = 0.1                # share of the nodes that may collude with the coordinator
    dropout = 0.1                # share of the nodes that may leave while a round goes on
    clip = 1.0                   # largest L2 norm of an update
    max_nodes = 100              # no round has more; words are long enough for so many
    word_bits = 32               # or 16: half the bytes, a coarser grid
    metrics = { train-loss = [0.0, 10.0] }   # means that are told, each value kept to its range

How the parameters follow from the shares: docs/spec/secagg-graph.md.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, PlainSerializer

from fedsec.errors import ConfigError
from fedsec.plan.refusal import Refusal
from fedsec.plan.sections import Frozen, Section
from fedsec.secagg.parameters import Assumptions, Mode, Parameters, choose

if TYPE_CHECKING:
    from fedsec.plan.federation import FederationPlan

MIN_LEVELS = 100
"""Grid steps from 0 to the clip; with fewer, rounding drowns what was learned."""
MOST_METRICS = 16

AGAINST = {
    "semi-honest": "it is trusted to keep to the protocol",
    "malicious": "nodes check it against the roster that the federation's root signed",
}
_DENOMINATOR = 10_000  # a share of 0.29 means 29/100, whatever floating point makes of it


def _ranges(given: Mapping[str, list[float]]) -> Mapping[str, tuple[float, float]]:
    return Frozen({name: (float(low), float(high)) for name, (low, high) in given.items()})


MetricName: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="1..64 letters, digits, '.', '_' or '-', a letter or digit first",
    ),
]
Range: TypeAlias = Annotated[
    list[Annotated[float, Field(ge=-1e6, le=1e6)]],
    Field(min_length=2, max_length=2, description="[low, high], numbers in -1e6..1e6"),
]
Ranges: TypeAlias = Annotated[
    Mapping[MetricName, Range], AfterValidator(_ranges), PlainSerializer(dict)
]
Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class SecureAggregation(Section):
    """How the updates of a round are added up so that only their sum is seen.

    Args:
        mode: Against a coordinator that keeps to the protocol, or against any.
        corrupt: Share of the nodes that may collude with it.
        dropout: Share of the nodes that may leave while a round goes on.
        clip: Largest L2 norm of a node's update, before it is weighted.
        max_nodes: No round has more nodes; of more that are ready, so many are drawn.
        word_bits: Of the integers that are added; 4 or 2 bytes for each entry of an update.
        max_weight: For a Flower app: largest weight that a node may claim; none weighs if left out.
        metrics: Whose weighted means are told, by name; a node keeps each value to its range.
            All other figures of a node stay there, the number of its examples, too.
    """

    mode: Literal["semi-honest", "malicious"]
    corrupt: Share = 0.1
    dropout: Share = 0.1
    clip: Annotated[float, Field(gt=0, le=1_000_000)]
    max_nodes: Annotated[int, Field(ge=4, le=100_000)] = 100
    word_bits: Literal[16, 32] = 32
    max_weight: Annotated[int, Field(ge=1, le=2**31)] | None = None
    metrics: Ranges = Frozen()

    @property
    def levels(self) -> int:
        """Grid steps from 0 to `clip`: as many as words can hold sums of `max_nodes` updates."""
        return ((1 << (self.word_bits - 1)) - 1) // self.max_nodes - 1

    def assumptions(self, draws: int) -> Assumptions:
        """Returns what a round must withstand.

        Args:
            draws: How often the graph may be drawn for one sum: the plan's attempts per round.
        """
        return Assumptions(Mode(self.mode), _exact(self.corrupt), _exact(self.dropout), draws=draws)


def parameters(plan: "FederationPlan", nodes: int) -> Parameters:
    """Returns the parameters of a round of `nodes` under a plan with secure aggregation.

    Raises:
        ConfigError: The plan has none, or more nodes than `max_nodes`, or its shares cannot be
            withstood among so many.
    """
    section = plan.secure_aggregation
    if section is None:
        raise ConfigError("the plan has no [secure_aggregation]")
    if nodes > section.max_nodes:
        raise ConfigError(
            f"{nodes} nodes in a round; the plan has secure_aggregation.max_nodes = "
            f"{section.max_nodes}"
        )
    return choose(nodes, section.assumptions(plan.round.attempts))


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
    if section.levels < MIN_LEVELS:
        yield Refusal(
            "secure_aggregation.word_bits",
            f"{section.word_bits} bits leave {max(section.levels, 0)} steps from 0 to the clip for "
            f"sums of max_nodes = {section.max_nodes} updates, {MIN_LEVELS} are needed; use 32 "
            f"bits, or at most {_most_nodes(section.word_bits)} nodes",
        )
    weight = max_weight(plan)
    if weight is not None and weight * section.max_nodes >= 1 << section.word_bits:
        most = ((1 << section.word_bits) - 1) // section.max_nodes
        yield Refusal(
            "training.max_examples" if plan.built_in else "secure_aggregation.max_weight",
            f"{weight} times secure_aggregation.max_nodes = {section.max_nodes} does not fit into "
            f"a word of {section.word_bits} bits; allowed: 1..{most}",
        )


def sound_metrics(plan: "FederationPlan") -> Iterator[Refusal]:
    """A range is one, and there are no more than a few."""
    section = plan.secure_aggregation
    if section is None:
        return
    if len(section.metrics) > MOST_METRICS:
        yield Refusal(
            "secure_aggregation.metrics",
            f"{len(section.metrics)} metrics; allowed: 0..{MOST_METRICS}",
        )
    for name, (low, high) in section.metrics.items():
        if low >= high:
            yield Refusal(
                f"secure_aggregation.metrics.{name}",
                f"[{low:g}, {high:g}] is no range; the first must be less than the second",
            )


def one_weight(plan: "FederationPlan") -> Iterator[Refusal]:
    """The largest weight is said once."""
    section = plan.secure_aggregation
    if section is not None and section.max_weight is not None and plan.built_in:
        yield Refusal(
            "secure_aggregation.max_weight",
            f"{section.max_weight} is read for a Flower app only; the built-in app weighs by "
            "training.weighting and training.max_examples",
        )


# --- for people ----------------------------------------------------------------------------------


def sentences(plan: "FederationPlan") -> Iterator[tuple[str, str]]:
    """Returns rows of subject and sentence for a plan's summary."""
    section = plan.secure_aggregation
    if section is None:
        return
    trust = AGAINST[section.mode]
    yield "secure sum", f"the coordinator sees the sum of the updates, not one; {trust}"
    colluding = f"at most {section.corrupt:.4g} of the nodes collude with it"
    yield "", f"holds while {colluding} and at most {section.dropout:.4g} leave during a round"
    sizes = sorted({plan.smallest_cohort, section.max_nodes})
    yield "", "; ".join(_round_of(plan, nodes) for nodes in sizes)
    grid = f"{section.levels} steps from 0 to there, words of {section.word_bits} bits"
    yield "encoding", f"updates of L2 norm at most {section.clip:g}, {grid}"
    means = [f"{name} in {low:g}..{high:g}" for name, (low, high) in section.metrics.items()]
    told = f"told as means: {', '.join(means)}; no others" if means else "withheld, all of them"
    yield "nodes' figures", told


def _round_of(plan: "FederationPlan", nodes: int) -> str:
    found = parameters(plan, nodes)
    return (
        f"of {nodes} nodes {found.least} must stay, each has {found.neighbours} neighbours, "
        f"{found.threshold} shares open a secret"
    )


def _exact(share: float) -> Fraction:
    return Fraction(share).limit_denominator(_DENOMINATOR)


def _most_nodes(word_bits: int) -> int:
    return ((1 << (word_bits - 1)) - 1) // (MIN_LEVELS + 1)
