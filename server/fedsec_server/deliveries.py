"""A message on its way to a node, and what the mailboxes decide about it.

The values of `fedsec_server.mailbox`: the states, the ways out, the effects.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TypeAlias

from fedsec.wire.generated.message_pb2 import Header


class State(Enum):
    """Where an unanswered message is."""

    QUEUED = "queued"
    SENT = "sent"


class Why(StrEnum):
    """Why the coordinator answers in the node's place."""

    LOST = "node-lost"
    DEADLINE = "deadline"
    REFUSED = "run-refused"
    SPOILT = "reply-refused"


class Fate(StrEnum):
    """How a message was settled; the codes that a further reply to it is refused with."""

    ANSWERED = "duplicate"
    FAILED = "late"
    DROPPED = "withdrawn"


@dataclass(slots=True)
class Delivery:
    """A message that a node owes an answer to.

    `content` is the digest of its bulk, empty when there is none; `deadline` is in monotonic
    seconds.
    """

    header: Header
    deadline: float
    content: bytes = b""
    state: State = State.QUEUED
    was_sent: bool = False

    @property
    def message_id(self) -> str:
        """The id that the reply will name."""
        return self.header.message_id

    @property
    def run_id(self) -> int:
        """The run that asks."""
        return self.header.run_id

    @property
    def node_id(self) -> int:
        """The node that owes the answer."""
        return self.header.dst_node_id


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand the message to its node's control stream."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer the run with an error, for the node."""

    delivery: Delivery
    why: Why
    reason: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nobody waits for the answer any more; let go of what was kept for it."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Tell the node that the answer is no longer wanted."""

    node_id: int
    message_id: str


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Tell the node that its reply was taken, by an earlier session."""

    node_id: int
    message_id: str


Effect: TypeAlias = Deliver | Fail | Dropped | Withdraw | Acknowledge
