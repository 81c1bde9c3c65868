"""What the coordinator sees of a round: each update, a sum for each group of nodes, or one sum.

    visibility = "groups"        # "each" without, "sum" with [secure_aggregation], if left out

    [secure_aggregation]
    group_size = 5               # of the smallest group; the largest has one more, where that fits
    corrupt_per_group = 1        # of each group that may collude; `corrupt` of a group if left out

Groups are drawn by the nodes when the run begins and stay as they are: docs/spec/secagg-groups.md.
"""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, TypeAlias

from fedsec.errors import ConfigError
from fedsec.plan.refusal import Refusal
from fedsec.secagg.groups import group_sizes, largest_group, most_crowding
from fedsec.secagg.parameters import LEAST_HONEST, Assumptions, Parameters, choose

if TYPE_CHECKING:
    from fedsec.plan.federation import FederationPlan

Visibility: TypeAlias = Literal["each", "groups", "sum"]

GROUP_SIZE = 5
"""Of the smallest group, if the plan does not say: three honest nodes, a corrupt and a lost one."""


def visibility(plan: "FederationPlan") -> Visibility:
    """Returns what the coordinator sees, whether the plan says it or leaves it out."""
    if plan.visibility is not None:
        return plan.visibility
    return "each" if plan.secure_aggregation is None else "sum"


def group_size(plan: "FederationPlan") -> int | None:
    """Returns how many nodes the smallest group has; None where there are no groups."""
    section = plan.secure_aggregation
    if plan.visibility != "groups" or section is None:
        return None
    return GROUP_SIZE if section.group_size is None else section.group_size


def corrupt_per_group(plan: "FederationPlan") -> int:
    """Returns how many nodes of each group may collude under a plan with groups."""
    section, size = plan.secure_aggregation, group_size(plan)
    if section is None or size is None:
        raise ConfigError("the plan has no groups")
    if section.corrupt_per_group is not None:
        return section.corrupt_per_group
    return section.assumptions(1).corrupt_of(size)


def assumptions(plan: "FederationPlan") -> Assumptions:
    """Returns what each sum of a round must withstand.

    Raises:
        ConfigError: The plan has no secure aggregation.
    """
    section = plan.secure_aggregation
    if section is None:
        raise ConfigError("the plan has no [secure_aggregation]")
    whole = section.assumptions(plan.round.attempts)
    if group_size(plan) is None:
        return whole
    return replace(whole, corrupt=Fraction(0), least_corrupt=max(1, corrupt_per_group(plan)))


def parameters(plan: "FederationPlan", nodes: int) -> Parameters:
    """Returns the parameters of a sum of `nodes` under a plan with secure aggregation.

    Raises:
        ConfigError: The plan has none, or more nodes than a sum may have, or what may go wrong
            cannot be withstood among so many.
    """
    most = most_in_a_sum(plan)
    if nodes > most:
        key = "max_nodes" if group_size(plan) is None else "group_size"
        raise ConfigError(
            f"{nodes} nodes in a sum; by secure_aggregation.{key} it has at most {most}"
        )
    return choose(nodes, assumptions(plan))


def most_nodes(plan: "FederationPlan") -> int:
    """Returns how many nodes a round has at most, under a plan with secure aggregation."""
    section = plan.secure_aggregation
    if section is None:
        raise ConfigError("the plan has no [secure_aggregation]")
    return plan.cohort(section.max_nodes)


def most_in_a_sum(plan: "FederationPlan") -> int:
    """Returns how many nodes a sum has at most: words are long enough for so many."""
    section, size = plan.secure_aggregation, group_size(plan)
    if section is None:
        raise ConfigError("the plan has no [secure_aggregation]")
    if size is None:
        return section.max_nodes
    return largest_group(max(2 * size, plan.smallest_cohort), size)


def fewest_in_a_sum(plan: "FederationPlan") -> int:
    """Returns how many nodes' vectors a sum holds at least; with fewer it is not opened."""
    size, privacy = group_size(plan), plan.privacy
    if size is None:
        if plan.built_in:
            return plan.nodes.quorum
        return parameters(plan, plan.smallest_cohort).least  # a Flower app has no quorum
    least = parameters(plan, size).least
    if privacy is None or privacy.model != "distributed":
        return least
    return max(least, size - (privacy.dropouts or 0))


def fewest_rows(plan: "FederationPlan") -> int:
    """Returns how many rows a round has at least, when the fewest nodes that make it answer.

    Where there are groups, the nodes that are missing are taken to be those of whole groups.
    """
    size, quorum = group_size(plan), plan.nodes.quorum
    if size is None:
        return quorum if plan.secure_aggregation is None else 1
    sizes = group_sizes(plan.smallest_cohort, size)
    return max(1, len(sizes) - (plan.smallest_cohort - quorum) // min(sizes))


def crowded(plan: "FederationPlan") -> float:
    """Returns a bound on the probability that a group has more than `corrupt_per_group`.

    Over the whole run, for which groups are drawn once; round.attempts times at most. It holds for
    however many nodes are there when they are drawn, of which `corrupt` is the share.
    """
    section, size = plan.secure_aggregation, group_size(plan)
    if section is None or size is None:
        return 0.0
    share, most = section.assumptions(1), corrupt_per_group(plan)
    nodes = plan.smallest_cohort, most_nodes(plan)
    return most_crowding(nodes, share.corrupt_of, size, most, plan.round.attempts)


# --- what is refused -----------------------------------------------------------------------------


def visible(plan: "FederationPlan") -> Iterator[Refusal]:
    """What is seen goes with what hides it."""
    section, asked = plan.secure_aggregation, plan.visibility
    if section is None and asked in {"groups", "sum"}:
        yield Refusal(
            "visibility",
            f'"{asked}": without a table [secure_aggregation] the coordinator sees each update; '
            'add the table, or write "each"',
        )
    if section is None:
        return
    if asked == "each":
        yield Refusal(
            "visibility",
            '"each": [secure_aggregation] hides each update; write "groups" or "sum", or leave '
            "the table out",
        )
    for key in ("group_size", "corrupt_per_group"):
        value = getattr(section, key)
        if value is not None and asked != "groups":
            yield Refusal(
                f"secure_aggregation.{key}", f'{value} is read with visibility = "groups" only'
            )


def sound_groups(plan: "FederationPlan") -> Iterator[Refusal]:
    """Groups are two or more, each one a safe sum, and the same in every round."""
    size = group_size(plan)
    if size is None:
        return
    if not plan.built_in:
        yield Refusal(
            "visibility",
            f'"groups": the app {plan.app.name!r} is handed one mean in each round; write "sum"',
        )
        return
    if plan.nodes.fraction != 1:
        yield Refusal(
            "nodes.fraction",
            f"{plan.nodes.fraction}: groups are the same in every round, so all of their nodes "
            "are asked; leave it out",
        )
        return
    if plan.smallest_cohort < 2 * size:
        yield Refusal(
            "nodes.min_available",
            f"{plan.nodes.min_available}: {plan.smallest_cohort} nodes in a round make less than "
            f"two groups of secure_aggregation.group_size = {size}; at least {2 * size} are needed",
        )
        return
    yield from _safe_sums(plan, size)


def _safe_sums(plan: "FederationPlan", size: int) -> Iterator[Refusal]:
    for nodes in sorted({size, most_in_a_sum(plan)}):
        try:
            parameters(plan, nodes)
        except ConfigError:
            corrupt, lost = corrupt_per_group(plan), assumptions(plan).dropouts_of(nodes)
            enough = _smallest_safe(plan)
            yield Refusal(
                "secure_aggregation.group_size",
                f"a group of {nodes} cannot withstand {corrupt} corrupt nodes and {lost} that drop "
                f"out so that {LEAST_HONEST} honest ones are left; {enough}",
            )
            return


def _smallest_safe(plan: "FederationPlan") -> str:
    wanted = assumptions(plan)
    for nodes in range(4, 1000):
        try:
            choose(nodes, wanted)
            choose(nodes + 1, wanted)
        except ConfigError:
            continue
        return f"group_size = {nodes} can, or lower corrupt_per_group or dropout"
    return "lower corrupt_per_group or dropout"


# --- for people ----------------------------------------------------------------------------------


def sentences(plan: "FederationPlan") -> Iterator[tuple[str, str]]:
    """Returns rows of subject and sentence for a plan's summary."""
    size = group_size(plan)
    if size is None:
        return
    nodes = plan.smallest_cohort
    sizes = group_sizes(nodes, size)
    of = f"{min(sizes)}" if len(set(sizes)) == 1 else f"{min(sizes)} or {max(sizes)}"
    drawn = f"{nodes} nodes make {len(sizes)} groups of {of}; they draw them when the run begins"
    yield "groups", f"{drawn}, once; the coordinator sees the sum of each"
    needed = f"a round needs {plan.nodes.quorum} answers, so {fewest_rows(plan)} or more sums"
    yield "", f"{needed}; a group of which fewer than {fewest_in_a_sum(plan)} answer has none"
    corrupt = corrupt_per_group(plan)
    many = f"{corrupt} corrupt node{'s' if corrupt != 1 else ''}" if corrupt else "no corrupt node"
    share = plan.secure_aggregation.corrupt if plan.secure_aggregation is not None else 0.0
    more = f"chance that some group of the run has more, if {share:.4g} of all nodes are corrupt"
    yield "", f"a group bears {many}; {more}: at most {crowded(plan):.2g}"
