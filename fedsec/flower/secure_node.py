"""The node's half of a secure sum, around a ClientApp: the app trains, its update never leaves.

    stages entry, part, groups: `fedsec.flower.group_node`
    stage offer: the app trains; its update is coded and kept; keys are offered
    later stages: `fedsec.secagg.node`; the vector leaves masked

Keys, seeds and the coded update are kept in `Turns`: on fedsec's node in the worker's memory, until
the sum's last stage or the next round. What outlives the process is the number of the last turn, in
``context.state``, kept before the app runs: no turn begins twice, whatever the coordinator says and
however the app ends.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Context, Error, Message, MessageType, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedsec.errors import ConfigError, PolicyRefusal
from fedsec.flower.app_updates import read_difference, read_own_update
from fedsec.flower.asked import digest_of
from fedsec.flower.group_node import GroupNode
from fedsec.flower.messages import Heading, read_heading
from fedsec.flower.secure_messages import (
    BEGINNINGS,
    GROUPING,
    RUN_CONFIG,
    SECAGG,
    Stage,
    read_request,
    read_stage,
    reply,
)
from fedsec.flower.secure_session import make_setting
from fedsec.flower.sums import SumForm, sum_form
from fedsec.plan import FederationPlan
from fedsec.privacy.keystream import Keystream
from fedsec.secagg import node as protocol
from fedsec.secagg.masks import Words
from fedsec.secagg.membership import Setting
from fedsec.secagg.messages import Delivery
from fedsec.secagg.parameters import Minima

Code: TypeAlias = Callable[[Message, Message, Heading], tuple[SumForm, Words]]
"""From what an app was asked, and what it answered, to the words that are added up."""

Keep: TypeAlias = Callable[[Context], None]
"""Has ``context.state`` outlive this process; returns when it does, else raises."""

_ROUND, _ATTEMPT = "round", "attempt"
FAILED = "the app answered with an error, whose words stay on the node"


def _utc_now() -> datetime:
    return datetime.now(UTC)


def kept_by_runtime(_context: Context) -> None:
    """Leaves it to Flower's runtime, which stores it when an app raises, too; not when killed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is in secure sums, and what its site asks of them.

    Args:
        signer: Its long-term signing key.
        trusted: Signing keys by node id, from the federation's signed roster; None if not pinned.
        minima: Of the site's policy.
        until: Last moment at which that roster holds, aware; None: not known here.
    """

    signer: Ed25519PrivateKey = field(repr=False)
    trusted: Mapping[int, bytes] | None = None
    minima: Minima = protocol.ANY
    until: datetime | None = None

    def check_roster(self, now: datetime) -> None:
        """Returns while the federation's roster holds.

        Raises:
            PolicyRefusal: It has expired.
        """
        if self.until is not None and now > self.until:
            raise PolicyRefusal(
                f"the federation's roster expired at {self.until:%Y-%m-%d %H:%M:%S} UTC: this node "
                "begins no round by it; sign a new one with `fedsec roster sign`, and start "
                "another run"
            )


@dataclass(slots=True)
class Turn:
    """A sum that is under way: its vector too, until that has left."""

    heading: Heading
    setting: Setting
    state: protocol.State
    words: Words | None


class Turns(Protocol):
    """Where a node keeps its turn from one stage to the next."""

    def get(self, context: Context) -> Turn | None:
        """Returns the turn that is under way."""
        ...

    def put(self, context: Context, turn: Turn | None) -> None:
        """Keeps a turn in the place of the one before; None forgets it."""
        ...


class MemoryTurns:
    """In this process's memory."""

    def __init__(self) -> None:
        self._turn: Turn | None = None

    def get(self, _context: Context) -> Turn | None:
        """See `Turns`."""
        return self._turn

    def put(self, _context: Context, turn: Turn | None) -> None:
        """See `Turns`."""
        self._turn = turn


class SecureNode:
    """Takes part in a run's secure sums.

    Args:
        plan: With secure aggregation.
        identity: The node's.
        code: Makes the words of the app's answer.
        turns: Where secrets lie between stages.
        before_vector: Called with the heading when a masked vector is about to leave, and with no
            other: pays for it, or raises.
        keep: Called when a turn is taken, before the app runs.
        now: The time, aware.

    Raises:
        PolicyRefusal: The plan allows more attempts at a round than the site does.
    """

    def __init__(
        self,
        plan: FederationPlan,
        identity: Identity,
        code: Code,
        turns: Turns,
        *,
        before_vector: Callable[[Heading], None] | None = None,
        keep: Keep = kept_by_runtime,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        identity.minima.check_attempts(plan.round.attempts)
        self._plan = plan
        self._identity = identity
        self._code = code
        self._turns = turns
        self._before_vector = before_vector
        self._keep = keep
        self._now = now
        self._groups = GroupNode(plan)

    def __call__(self, message: Message, context: Context, app: ClientAppCallable) -> Message:
        """Returns the node's answer at one stage.

        Raises:
            PolicyRefusal: The message would have the update leave in plain, or begins a turn again.
            ProtocolError: The coordinator lies, or the message is malformed.
        """
        if message.metadata.message_type != MessageType.TRAIN:
            raise PolicyRefusal(
                f"a message of type {message.metadata.message_type[:40]!r}: under secure "
                "aggregation no figure of one node leaves it"
            )
        stage = read_stage(message.content)
        if stage is None:
            raise PolicyRefusal(
                "the plan demands secure aggregation, and this message would have the update leave "
                "in plain"
            )
        heading = read_heading(message.content)
        self._check(heading)
        if stage in BEGINNINGS:
            self._identity.check_roster(self._now())
        me = self._myself(context.node_id)
        if stage in GROUPING:
            answer = self._groups(me, stage, heading, message.content, context)
            return Message(answer, reply_to=message)
        if stage is Stage.OFFER:
            return self._begin(me, message, context, app)
        turn = self._turns.get(context)
        if turn is None or turn.heading != heading:
            raise PolicyRefusal(
                f"stage {stage} of round {heading.round}, attempt {heading.attempt}: this node is "
                "not in it"
            )
        answer = self._go_on(me, turn, stage, message.content)
        self._turns.put(context, None if isinstance(turn.state, protocol.Finished) else turn)
        return Message(answer, reply_to=message)

    def _myself(self, node_id: int) -> protocol.Node:
        it = self._identity
        return protocol.Node(node_id, it.signer, os.urandom, it.trusted, it.minima)

    def _check(self, heading: Heading) -> None:
        if heading.plan != self._plan.digest:
            raise PolicyRefusal(
                f"the message belongs to plan {heading.plan[:16]!r}, this node agreed to "
                f"{self._plan.digest[:16]!r}"
            )
        if heading.attempt > self._plan.round.attempts:
            raise PolicyRefusal(
                f"attempt {heading.attempt} at round {heading.round}; the plan has "
                f"{self._plan.round.attempts} (round.attempts)"
            )

    def _begin(
        self, me: protocol.Node, message: Message, context: Context, app: ClientAppCallable
    ) -> Message:
        heading = read_heading(message.content)
        mine = self._groups.group(context)
        _take_turn(context, heading)
        self._turns.put(context, None)  # whatever was under way is over
        # Now, since a model can be made to fail on certain records alone, and be sent again
        self._keep(context)
        asked = digest_of(message.content)  # before the app may write to it
        ours = {SECAGG, RUN_CONFIG}
        message.content = RecordDict({n: r for n, r in message.content.items() if n not in ours})
        group_id, message.metadata.group_id = message.metadata.group_id, str(heading.round)
        answer = app(message, context)
        message.metadata.group_id = group_id  # which the app did not see: it is in no digest
        if answer.has_error():  # in words of the app's own
            return Message(Error(answer.error.code, FAILED), reply_to=message)
        form, words = self._code(message, answer, heading)
        group = None if mine is None else (mine.group, mine.members)
        setting = make_setting(self._plan, form, context.run_id, heading, asked, group=group)
        state, offer = protocol.begin(me, setting)
        self._turns.put(context, Turn(heading, setting, state, words))
        return Message(reply(Stage.OFFER, offer), reply_to=message)

    def _go_on(
        self, me: protocol.Node, turn: Turn, stage: Stage, content: RecordDict
    ) -> RecordDict:
        asked = read_request(stage, content)
        event: protocol.Event
        if isinstance(asked, Delivery):
            if turn.words is None:
                raise PolicyRefusal("the masked vector of this turn has left before")
            event = protocol.Deliver(asked, turn.words)
        else:
            event = asked
        turn.state, effect = protocol.step(me, turn.state, event)
        if isinstance(effect, protocol.Upload):
            if self._before_vector is not None:
                self._before_vector(turn.heading)
            turn.words = None
        return reply(stage, effect)


def secure_node(
    plan: FederationPlan,
    identity: Identity | None,
    *,
    before_vector: Callable[[Heading], None] | None = None,
    keep: Keep = kept_by_runtime,
) -> SecureNode | None:
    """Returns what takes part in a run's secure sums; None where there are none.

    Raises:
        ConfigError: The plan demands them, and there is no identity.
        PolicyRefusal: As of `SecureNode`.
    """
    if plan.secure_aggregation is None:
        return None
    if identity is None:
        raise ConfigError("the plan demands secure aggregation; this node has no signing key")
    code, turns = coding(plan), MemoryTurns()
    return SecureNode(plan, identity, code, turns, before_vector=before_vector, keep=keep)


def coding(plan: FederationPlan) -> Code:
    """Returns how an app's answer becomes words: the built-in app's, or any Flower app's."""
    read = read_own_update if plan.built_in else read_difference

    def code(asked: Message, answer: Message, heading: Heading) -> tuple[SumForm, Words]:
        update, metrics = read(asked.content, answer.content)
        form = sum_form(plan, update.size, heading)
        return form, form.encode(update, metrics, Keystream())

    return code


def _take_turn(context: Context, heading: Heading) -> None:
    """Writes down that a turn begins.

    Raises:
        PolicyRefusal: It, or a later one, began before.
    """
    known = context.state.config_records.get(SECAGG, ConfigRecord())
    last = _number(known, _ROUND), _number(known, _ATTEMPT)
    if (heading.round, heading.attempt) <= last:
        raise PolicyRefusal(
            f"round {heading.round}, attempt {heading.attempt} comes after round {last[0]}, "
            f"attempt {last[1]}, in which this node took part; a secure sum is made once"
        )
    context.state[SECAGG] = ConfigRecord({_ROUND: heading.round, _ATTEMPT: heading.attempt})


def _number(record: ConfigRecord, name: str) -> int:
    value = record.get(name, 0)
    return value if isinstance(value, int) else 0
