"""What this site answers to a plan: nothing when it agrees, a refusal with the reason when not.

The reason travels to the coordinator and is shown there, so it says what was asked and what is
missing, and nothing else about the site.
"""

from collections.abc import Mapping
from types import MappingProxyType

from fedsec.errors import PolicyRefusal
from fedsec.plan import FederationPlan
from fedsec.plan.secure_aggregation import update_clip, word_bits
from fedsec.plan.visibility import Visibility, group_size, parameters, visibility
from fedsec.secagg.parameters import Mode
from fedsec_client.settings import NodeSettings, Policy

LESS: tuple[Visibility, ...] = ("each", "groups", "sum")
"""What the coordinator sees, from most to least."""
SEEN: Mapping[Visibility, str] = MappingProxyType(
    {"each": "each update", "groups": "the sum of each group", "sum": "one sum"}
)


def check_plan(plan: FederationPlan, settings: NodeSettings) -> None:
    """Returns when this site takes part in `plan`.

    Raises:
        PolicyRefusal: It does not; the message is the reason, for people at the coordinator.
    """
    policy = settings.policy
    if plan.app.name not in policy.allowed_apps:
        raise PolicyRefusal(f'the app "{plan.app.name}" is not in this node\'s policy.allowed_apps')
    if plan.built_in:
        _check_task(plan, settings)
    _check_privacy(plan, policy.privacy)
    if plan.nodes.quorum < policy.min_nodes:
        raise PolicyRefusal(
            f"nodes.quorum = {plan.nodes.quorum} is less than this node's "
            f"policy.min_nodes = {policy.min_nodes}"
        )
    _check_visibility(plan, policy.visibility)
    _check_secure_aggregation(plan, policy)


def _check_secure_aggregation(plan: FederationPlan, policy: Policy) -> None:
    secure, asked = plan.secure_aggregation, policy.secure_aggregation
    if secure is None:
        if asked != "off":
            raise PolicyRefusal(
                "the plan has no [secure_aggregation]; this node's "
                f'policy.secure_aggregation = "{asked}"'
            )
        return
    if asked != "off" and not Mode(secure.mode).covers(Mode(asked)):
        raise PolicyRefusal(
            f'secure_aggregation.mode = "{secure.mode}" is less than this node\'s '
            f'policy.secure_aggregation = "{asked}"'
        )
    policy.minima.check_attempts(plan.round.attempts)
    bits, clip = word_bits(plan), update_clip(plan)
    if bits < policy.min_word_bits:
        raise PolicyRefusal(
            f"words of {bits} bits are less than this node's "
            f"policy.min_word_bits = {policy.min_word_bits}"
        )
    if policy.max_clip and clip > policy.max_clip:
        raise PolicyRefusal(
            f"updates may have an L2 norm of {clip:g}, more than this node's "
            f"policy.max_clip = {policy.max_clip:g}"
        )
    size, nodes = group_size(plan), plan.smallest_cohort
    try:
        if size is None:
            policy.minima.check(parameters(plan, nodes))
        else:
            policy.minima.check_cohort(nodes)
            policy.minima.check(parameters(plan, size), group=True)
    except PolicyRefusal as refusal:
        raise PolicyRefusal(f"in the smallest round of the plan: {refusal}") from refusal


def _check_visibility(plan: FederationPlan, most: Visibility) -> None:
    """The coordinator sees no more than the site allows."""
    seen = visibility(plan)
    if LESS.index(seen) < LESS.index(most):
        raise PolicyRefusal(
            f'the coordinator sees {SEEN[seen]} (visibility = "{seen}"), more than this '
            f'node\'s policy.visibility = "{most}" allows'
        )


def _check_task(plan: FederationPlan, settings: NodeSettings) -> None:
    task, training = plan.learning
    policy = settings.policy
    if task.name not in policy.allowed_tasks:
        raise PolicyRefusal(f'the task "{task.name}" is not in this node\'s policy.allowed_tasks')
    if task.data not in settings.data:
        raise PolicyRefusal(f'this node has no data set named "{task.data}"')
    if policy.max_rounds and training.rounds > policy.max_rounds:
        raise PolicyRefusal(
            f"training.rounds = {training.rounds} is more than this node's "
            f"policy.max_rounds = {policy.max_rounds}"
        )


def _check_privacy(plan: FederationPlan, least: str) -> None:
    model = plan.privacy.model if plan.privacy is not None else None
    if least != "none" and model is None:
        raise PolicyRefusal(f'the plan has no [privacy]; this node\'s policy.privacy is "{least}"')
    if least == "enforced" and model == "central":
        raise PolicyRefusal(
            "privacy.model = \"central\" is the coordinator's promise; this node's "
            'policy.privacy is "enforced": it needs "local", "distributed" or "example"'
        )
