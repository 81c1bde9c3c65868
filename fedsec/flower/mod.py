"""The node's half of the defences, put around a ClientApp from outside.

Flower looks an app's handlers up before it runs the app's own mods, and an app may leave mods out.
So this is no entry of the app's list: the worker calls it and hands it the app.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from flwr.app import Context, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable, Mod

from fedsec.errors import PolicyRefusal
from fedsec.flower.messages import read_heading
from fedsec.plan import FederationPlan

Allow: TypeAlias = Callable[[FederationPlan], None]
"""The site's policy: returns where it takes part in the plan, else raises PolicyRefusal."""

Asked: TypeAlias = defaultdict[tuple[str, int], set[str]]
"""Ids of the messages seen, by kind and round."""

KINDS: Mapping[str, str] = MappingProxyType(
    {MessageType.TRAIN: "train", MessageType.EVALUATE: "evaluate"}
)


def guard(plan: FederationPlan, allow: Allow) -> Mod:
    """Returns the mod of one run; it keeps count, so make one per run and process.

    It lets through only what the plan announced: messages of this run; for the built-in app train
    and evaluate of a round of this very plan, each at most as often as the plan may try it.

    Args:
        plan: What this node agreed to.
        allow: Asked again for every message, since a site's policy may change during a run.
    """
    asked: Asked = defaultdict(set)

    def defence_mod(message: Message, context: Context, app: ClientAppCallable) -> Message:
        """Returns the app's reply.

        Raises:
            PolicyRefusal: The message is not what the plan announced; the app did not see it.
            ProtocolError: The message is malformed.
        """
        allow(plan)
        if message.metadata.run_id != context.run_id:
            raise PolicyRefusal(
                f"a message of run {message.metadata.run_id}, this is run {context.run_id}"
            )
        if plan.built_in:
            _check(plan, message, asked)
        return app(message, context)

    return defence_mod


def _check(plan: FederationPlan, message: Message, asked: Asked) -> None:
    _, training = plan.learning
    kind = KINDS.get(message.metadata.message_type)
    if kind is None:
        raise PolicyRefusal(
            f"a message of type {message.metadata.message_type[:40]!r}; the plan announces "
            f"{', '.join(KINDS.values())}"
        )
    number, digest = read_heading(message.content)
    if digest != plan.digest:
        raise PolicyRefusal(
            f"the message belongs to plan {digest[:16]!r}, this node agreed to {plan.digest[:16]!r}"
        )
    if number > training.rounds:
        raise PolicyRefusal(f"round {number}; the plan has {training.rounds} (training.rounds)")
    asked[kind, number].add(message.metadata.message_id)  # one delivered again counts once
    if len(asked[kind, number]) > plan.round.attempts:
        raise PolicyRefusal(
            f"{kind} of round {number} was asked for more often than the plan's "
            f"{plan.round.attempts} attempts (round.attempts)"
        )
