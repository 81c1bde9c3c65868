"""The node's half of the defences, put around a ClientApp from outside.

Flower looks an app's handlers up before it runs the app's own mods, and an app may leave mods out.
So this is no entry of the app's list: the worker calls it and hands it the app.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

from flwr.app import Context, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable, Mod

from fedsec.errors import ConfigError, PolicyRefusal
from fedsec.flower.messages import read_heading
from fedsec.flower.node_privacy import NodePrivacy
from fedsec.flower.secure_messages import read_stage
from fedsec.flower.secure_node import Identity, Keep, kept_by_runtime, secure_node
from fedsec.plan import FederationPlan

Allow: TypeAlias = Callable[[FederationPlan], None]
"""The site's policy: returns where it takes part in the plan, else raises PolicyRefusal."""

Asked: TypeAlias = dict[tuple[str, int, int], str]
"""Id of the message seen, by kind, round and attempt."""

KINDS: Mapping[str, str] = MappingProxyType(
    {MessageType.TRAIN: "train", MessageType.EVALUATE: "evaluate"}
)


def guard(
    plan: FederationPlan,
    allow: Allow,
    identity: Identity | None = None,
    private: NodePrivacy | None = None,
    *,
    keep: Keep = kept_by_runtime,
) -> Mod:
    """Returns the mod of one run; it keeps count, so make one per run and process.

    It lets through only what the plan announced: messages of this run; for the built-in app train
    and evaluate of a round of this very plan, once for each attempt that the plan allows. Where the
    plan demands secure aggregation, an update leaves masked or not at all.

    Args:
        plan: What this node agreed to.
        allow: Asked again for every message, since a site's policy may change during a run.
        identity: Who this node is in secure sums.
        private: The node's half of the plan's privacy.
        keep: Has ``context.state`` outlive the process; called when a turn of a secure sum is
            taken. What else was asked for is known to this process alone.

    Raises:
        ConfigError: The plan has [secure_aggregation] or [privacy]; this node has no part in it.
    """
    if plan.privacy is not None and private is None:
        raise ConfigError("the plan has [privacy]; give the guard this node's half of it")
    asked: Asked = {}
    before = None if private is None else private.before_vector
    secure = secure_node(plan, identity, before_vector=before, keep=keep)

    def defence_mod(message: Message, context: Context, app: ClientAppCallable) -> Message:
        """Returns the app's reply; raises where the message is not what the plan announced."""
        allow(plan)
        _check_run(message, context)
        if plan.built_in:
            _check(plan, message, asked)
        guarded = app if private is None else partial(private, app=app)
        if secure is not None:
            return secure(message, context, guarded)
        return guarded(message, context)

    return defence_mod


def _check_run(message: Message, context: Context) -> None:
    if message.metadata.run_id != context.run_id:
        raise PolicyRefusal(
            f"a message of run {message.metadata.run_id}, this is run {context.run_id}"
        )


def _check(plan: FederationPlan, message: Message, asked: Asked) -> None:
    _, training = plan.learning
    kind = KINDS.get(message.metadata.message_type)
    if kind is None:
        raise PolicyRefusal(
            f"a message of type {message.metadata.message_type[:40]!r}; the plan announces "
            f"{', '.join(KINDS.values())}"
        )
    heading = read_heading(message.content)
    if heading.plan != plan.digest:
        raise PolicyRefusal(
            f"the message belongs to plan {heading.plan[:16]!r}, "
            f"this node agreed to {plan.digest[:16]!r}"
        )
    if heading.round > training.rounds:
        raise PolicyRefusal(
            f"round {heading.round}; the plan has {training.rounds} (training.rounds)"
        )
    if heading.attempt > plan.round.attempts:
        raise PolicyRefusal(
            f"attempt {heading.attempt} at round {heading.round}; the plan has "
            f"{plan.round.attempts} (round.attempts)"
        )
    if plan.secure_aggregation is not None:
        kind = f"stage {read_stage(message.content)} of {kind}"
    turn = kind, heading.round, heading.attempt
    known = asked.setdefault(turn, message.metadata.message_id)
    if known != message.metadata.message_id:  # one delivered again is the same one
        raise PolicyRefusal(
            f"{kind} of round {heading.round}, attempt {heading.attempt}, was asked for before"
        )
