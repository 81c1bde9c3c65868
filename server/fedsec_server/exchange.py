"""Where the fleet and the runs meet: sessions of nodes on one side, run processes on the other.

    run process --push--> mailboxes --Deliver--> session of the node
    run process <--reply, or an error in its place-- mailboxes <--reply-- session of the node

The mailboxes decide; this carries out what they decide. Everything happens on the event loop's
thread and nothing here waits: what is to be written is queued, what is to be recorded is noted.
"""

import asyncio
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from fedsec.errors import ProtocolError
from fedsec.wire.blobs import Blob
from fedsec.wire.content import Manifest
from fedsec.wire.generated.fleet_pb2 import Ack, Cancel, CoordinatorFrame, RunEnd, RunOffer
from fedsec.wire.generated.local_pb2 import NodeInfo, NodeRefusal, Nodes
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import (
    COORDINATOR_NODE_ID,
    MAX_HEADER_BYTES,
    ErrorCode,
    check_header,
    reply_failure,
)
from fedsec_server.contents import Contents
from fedsec_server.deliveries import (
    Acknowledge,
    Deliver,
    Delivery,
    Dropped,
    Effect,
    Fail,
    Why,
    Withdraw,
)
from fedsec_server.events import run_subject
from fedsec_server.journal import Journal
from fedsec_server.mailbox import Mailboxes
from fedsec_server.sessions import Member, Session

RETIRE_S = 2.0  # in which a node may hang up the session that it has replaced
_ID_SHOWN = 64  # characters of what a refused reply names; an id has 32

_CODES = {
    Why.LOST: ErrorCode.NODE_UNAVAILABLE,
    Why.REFUSED: ErrorCode.NODE_UNAVAILABLE,
    Why.DEADLINE: ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    Why.SPOILT: ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
}


class RunSide(Protocol):
    """What the exchange tells a run process. Must not wait."""

    def nodes(self, nodes: Nodes) -> None:
        """Who is ready, waited for, refused; at the opening of the run and at every change."""

    def reply(self, header: Header, content: Blob | None) -> None:
        """The one answer to a message. The content is the run's from now on."""


@dataclass(slots=True)
class _OpenRun:
    side: RunSide
    offer: CoordinatorFrame
    told: Nodes | None = None


class Exchange:
    """All sessions and all open runs of a coordinator.

    Args:
        journal: Takes events.
        max_content: Bytes of bulk content of one message, >= 1.
        max_stored: Contents of replies that one node may have left here without the reply.
    """

    def __init__(self, journal: Journal, *, max_content: int, max_stored: int = 16) -> None:
        self._journal = journal
        self._max_content = max_content
        self._max_stored = max_stored
        self._loop = asyncio.get_running_loop()
        self._boxes = Mailboxes()
        self._contents = Contents()
        self._stored: dict[int, dict[str, tuple[Manifest, Blob]]] = {}  # by node, by reply_to
        self._sessions: dict[int, Session] = {}
        self._runs: dict[int, _OpenRun] = {}
        self._changed: set[int] = set()  # runs that are to hear of nodes
        self._timer: asyncio.TimerHandle | None = None

    # --- the fleet's side --------------------------------------------------------------------

    def join(self, session: Session, held: Collection[str]) -> None:
        """A session begins, the welcome is queued. It replaces the node's former session, if any.

        What the node owes goes on, whichever of the two sessions carries the answer. A node that
        moves to a new connection hangs up the old one by itself; whoever does not is told.
        """
        member = session.member
        before = self._sessions.get(member.node_id)
        self._sessions[member.node_id] = session
        if before is not None:
            before.silence()
            sentence = f"a newer session of node {member.name} has taken over"
            self._loop.call_later(RETIRE_S, before.end, "replaced", sentence)
        for run in self._runs.values():
            session.send(run.offer)
        self._apply(self._boxes.connect(member.node_id, member.name, held))
        self._tell(self._runs)

    def leave(self, session: Session, gone: str = "") -> bool:
        """A session ended. Returns False if another one had replaced it.

        `gone` says why the node will not come back, e.g. "was revoked"; empty: it may.
        """
        node_id = session.member.node_id
        if self._sessions.get(node_id) is not session:
            return False
        del self._sessions[node_id]
        self._apply(self._boxes.disconnect(node_id, self._loop.time(), gone))
        self._tell(self._runs)
        return True

    def accept(self, member: Member, run_id: int) -> None:
        """The node takes part in a run."""
        self._apply(self._boxes.accept(run_id, member.node_id))
        self._tell([run_id])

    def refuse(self, member: Member, run_id: int, reason: str) -> None:
        """The node does not take part in a run."""
        self._apply(self._boxes.refuse(run_id, member.node_id, reason))
        if run_id in self._runs:
            detail = {"node": member.name, "reason": reason}
            self._journal.note("run-refused", member.spiffe_id, detail, run_id)
        self._tell([run_id])

    def reply(self, member: Member, header: Header) -> None:
        """The node answers. What is wrong is refused, noted, and answered in the node's place.

        Raises:
            ProtocolError: The reply was refused; all that is to be done about it is done.
        """
        node_id, reply_to = member.node_id, header.reply_to
        try:
            _check_size(member, header)
            check_header(header, max_bytes=self._max_content)
            self._boxes.owed(node_id, reply_to)
            content = self._claim(member, header)
            delivery = self._boxes.answer(node_id, header)
        except ProtocolError as error:
            self._apply(self._boxes.spoil(node_id, reply_to, error.detail))
            shown = reply_to[:_ID_SHOWN]  # what waits for a node that does not read is bounded
            self._acknowledge(node_id, shown, f"{error.code}: {error.detail}")
            detail = {"node": member.name, "code": error.code, "reason": error.detail}
            detail["reply_to"] = shown
            known = header.run_id if header.run_id in self._runs else None
            self._journal.note("reply-refused", member.spiffe_id, detail, known)
            raise
        if content is not None:
            del self._stored[node_id][reply_to]  # the run's from now on
        self._let_go(delivery)
        self._acknowledge(node_id, reply_to, "")
        self._runs[delivery.run_id].side.reply(header, content)

    def content(
        self, member: Member, run_id: int, digest: bytes
    ) -> AbstractContextManager[tuple[Manifest, memoryview]]:
        """Gives the content that this node was sent and has not answered yet.

        Raises:
            ProtocolError: ``no-content``: it was sent no such content, or needs it no more.
        """
        if not self._boxes.was_given(member.node_id, run_id, digest):
            raise ProtocolError(
                member.name, "no-content", f"run {run_id} has no such content for this node"
            )
        return self._contents.use(run_id, digest)

    def wants(self, member: Member, reply_to: str, manifest: Manifest) -> int | None:
        """Admits an upload; None when this very content is here already.

        Otherwise returns how many bytes of this node wait for their reply.

        Raises:
            ProtocolError: The codes of `Mailboxes.owed`, or ``too-many-uploads``.
        """
        self._boxes.owed(member.node_id, reply_to)
        theirs = self._stored.get(member.node_id, {})
        if reply_to in theirs:
            if theirs[reply_to][0] == manifest:
                return None
            theirs.pop(reply_to)[1].close()  # the node worked on it anew
        if len(theirs) >= self._max_stored:
            raise ProtocolError(
                member.name,
                "too-many-uploads",
                f"{len(theirs)} contents wait for their reply, at most {self._max_stored} may",
            )
        return sum(content.length for _, content in theirs.values())

    def store(self, member: Member, reply_to: str, manifest: Manifest, content: Blob) -> None:
        """Keeps the content of a reply that is to come. `content` is owned from now on.

        Raises:
            ProtocolError: The codes of `wants`: it was settled while the content came.
        """
        try:
            known = self.wants(member, reply_to, manifest) is None
        except ProtocolError:
            content.close()
            raise
        if known:
            content.close()
        else:
            self._stored.setdefault(member.node_id, {})[reply_to] = (manifest, content)

    def stored_bytes(self) -> int:
        """Returns how many bytes of all nodes wait for their reply."""
        return sum(content.length for box in self._stored.values() for _, content in box.values())

    def connected(self) -> frozenset[int]:
        """Returns the ids of the nodes that have a session."""
        return frozenset(self._sessions)

    # --- the runs' side ----------------------------------------------------------------------

    def open_run(
        self, run_id: int, plan: str, reconnect_s: float, side: RunSide, *, roster: bytes = b""
    ) -> None:
        """Offers a run to every node that is here or comes while it is open."""
        offer = CoordinatorFrame(run_offer=RunOffer(run_id=run_id, plan=plan, roster=roster))
        self._runs[run_id] = _OpenRun(side, offer)
        self._boxes.open_run(run_id, reconnect_s)
        for session in self._sessions.values():
            session.send(offer)
        self._tell([run_id])

    def close_run(self, run_id: int, reason: str) -> None:
        """Ends a run: drops what is unanswered, tells every node. Twice has no further effect."""
        if self._runs.pop(run_id, None) is None:
            return
        self._apply(self._boxes.close_run(run_id))
        end = CoordinatorFrame(run_end=RunEnd(run_id=run_id, reason=reason))
        for session in self._sessions.values():
            session.send(end)

    def push(self, run_id: int, header: Header, content: Blob | None, seconds: float) -> None:
        """A run sends a message, to be answered within `seconds`. `content` is owned from now on.

        Raises:
            ProtocolError: The message is not what a run may send.
            StateError: The run is not open.
        """
        now = self._loop.time()
        manifest = None
        try:
            check_header(header, max_bytes=self._max_content)
            _check_instruction(run_id, header)
            if header.HasField("bulk"):
                manifest = Manifest.from_proto(header.bulk, self._max_content)
                self._contents.keep(run_id, manifest, content)
                content = None
        finally:
            if content is not None:
                content.close()
        digest = manifest.digest if manifest else b""
        try:
            effects = self._boxes.push(header, deadline=now + seconds, now=now, content=digest)
        except Exception:
            if manifest:
                self._contents.release(run_id, digest)
            raise
        self._apply(effects)

    def cancel(self, run_id: int, message_ids: Iterable[str]) -> None:
        """A run does not wait for these answers any more."""
        self._apply(self._boxes.cancel(run_id, message_ids))

    # --- inside ------------------------------------------------------------------------------

    def _claim(self, member: Member, header: Header) -> Blob | None:
        """Returns the stored content that a reply names."""
        manifest, content = self._stored.get(member.node_id, {}).get(header.reply_to, (None, None))
        if not header.HasField("bulk"):
            return None
        if manifest is None or manifest != Manifest.from_proto(header.bulk, self._max_content):
            what = "the reply names content that was not stored before it"
            raise ProtocolError(member.name, "content-missing", what)
        return content

    def _apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(delivery):
                    self._send(delivery.node_id, CoordinatorFrame(deliver=delivery.header))
                case Fail():
                    self._fail(effect)
                case Dropped(delivery):
                    self._let_go(delivery)
                case Withdraw(node_id, message_id):
                    self._send(node_id, CoordinatorFrame(cancel=Cancel(message_id=message_id)))
                case Acknowledge(node_id, message_id):
                    self._acknowledge(node_id, message_id, "")
        self._arm()

    def _fail(self, failure: Fail) -> None:
        delivery = failure.delivery
        self._let_go(delivery)
        detail = {
            "node": self._boxes.name(delivery.node_id),
            "node_id": delivery.node_id,
            "code": failure.why.value,
            "reason": failure.reason,
            "message_id": delivery.message_id,
        }
        self._journal.note("answer-failed", run_subject(delivery.run_id), detail, delivery.run_id)
        reply = reply_failure(delivery.header, _CODES[failure.why], failure.reason)
        self._runs[delivery.run_id].side.reply(reply, None)

    def _let_go(self, delivery: Delivery) -> None:
        """Releases what was kept for a message that is settled."""
        if delivery.content:
            self._contents.release(delivery.run_id, delivery.content)
        theirs = self._stored.get(delivery.node_id, {})
        if delivery.message_id in theirs:
            theirs.pop(delivery.message_id)[1].close()
        if not theirs:
            self._stored.pop(delivery.node_id, None)

    def _acknowledge(self, node_id: int, message_id: str, refused: str) -> None:
        self._send(node_id, CoordinatorFrame(ack=Ack(message_id=message_id, refused=refused)))

    def _send(self, node_id: int, frame: CoordinatorFrame) -> None:
        session = self._sessions.get(node_id)
        if session is not None:  # else the node hears of it when it returns and says what it holds
            session.send(frame)

    def _tell(self, run_ids: Iterable[int]) -> None:
        """Tells runs of their nodes soon; many changes at a time make one frame."""
        if not self._changed:
            self._loop.call_soon(self._tell_now)
        self._changed.update(run_ids)

    def _tell_now(self) -> None:
        for run_id in self._changed & self._runs.keys():
            run, nodes = self._runs[run_id], self._nodes(run_id)
            if nodes != run.told:  # a node may repeat itself as often as it likes
                run.told = nodes
                run.side.nodes(nodes)
        self._changed.clear()

    def _nodes(self, run_id: int) -> Nodes:
        return Nodes(
            ready=[NodeInfo(node_id=n, name=name) for n, name in self._boxes.ready(run_id)],
            waiting=[NodeInfo(node_id=n, name=name) for n, name in self._boxes.waiting(run_id)],
            refused=[
                NodeRefusal(node=NodeInfo(node_id=n, name=name), reason=reason)
                for n, name, reason in self._boxes.refused(run_id)
            ],
        )

    def _arm(self) -> None:
        """Sets the one timer to the first thing that is due."""
        due = self._boxes.next_due()
        if self._timer is not None:
            if due == self._timer.when():
                return
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        # A timer may fire a hair early; the loop's own granularity is what it may be off by.
        self._apply(self._boxes.tick(self._loop.time() + 0.001))


def _check_size(member: Member, header: Header) -> None:
    """Counts fields that are unknown here, too: they would travel on with the others."""
    size = header.ByteSize()
    if size > MAX_HEADER_BYTES:
        what = f"a header of {size} bytes, at most {MAX_HEADER_BYTES} accepted"
        raise ProtocolError(member.name, "too-large", what)


def _check_instruction(run_id: int, header: Header) -> None:
    """A run speaks for itself alone, and for the coordinator to nodes alone."""
    want = (run_id, COORDINATOR_NODE_ID, "")
    if (header.run_id, header.src_node_id, header.reply_to) != want or header.HasField("failure"):
        raise ProtocolError(
            f"run {run_id}",
            "wrong-address",
            f"message {header.message_id} is no instruction of this run",
        )
