"""The port where nodes work: control streams, bulk content, renewal of certificates.

    node                    coordinator
    Hello(version, held) ->
                         <- Welcome, or Refused and the end
                         <- RunOffer for every open run
    RunAnswer            ->
                         <- Deliver
    reply                ->
                         <- Ack

A frame that is no `NodeFrame` ends the session with a sentence, for who sends one does not speak
this protocol. A reply whose header is wrong is refused by an Ack with the reason, an error takes
its place if the node owed that answer, and the session stays; but a node of which too many replies
are refused loses its session. Everything refused is an event of the log. Spec: docs/spec/wire.md.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from fedsec.errors import IdentityError, ProtocolError
from fedsec.identity.names import Principal
from fedsec.wire.blobs import Blob
from fedsec.wire.call import Call, Handler, Method, parse, server_stream, unary
from fedsec.wire.content import Manifest
from fedsec.wire.denylist import Denylist
from fedsec.wire.generated.fleet_pb2 import (
    CoordinatorFrame,
    FetchRequest,
    Hello,
    NodeFrame,
    Refused,
    RenewReply,
    RenewRequest,
    Welcome,
)
from fedsec.wire.rates import RateLimiter
from fedsec.wire.services import FLEET, check_complete
from fedsec.wire.streams import Uploads, serve_fetch, serve_store
from fedsec_server.exchange import Exchange
from fedsec_server.journal import Journal
from fedsec_server.roles import ROLES
from fedsec_server.sessions import Member, Session
from fedsec_server.state.store import Store
from fedsec_server.state.values import NodeState
from fedsec_server.versions import SOFTWARE, protocol, speaks

HELLO_S = 10.0  # within which the first frame must come
DRAIN_S = 10.0  # for which a replaced session may still bring replies
FLUSH_S = 1.0  # for what a node that hung up is still to hear
MAX_HELD = 10_000  # messages that a node may say it holds
MAX_REASON = 1000  # characters of a node's reason for refusing a run

_ID_LENGTH = 32
# Of one node, before its session is ended; one that was away for long may bring many late replies.
_REFUSALS_PER_S, _REFUSALS_BURST = 1.0, 300
_SESSIONS_PER_S, _SESSIONS_BURST = 1.0, 60  # that one node may begin; each is recorded for good

Renew = Callable[[Principal, RenewRequest], Awaitable[RenewReply]]


class FleetService:
    """The methods of the fleet port.

    Args:
        exchange: Where replies go and content comes from.
        store: Knows who is enrolled.
        journal: Takes events.
        denylist: The gate's; tells a cut from a revocation.
        uploads: Keeps unfinished ones.
        renew: Issues another certificate to a node.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        store: Store,
        journal: Journal,
        denylist: Denylist,
        uploads: Uploads,
        renew: Renew,
    ) -> None:
        self._exchange = exchange
        self._store = store
        self._journal = journal
        self._denylist = denylist
        self._uploads = uploads
        self._renew = renew
        self._members: dict[str, Member] = {}  # by SPIFFE id; who was revoked passes no gate
        self._refusals = RateLimiter(_REFUSALS_PER_S, _REFUSALS_BURST)
        self._beginnings = RateLimiter(_SESSIONS_PER_S, _SESSIONS_BURST)

    def methods(self) -> list[Method]:
        """Returns one row per RPC of the port."""

        def row(name: str, handler: Handler, *, long_lived: bool) -> Method:
            path = f"/{FLEET.full_name}/{name}"
            return Method(path, ROLES[path], handler, long_lived=long_lived)

        rows = [
            row("Session", self._session, long_lived=True),
            row("Fetch", server_stream(FetchRequest, self._fetch), long_lived=True),
            row("Store", self._take, long_lived=True),
            row("Renew", unary(RenewRequest, self._renewal), long_lived=False),
        ]
        check_complete(FLEET, rows)
        return rows

    # --- the control stream ------------------------------------------------------------------

    async def _session(self, call: Call) -> None:
        member = await self._member(call)
        self._beginnings.take(member.spiffe_id)
        hello = await self._hello(call, member)
        if hello is None:
            return
        session = Session(member)
        welcome = Welcome(
            version=protocol(), software=SOFTWARE, node_id=member.node_id, name=member.name
        )
        session.send(CoordinatorFrame(welcome=welcome))
        if member.node_id in self._exchange.connected():
            self._journal.note("session-replaced", member.spiffe_id, {"peer": call.peer})
        self._exchange.join(session, hello.held)
        detail = {"node": member.name, "peer": call.peer, "software": hello.software[:100]}
        self._journal.note("node-connected", member.spiffe_id, detail)
        self._journal.soon(self._store.note_seen, member.node_id, time.time())
        writer = asyncio.create_task(session.write_all(call.write))
        try:
            await self._read_all(call, session)
            session.finish()
            await asyncio.wait({writer}, timeout=FLUSH_S)
        finally:
            writer.cancel()
            writer.add_done_callback(_seen)
            self._left(call, session)

    async def _hello(self, call: Call, member: Member) -> Hello | None:
        """Returns the node's greeting; None when the node was told that it cannot stay."""
        try:
            async with asyncio.timeout(HELLO_S):
                frame = await call.receive(NodeFrame)
        except TimeoutError:
            raise ProtocolError(call.who, "no-hello", f"no hello within {HELLO_S:g} s") from None
        if frame is None or frame.WhichOneof("kind") != "hello":
            raise ProtocolError(call.who, "no-hello", "the first frame must be a hello")
        hello = frame.hello
        if len(hello.held) > MAX_HELD or any(len(each) != _ID_LENGTH for each in hello.held):
            raise ProtocolError(
                call.who, "bad-hello", f"held must be at most {MAX_HELD} message ids"
            )
        sentence = speaks(hello.version)
        if sentence:
            refused = Refused(code="version", reason=sentence)
            await call.send(CoordinatorFrame(refused=refused))
            detail = {"node": member.name, "reason": sentence, "software": hello.software[:100]}
            self._journal.note("session-refused", member.spiffe_id, detail)
            return None
        return hello

    async def _read_all(self, call: Call, session: Session) -> None:
        """Takes the node's frames until it ends, or for a while after it was replaced."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as patience:
                session.on_end = lambda: patience.reschedule(loop.time() + DRAIN_S)
                while (data := await call.read()) is not None:
                    self._on_frame(session.member, parse(NodeFrame, data, call.who))
        except TimeoutError:
            pass  # it was told, and did not hang up
        finally:
            session.on_end = _nothing

    def _on_frame(self, member: Member, frame: NodeFrame) -> None:
        match frame.WhichOneof("kind"):
            case "reply":
                try:
                    self._exchange.reply(member, frame.reply)
                except ProtocolError:
                    self._refusals.take(member.spiffe_id)
            case "run_answer" if frame.run_answer.accepted:
                self._exchange.accept(member, frame.run_answer.run_id)
            case "run_answer":
                self._refusals.take(member.spiffe_id)
                reason = frame.run_answer.reason[:MAX_REASON] or "it gave no reason"
                self._exchange.refuse(member, frame.run_answer.run_id, reason)
            case "hello":
                raise ProtocolError(member.name, "malformed", "a second hello in one session")
            case _:
                raise ProtocolError(member.name, "malformed", "a frame that carries nothing known")

    def _left(self, call: Call, session: Session) -> None:
        member = session.member
        gone = "was revoked" if self._denylist.is_denied(call.caller()) else ""
        if gone:
            self._uploads.drop_owner(member.spiffe_id)
        if self._exchange.leave(session, gone):
            detail = {"node": member.name, "peer": call.peer}
            self._journal.note("node-disconnected", member.spiffe_id, detail)
            self._journal.soon(self._store.note_seen, member.node_id, time.time())

    # --- bulk content ------------------------------------------------------------------------

    async def _fetch(self, call: Call, request: FetchRequest) -> None:
        member = await self._member(call)
        if not request.run_id:  # no run's: the node asks whether it is admitted
            return
        with self._exchange.content(member, request.run_id, request.digest) as (manifest, view):
            await serve_fetch(call, view, manifest, request.first_chunk)

    async def _take(self, call: Call) -> None:
        member = await self._member(call)
        admit = partial(self._exchange.wants, member)

        async def keep(reply_to: str, manifest: Manifest, content: Blob) -> None:
            self._exchange.store(member, reply_to, manifest, content)

        await serve_store(call, self._uploads, admit, keep)

    # --- identity ----------------------------------------------------------------------------

    async def _renewal(self, call: Call, request: RenewRequest) -> RenewReply:
        return await self._renew(call.caller(), request)

    async def _member(self, call: Call) -> Member:
        """Returns who calls, as enrolled.

        Raises:
            IdentityError: ``unknown-node``, never enrolled here; ``not-enrolled``, not any more.
        """
        spiffe_id = call.caller().spiffe_id
        member = self._members.get(spiffe_id)
        if member is None:
            record = await asyncio.to_thread(self._store.node_by_spiffe, spiffe_id)
            if record.state is not NodeState.ENROLLED:
                raise IdentityError("not-enrolled", f"node {record.name} is {record.state}")
            member = self._members[spiffe_id] = Member(record.node_id, record.name, spiffe_id)
        return member


def _seen(writer: "asyncio.Task[None]") -> None:
    """Takes note of how a writer ended: its connection may have been cut under its hands."""
    if not writer.cancelled():
        writer.exception()


def _nothing() -> None:
    """What the end of a session that is over already does."""
