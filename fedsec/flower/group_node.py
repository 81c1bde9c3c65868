"""The node's half of drawing groups, around a run's first round; see `fedsec.secagg.grouping`.

    stage entry: a commitment      in memory
    stage part: a nonce            in memory
    stage groups: the group        in ``context.state``, for the whole run

A group that stands is never drawn again, whatever the coordinator says.
"""

from flwr.app import ConfigRecord, Context, RecordDict

from fedsec.errors import PolicyRefusal
from fedsec.flower.messages import Heading
from fedsec.flower.secure_messages import Stage, grouping_reply, read_grouping_request
from fedsec.flower.secure_session import make_split
from fedsec.plan import FederationPlan
from fedsec.plan.visibility import group_size
from fedsec.secagg import grouping
from fedsec.secagg.grouping import Placed
from fedsec.secagg.node import Node

GROUP = "fedsec.secagg.group"
_DRAW, _NUMBER, _SEED, _KEY = "draw", "number", "seed", "key."


class GroupNode:
    """Takes part in the draw of a run's groups, and knows the node's own.

    Args:
        plan: With secure aggregation.
    """

    def __init__(self, plan: FederationPlan) -> None:
        self._plan = plan
        self._state: grouping.NodeState | None = None

    def __call__(
        self, me: Node, stage: Stage, heading: Heading, content: RecordDict, context: Context
    ) -> RecordDict:
        """Returns the node's answer at one stage of the draw.

        Raises:
            PolicyRefusal: There is nothing to draw, or not now.
            ProtocolError: The coordinator lies, or the message is malformed.
        """
        if group_size(self._plan) is None:
            raise PolicyRefusal(f"stage {stage}: the plan has no groups")
        if placed(context) is not None:
            raise PolicyRefusal(f"stage {stage}: this node's group stands, for the whole run")
        asked = read_grouping_request(stage, content)
        if asked is None:
            _take_draw(context, heading)
            split = make_split(self._plan, context.run_id, heading)
            self._state, entry = grouping.enter(me, split)
            return grouping_reply(stage, entry.to_bytes())
        if self._state is None:
            raise PolicyRefusal(f"stage {stage}: this node is in no draw of groups")
        self._state, answer = grouping.step(me, self._state, asked)
        if isinstance(self._state, Placed):
            _keep(context, self._state)
        return grouping_reply(stage, answer)

    def group(self, context: Context) -> Placed | None:
        """Returns the node's group; None where the plan has none.

        Raises:
            PolicyRefusal: The plan has groups, and this node is in none.
        """
        if group_size(self._plan) is None:
            return None
        found = placed(context)
        if found is None:
            raise PolicyRefusal(
                "this node is in no group: it was not there when they were drawn, in round 1"
            )
        return found


def placed(context: Context) -> Placed | None:
    """Returns the group that this node keeps in mind; None before it has one."""
    kept = context.state.config_records.get(GROUP)
    if kept is None:
        return None
    number, seed = kept.get(_NUMBER), kept.get(_SEED)
    members = {
        int(name.removeprefix(_KEY)): key
        for name, key in kept.items()
        if name.startswith(_KEY) and isinstance(key, bytes)
    }
    if not isinstance(number, int) or not isinstance(seed, bytes):
        return None  # a draw began, and came to nothing
    return Placed(number, members, seed)


def _keep(context: Context, found: Placed) -> None:
    keys = {f"{_KEY}{node}": key for node, key in found.members.items()}
    context.state[GROUP] = ConfigRecord({_NUMBER: found.group, _SEED: found.seed, **keys})


def _take_draw(context: Context, heading: Heading) -> None:
    """Writes down that a draw begins.

    Raises:
        PolicyRefusal: It is not one of the first round's, or it or a later one began before.
    """
    if heading.round != 1:
        raise PolicyRefusal(f"groups are drawn in round 1, this is round {heading.round}")
    last = context.state.config_records.get(GROUP, ConfigRecord()).get(_DRAW, 0)
    if isinstance(last, int) and heading.attempt <= last:
        raise PolicyRefusal(f"draw {heading.attempt} of the groups comes after draw {last}")
    context.state[GROUP] = ConfigRecord({_DRAW: heading.attempt})
