"""What every node owes: one answer per message, whatever happens on the way.

    Queued --its node is ready--------------------> Sent       + Deliver
    Sent   --the node returns without it----------> Queued
    Queued, Sent --deadline, node lost, run refused-> settled  + Fail
    Sent   --the node's reply---------------------> settled    `answer` returns the delivery
    Queued, Sent --cancelled, run closed----------> settled    + Dropped

A message that left the machine by `answer`, `Fail` or `Dropped` never comes back: the first way
out wins, and what arrives later is refused with a code that says why it is too late. A node that
is gone may come back within its run's `reconnect_s`; it then says what it still holds, and only
what it does not hold is handed to it again.

No input or output happens here, and the time is an argument. Other than the protocol cores of
single rounds, this one changes in place: a step must not cost the number of all messages.
Wire form: docs/spec/wire.md.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from fedsec.errors import ProtocolError, StateError
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import COORDINATOR_NODE_ID
from fedsec_server.deliveries import (
    Acknowledge,
    Deliver,
    Delivery,
    Dropped,
    Effect,
    Fail,
    Fate,
    State,
    Why,
    Withdraw,
)

REMEMBERED = 65_536  # settled messages whose fate is told to a late reply
_TOO_LATE = {
    Fate.ANSWERED: "message {} was answered before; the first answer counts",
    Fate.FAILED: "message {} was given up before this reply came",
    Fate.DROPPED: "message {} was withdrawn, or its run has ended",
}


@dataclass(slots=True)
class _Member:
    name: str
    away_since: float | None = None
    gone: str = ""  # why it will not come back; empty when it may


@dataclass(slots=True)
class _Run:
    reconnect_s: float
    ready: set[int] = field(default_factory=set)  # connected, and accepted the run
    open: set[int] = field(default_factory=set)  # accepted it in the present session
    refused: dict[int, str] = field(default_factory=dict)


class Mailboxes:
    """All unanswered messages of all runs. Every step costs what it touches, not what there is."""

    def __init__(self) -> None:
        self._members: dict[int, _Member] = {}
        self._runs: dict[int, _Run] = {}
        self._owed: dict[str, Delivery] = {}
        self._boxes: dict[int, dict[str, Delivery]] = {}  # by node, oldest first
        self._settled: dict[str, tuple[int, Fate]] = {}  # oldest first, bounded
        self._due: list[tuple[float, str]] = []  # a heap; entries of settled messages are stale

    # --- runs ------------------------------------------------------------------------------

    def open_run(self, run_id: int, reconnect_s: float) -> None:
        """Begins a run whose lost nodes have `reconnect_s` seconds to come back."""
        self._runs[run_id] = _Run(reconnect_s)

    def close_run(self, run_id: int) -> list[Effect]:
        """Ends a run. Its unanswered messages are dropped."""
        self._runs.pop(run_id, None)
        ours = [d for d in self._owed.values() if d.run_id == run_id]
        return [self._drop(delivery) for delivery in ours]

    def ready(self, run_id: int) -> list[tuple[int, str]]:
        """The nodes (id, name) that are connected and accepted the run, by id."""
        return self._named(self._runs[run_id].ready)

    def waiting(self, run_id: int) -> list[tuple[int, str]]:
        """The nodes (id, name) that are connected and have not answered the offer, by id."""
        run = self._runs[run_id]
        here = (n for n, member in self._members.items() if member.away_since is None)
        return self._named(n for n in here if n not in run.ready and n not in run.refused)

    def refused(self, run_id: int) -> list[tuple[int, str, str]]:
        """The nodes (id, name, reason) that refused the run, by id."""
        reasons = self._runs[run_id].refused
        return [(node_id, name, reasons[node_id]) for node_id, name in self._named(reasons)]

    # --- nodes -----------------------------------------------------------------------------

    def connect(self, node_id: int, name: str, held: Collection[str]) -> list[Effect]:
        """A session of the node begins; it may replace one that is still there.

        The node stays among the ready ones when it replaces a session, yet nothing is handed to
        the new session before it accepts the run again: the old one may have belonged to a
        process that is dead.

        `held` names the messages that the node works on or holds a reply for.
        """
        kept = frozenset(held)
        before = self._members.get(node_id)
        replaces = before is not None and before.away_since is None
        self._members[node_id] = _Member(name)
        for run in self._runs.values():
            run.open.discard(node_id)
            run.refused.pop(node_id, None)
            if not replaces:
                run.ready.discard(node_id)
        for message_id, delivery in self._box(node_id).items():
            there = delivery.was_sent and message_id in kept
            delivery.state = State.SENT if there else State.QUEUED
        return [effect for m in held for effect in self._reconcile(node_id, m)]

    def disconnect(self, node_id: int, now: float, gone: str = "") -> list[Effect]:
        """The node's session ended at `now`.

        `gone` says why the node will not come back, e.g. "was revoked": all that it owes fails
        at once. When it is empty, the node has its runs' `reconnect_s`.
        """
        member = self._members[node_id]
        member.away_since, member.gone = now, gone
        for run in self._runs.values():
            run.ready.discard(node_id)
            run.open.discard(node_id)
        box = list(self._box(node_id).values())
        if gone:
            return [e for d in box for e in self._fail(d, Why.LOST, f"node {member.name} {gone}")]
        for delivery in box:
            self._watch(delivery, now + self._runs[delivery.run_id].reconnect_s)
        return []

    def accept(self, run_id: int, node_id: int) -> list[Effect]:
        """The node takes part in the run. What is queued for it goes out."""
        run = self._runs.get(run_id)
        if run is None or not self._is_here(node_id):
            return []  # the answer crossed the end of the run or of the session
        run.refused.pop(node_id, None)
        run.ready.add(node_id)
        run.open.add(node_id)
        ours = (d for d in self._box(node_id).values() if d.run_id == run_id)
        return [self._hand_over(d) for d in ours if d.state is State.QUEUED]

    def refuse(self, run_id: int, node_id: int, reason: str) -> list[Effect]:
        """The node does not take part in the run. What it owes to the run fails."""
        run = self._runs.get(run_id)
        if run is None or not self._is_here(node_id):
            return []
        run.ready.discard(node_id)
        run.open.discard(node_id)
        run.refused[node_id] = reason
        ours = [d for d in self._box(node_id).values() if d.run_id == run_id]
        sentence = self._refusal(node_id, reason)
        return [effect for d in ours for effect in self._fail(d, Why.REFUSED, sentence)]

    # --- messages --------------------------------------------------------------------------

    def push(
        self, header: Header, *, deadline: float, now: float, content: bytes = b""
    ) -> list[Effect]:
        """A run sends a message. It is delivered now, queued, or answered with an error.

        `content` is the digest of its bulk; times are in monotonic seconds.

        Raises:
            StateError: The run is not open.
            ProtocolError: ``reused-id``: a message with this id was pushed before.
        """
        run = self._runs.get(header.run_id)
        if run is None:
            raise StateError(f"run {header.run_id} is not active, so it cannot send messages")
        message_id, node_id = header.message_id, header.dst_node_id
        if message_id in self._owed or message_id in self._settled:
            who, what = f"run {header.run_id}", f"message {message_id} was pushed before"
            raise ProtocolError(who, "reused-id", what)
        delivery = Delivery(header, deadline, content)
        self._owed[message_id] = delivery
        self._boxes.setdefault(node_id, {})[message_id] = delivery
        self._watch(delivery, deadline)
        member = self._members.get(node_id)
        if member is None:
            never = f"node {node_id} has not connected since the coordinator started"
            return self._fail(delivery, Why.LOST, never)
        if node_id in run.refused:
            sentence = self._refusal(node_id, run.refused[node_id])
            return self._fail(delivery, Why.REFUSED, sentence)
        if member.away_since is not None:
            self._watch(delivery, member.away_since + run.reconnect_s)
            return self._check(delivery, now)
        return [self._hand_over(delivery)] if node_id in run.open else []

    def owed(self, node_id: int, message_id: str) -> Delivery:
        """Returns the message if this node was sent it and has not answered it.

        Raises:
            ProtocolError: with one of the codes
                ``unknown``    no such message was sent;
                ``not-yours``  it was sent to another node;
                ``duplicate``  it was answered before: the first answer counts;
                ``late``       an error reply took the answer's place;
                ``withdrawn``  it was cancelled, or its run has ended.
        """
        delivery = self._owed.get(message_id)
        if delivery is not None and delivery.node_id == node_id and delivery.was_sent:
            return delivery
        owner, fate = self._settled.get(message_id, (node_id, None))
        code, what = "unknown", f"no message {message_id[:40]!r} was sent to it"
        if owner != node_id or (delivery is not None and delivery.node_id != node_id):
            code, what = "not-yours", f"message {message_id} was sent to another node"
        elif fate is not None:
            code, what = fate.value, _TOO_LATE[fate].format(message_id)
        raise ProtocolError(self.name(node_id), code, what)

    def answer(self, node_id: int, reply: Header) -> Delivery:
        """Takes the node's reply; returns what it answers, which is settled by it.

        `node_id` is from the certificate of the peer.

        Raises:
            ProtocolError: The codes of `owed`, ``wrong-run``, and ``wrong-address`` when the
                header names another sender or receiver. Nothing is settled then.
        """
        delivery = self.owed(node_id, reply.reply_to)
        who = self.name(node_id)
        if reply.run_id != delivery.run_id:
            what = f"the reply names run {reply.run_id}, the message was run {delivery.run_id}'s"
            raise ProtocolError(who, "wrong-run", what)
        if (reply.src_node_id, reply.dst_node_id) != (node_id, COORDINATOR_NODE_ID):
            what = (
                f"the reply names node {reply.src_node_id} as its sender and {reply.dst_node_id} "
                f"as its receiver; want {node_id} and {COORDINATOR_NODE_ID}"
            )
            raise ProtocolError(who, "wrong-address", what)
        self._settle(delivery, Fate.ANSWERED)
        return delivery

    def spoil(self, node_id: int, message_id: str, reason: str) -> list[Effect]:
        """The node's reply was refused. If it owed that reply, an error takes its place."""
        try:
            delivery = self.owed(node_id, message_id)
        except ProtocolError:
            return []
        sentence = f"the reply of node {self.name(node_id)} was refused: {reason}"
        self._settle(delivery, Fate.FAILED)  # no Withdraw: the refusal tells the node
        return [Fail(delivery, Why.SPOILT, sentence)]

    def cancel(self, run_id: int, message_ids: Iterable[str]) -> list[Effect]:
        """The run no longer wants these answers. What is settled, or another run's, stays."""
        found = [self._owed[m] for m in dict.fromkeys(message_ids) if m in self._owed]
        ours = [delivery for delivery in found if delivery.run_id == run_id]
        effects: list[Effect] = []
        for delivery in ours:
            effects += [*self._withdrawal(delivery), self._drop(delivery)]
        return effects

    def was_given(self, node_id: int, run_id: int, content: bytes) -> bool:
        """Whether a message of the run that the node was sent, and owes, carries this content."""
        owed = self._box(node_id).values()
        return any(d.run_id == run_id and d.was_sent and d.content == content for d in owed)

    # --- time ------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Fails what is due at `now`: past its deadline, or its node lost for too long."""
        effects: list[Effect] = []
        while (due := self.next_due()) is not None and due <= now:
            delivery = self._owed[heappop(self._due)[1]]
            effects += self._check(delivery, now)
        return effects

    def next_due(self) -> float | None:
        """When `tick` has something to look at; None when nothing is owed."""
        while self._due and self._due[0][1] not in self._owed:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def name(self, node_id: int) -> str:
        """The node's name as enrolled, or its number when it never connected."""
        member = self._members.get(node_id)
        return member.name if member is not None else str(node_id)

    # --- inside ----------------------------------------------------------------------------

    def _named(self, node_ids: Iterable[int]) -> list[tuple[int, str]]:
        return [(node_id, self.name(node_id)) for node_id in sorted(node_ids)]

    def _refusal(self, node_id: int, reason: str) -> str:
        return f"node {self.name(node_id)} refused the run: {reason}"

    def _is_here(self, node_id: int) -> bool:
        member = self._members.get(node_id)
        return member is not None and member.away_since is None

    def _box(self, node_id: int) -> dict[str, Delivery]:
        return self._boxes.get(node_id, {})

    def _reconcile(self, node_id: int, message_id: str) -> list[Effect]:
        """What a node is told about a message that it says it holds."""
        if message_id in self._box(node_id):
            return []
        if self._settled.get(message_id) == (node_id, Fate.ANSWERED):
            return [Acknowledge(node_id, message_id)]  # the first acknowledgement was lost
        return [Withdraw(node_id, message_id)]

    def _hand_over(self, delivery: Delivery) -> Effect:
        delivery.state, delivery.was_sent = State.SENT, True
        return Deliver(delivery)

    def _watch(self, delivery: Delivery, due: float) -> None:
        heappush(self._due, (due, delivery.message_id))
        if len(self._due) > 64 + 4 * len(self._owed):  # mostly stale: hours until they are due
            self._due = [entry for entry in self._due if entry[1] in self._owed]
            heapify(self._due)

    def _check(self, delivery: Delivery, now: float) -> list[Effect]:
        """Fails the delivery if it is due. An entry of an absence that ended is not."""
        if now >= delivery.deadline:
            late = f"node {self.name(delivery.node_id)} did not answer by the deadline"
            return self._fail(delivery, Why.DEADLINE, late)
        member = self._members[delivery.node_id]
        grace = self._runs[delivery.run_id].reconnect_s
        if member.away_since is None or now < member.away_since + grace:
            return []
        lost = member.gone or f"was lost, and is not back within {grace:g} s"
        return self._fail(delivery, Why.LOST, f"node {member.name} {lost}")

    def _fail(self, delivery: Delivery, why: Why, reason: str) -> list[Effect]:
        withdrawal = self._withdrawal(delivery)
        self._settle(delivery, Fate.FAILED)
        return [*withdrawal, Fail(delivery, why, reason)]

    def _drop(self, delivery: Delivery) -> Effect:
        self._settle(delivery, Fate.DROPPED)
        return Dropped(delivery)

    def _withdrawal(self, delivery: Delivery) -> list[Effect]:
        at_work = delivery.state is State.SENT and self._is_here(delivery.node_id)
        return [Withdraw(delivery.node_id, delivery.message_id)] if at_work else []

    def _settle(self, delivery: Delivery, fate: Fate) -> None:
        del self._owed[delivery.message_id]
        box = self._boxes[delivery.node_id]
        del box[delivery.message_id]
        if not box:
            del self._boxes[delivery.node_id]
        self._settled[delivery.message_id] = (delivery.node_id, fate)
        if len(self._settled) > REMEMBERED:
            del self._settled[next(iter(self._settled))]
