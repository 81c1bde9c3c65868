"""What this site answers to a plan: nothing when it agrees, a refusal with the reason when not.

The reason travels to the coordinator and is shown there, so it says what was asked and what is
missing, and nothing else about the site.
"""

from fedsec.errors import PolicyRefusal
from fedsec.plan import FederationPlan
from fedsec_client.settings import NodeSettings


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
    if plan.nodes.quorum < policy.min_nodes:
        raise PolicyRefusal(
            f"nodes.quorum = {plan.nodes.quorum} is less than this node's "
            f"policy.min_nodes = {policy.min_nodes}"
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
