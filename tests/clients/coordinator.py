"""A coordinator for tests of the node: real TLS, the real gate, scripted answers.

async with FakeCoordinator() as coordinator:
    session = await coordinator.session()      # a node came
    session.offer(run_id, plan)
    await session.push(header, content)        # to be answered on coordinator.replies
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from fedsec.errors import IdentityError, ProtocolError
from fedsec.identity.bundles import Bundle
from fedsec.identity.certificates import load_certificate
from fedsec.identity.invites import Invite, make_token, token_hash
from fedsec.identity.leaves import issue
from fedsec.identity.names import Kind, Role
from fedsec.identity.signing import (
    check_proof,
    enrolment_transcript,
    make_signing_key,
    signing_key_pem,
)
from fedsec.wire.blobs import Blob
from fedsec.wire.call import Call, Method, Refusal, server_stream, unary
from fedsec.wire.channels import Listener, listen
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.credentials import ServerCredentials
from fedsec.wire.denylist import Denylist
from fedsec.wire.gate import Gate
from fedsec.wire.generated.enrol_pb2 import EnrolReply, EnrolRequest
from fedsec.wire.generated.fleet_pb2 import (
    Ack,
    Cancel,
    CoordinatorFrame,
    FetchRequest,
    Hello,
    NodeFrame,
    Refused,
    RenewReply,
    RenewRequest,
    RunEnd,
    RunOffer,
    Welcome,
)
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.rates import RateLimiter
from fedsec.wire.streams import UploadLimits, Uploads, encode_chunk, serve_fetch, serve_store
from fedsec_client.enrolment import Draft, Enrolment, Record
from fedsec_client.settings import FILE_NAME
from tests.pki import Leaf, Pki, make_pki

NODES = frozenset({Role.NODE})
PATIENCE_S = 20.0
NODE_ID = 7
RUN_ID = 11


@dataclass(eq=False)
class Session:
    """A control stream that a node has opened."""

    coordinator: "FakeCoordinator"
    hello: Hello
    serial: int
    outgoing: "asyncio.Queue[CoordinatorFrame | None]" = field(default_factory=asyncio.Queue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, **frame: object) -> None:
        self.outgoing.put_nowait(CoordinatorFrame(**frame))  # type: ignore[arg-type]

    def offer(self, run_id: int, plan: str) -> None:
        self.send(run_offer=RunOffer(run_id=run_id, plan=plan))

    def end_run(self, run_id: int) -> None:
        self.send(run_end=RunEnd(run_id=run_id, reason="the test says so"))

    def cancel(self, message_id: str) -> None:
        self.send(cancel=Cancel(message_id=message_id))

    def ack(self, message_id: str) -> None:
        self.send(ack=Ack(message_id=message_id))

    def refuse(self, code: str, reason: str) -> None:
        self.send(refused=Refused(code=code, reason=reason))
        self.outgoing.put_nowait(None)

    def hang_up(self) -> None:
        self.outgoing.put_nowait(None)

    def push(self, header: Header, content: Blob | None = None) -> None:
        if content is not None:
            manifest = Manifest.of(content.view())
            header.bulk.CopyFrom(manifest.to_proto())
            self.coordinator.contents[manifest.digest] = (manifest, content)
        self.send(deliver=header)


class FakeCoordinator:
    """Fleet and enrolment listeners on loopback."""

    def __init__(
        self,
        pki: Pki | None = None,
        *,
        server: Leaf | None = None,
        lifetime: timedelta = timedelta(hours=8),
        issued_at: Callable[[], datetime] = lambda: datetime.now(UTC),
        port: int = 0,
    ) -> None:
        self.pki = pki or make_pki()
        self.denylist = Denylist()
        self.refusals: list[Refusal] = []
        self.replies: asyncio.Queue[Header] = asyncio.Queue()
        self.answers: asyncio.Queue[tuple[int, bool, str]] = asyncio.Queue()
        self.contents: dict[bytes, tuple[Manifest, Blob]] = {}
        self.stored: dict[str, Blob] = {}
        self.stores: list[str] = []
        self.fetched: list[tuple[bytes, int]] = []
        self.renewals = 0
        self.auto_ack = True
        self.replace_after_s = 0.0  # the real one leaves 2 s to switch from session to session
        self.refuse_next: tuple[str, str] | None = None
        self.stall_at: int | None = None  # the chunk at which the next fetch falls silent
        self.stall_store_at: int | None = None  # the chunk before which a store is not read on
        self.stalled = asyncio.Event()
        self.chunks_stored = 0  # whole ones, of all stores together
        self.tokens: dict[bytes, str] = {}  # token hash -> state
        self.enrolled: list[EnrolRequest] = []
        self.spoil: Callable[[EnrolReply], None] = lambda _: None
        self.spoil_renewal: Callable[[RenewReply], None] = lambda _: None
        self._server = server or self.pki.server()
        self._lifetime = lifetime
        self._issued_at = issued_at
        self._port = port
        self._sessions: asyncio.Queue[Session] = asyncio.Queue()
        self._latest: Session | None = None
        self._uploads = Uploads(UploadLimits())
        self._listeners: list[Listener] = []

    async def __aenter__(self) -> Self:
        nodes = self.pki.nodes.certificate_pem
        rows = [
            Method("/fedsec.v1.Fleet/Session", NODES, self._session, long_lived=True),
            Method(
                "/fedsec.v1.Fleet/Fetch",
                NODES,
                server_stream(FetchRequest, self._fetch),
                long_lived=True,
            ),
            Method("/fedsec.v1.Fleet/Store", NODES, self._store, long_lived=True),
            Method("/fedsec.v1.Fleet/Renew", NODES, unary(RenewRequest, self._renew)),
        ]
        await self._listen(rows, nodes, Kind.NODE)
        enrol = Method("/fedsec.v1.Enrolment/Enrol", frozenset(), unary(EnrolRequest, self._enrol))
        await self._listen([enrol], None, None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _listen(self, rows: list[Method], ca: bytes | None, kind: Kind | None) -> None:
        limiter = RateLimiter(10_000, 10_000)
        gate = Gate(ca, kind, self.denylist, limiter, self.refusals.append)
        root = b"" if ca else self.pki.root.certificate_pem
        tls = ServerCredentials(self._server.chain_pem + root, self._server.key_pem, ca)
        address = f"127.0.0.1:{0 if self._listeners else self._port}"
        self._listeners.append(await listen(address, tls.credentials, gate.generic_handler(rows)))

    async def stop(self) -> None:
        """Ends at once, as a killed coordinator does."""
        for listener in self._listeners:
            await listener.server.stop(0)
        self._listeners.clear()

    @property
    def fleet(self) -> str:
        return f"localhost:{self._listeners[0].port}"

    @property
    def port(self) -> int:
        return self._listeners[0].port

    def invite(self, state: str = "fresh") -> str:
        token = make_token()
        self.tokens[token_hash(token)] = state
        address = f"localhost:{self._listeners[1].port}"
        return Invite(address, token, bytes.fromhex(self.pki.servers.fingerprint)).encode()

    async def session(self, seconds: float = PATIENCE_S) -> Session:
        """Waits for the next session that a node opens."""
        return await asyncio.wait_for(self._sessions.get(), seconds)

    async def reply(self, seconds: float = PATIENCE_S) -> Header:
        """Waits for the next reply."""
        return await asyncio.wait_for(self.replies.get(), seconds)

    async def run_answer(self, seconds: float = PATIENCE_S) -> tuple[int, bool, str]:
        """Waits for the next answer to an offer: (run, accepted, reason)."""
        return await asyncio.wait_for(self.answers.get(), seconds)

    async def _session(self, call: Call) -> None:
        frame = await call.receive(NodeFrame)
        assert frame is not None
        session = Session(self, frame.hello, call.caller().serial)
        writer = asyncio.create_task(self._write(call, session))
        if self.refuse_next is not None:
            session.refuse(*self.refuse_next)
            await writer
            return
        if self._latest is not None:
            why = ("replaced", "a newer session has taken over")
            asyncio.get_running_loop().call_later(self.replace_after_s, self._latest.refuse, *why)
        self._latest = session
        session.send(welcome=Welcome(node_id=NODE_ID, name="clinic-1", software="fake"))
        self._sessions.put_nowait(session)
        reader = asyncio.create_task(self._read(call, session))
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.ended.set()
            writer.cancel()
            reader.cancel()

    async def _write(self, call: Call, session: Session) -> None:
        while (frame := await session.outgoing.get()) is not None:
            await call.send(frame)

    async def _read(self, call: Call, session: Session) -> None:
        while (frame := await call.receive(NodeFrame)) is not None:
            match frame.WhichOneof("kind"):
                case "reply":
                    self.replies.put_nowait(frame.reply)
                    if self.auto_ack:
                        session.ack(frame.reply.reply_to)
                case "run_answer":
                    answer = frame.run_answer
                    self.answers.put_nowait((answer.run_id, answer.accepted, answer.reason))

    async def _fetch(self, call: Call, request: FetchRequest) -> None:
        self.fetched.append((request.digest, request.first_chunk))
        if request.digest not in self.contents:
            raise ProtocolError(call.who, "no-content", "there is no such content")
        manifest, content = self.contents[request.digest]
        stall_at, self.stall_at = self.stall_at, None
        if stall_at is not None:
            for start in range(0, stall_at * CHUNK_BYTES, CHUNK_BYTES):
                await call.write(encode_chunk(content.view()[start : start + CHUNK_BYTES]))
            await asyncio.Event().wait()
        await serve_fetch(call, content.view(), manifest, request.first_chunk)

    async def _store(self, call: Call) -> None:
        def admit(reply_to: str, manifest: Manifest) -> int | None:
            self.stores.append(reply_to)
            held = self.stored.get(reply_to)
            return None if held is not None and Manifest.of(held.view()) == manifest else 0

        async def keep(reply_to: str, manifest: Manifest, content: Blob) -> None:
            manifest.check(content.view())
            self.stored[reply_to] = content

        async def read() -> bytes | None:
            if self.stall_store_at == self.chunks_stored:
                self.stall_store_at = None
                self.stalled.set()
                await asyncio.Event().wait()
            data = await call.read()
            self.chunks_stored += data is not None and len(data) >= CHUNK_BYTES
            return data

        await serve_store(replace(call, read=read), self._uploads, admit, keep)

    async def _renew(self, call: Call, request: RenewRequest) -> RenewReply:
        self.renewals += 1
        chain = self._issue(request.csr_der, call.caller().name)
        reply = RenewReply(chain_pem=chain, servers_ca_pem=self.pki.servers.certificate_pem)
        self.spoil_renewal(reply)
        await asyncio.sleep(0)  # so that the gate sees what the test has changed
        return reply

    async def _enrol(self, call: Call, request: EnrolRequest) -> EnrolReply:
        state = self.tokens.get(token_hash(request.token), "unknown")
        if state != "fresh":
            raise IdentityError(f"token-{state}", "this invite cannot be used")
        transcript = enrolment_transcript(
            token_hash(request.token), request.csr_der, request.signing_key
        )
        check_proof(request.signing_key, transcript, request.signing_proof)
        name = f"{len(self.enrolled) + 1:032x}"
        chain_pem = self._issue(request.csr_der, name)
        self.tokens[token_hash(request.token)] = "used"
        self.enrolled.append(request)
        reply = EnrolReply(
            node_id=NODE_ID,
            name="clinic-1",
            spiffe_id=f"spiffe://fed.example/node/{name}",
            chain_pem=chain_pem,
            servers_ca_pem=self.pki.servers.certificate_pem,
            root_pem=self.pki.root.certificate_pem,
            fleet_address=self.fleet,
        )
        self.spoil(reply)
        return reply

    def _issue(self, csr_der: bytes, name: str) -> bytes:
        return issue(
            self.pki.nodes,
            csr_der,
            kind=Kind.NODE,
            name=name,
            lifetime=self._lifetime,
            now=self._issued_at(),
        )


def make_node(
    directory: Path,
    pki: Pki,
    address: str,
    *,
    leaf: Leaf | None = None,
    settings: str = "schema = 1\n",
) -> Enrolment:
    """Writes the directory of a node that has joined, without any connection."""
    directory.mkdir(mode=0o700, parents=True)
    leaf = leaf or pki.node()
    begins = load_certificate(leaf.chain_pem).not_valid_before_utc
    record = Record(
        node_id=NODE_ID,
        name="clinic-1",
        spiffe_id=leaf.spiffe_id,
        fleet_address=address,
        root_pinned=True,
        joined_at=begins.timestamp(),
    )
    with Draft(directory) as draft:
        draft.write_keys(leaf.key_pem, signing_key_pem(make_signing_key()))
        draft.commit(
            record,
            Bundle(leaf.chain_pem, pki.servers.certificate_pem, pki.root.certificate_pem),
        )
    (directory / FILE_NAME).write_text(settings)
    return Enrolment.load(directory)
