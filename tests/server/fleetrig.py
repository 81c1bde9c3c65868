"""A fleet port on loopback with everything behind it but run processes, and nodes that obey a test.

The nodes speak real gRPC over real mutual TLS; what a run process would do, the test does.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from fedsec.identity.names import Kind
from fedsec.wire import streams
from fedsec.wire.blobs import Blob, BlobWriter
from fedsec.wire.content import Manifest
from fedsec.wire.denylist import Denylist
from fedsec.wire.generated.fleet_pb2 import (
    CoordinatorFrame,
    Hello,
    NodeFrame,
    RunAnswer,
    Version,
)
from fedsec.wire.generated.local_pb2 import Nodes
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import COORDINATOR_NODE_ID, new_message_id
from fedsec.wire.uploads import UploadLimits, Uploads
from fedsec_server.events import Recorder
from fedsec_server.exchange import Exchange
from fedsec_server.fleet import FleetService
from fedsec_server.journal import Journal
from fedsec_server.state.store import Store
from fedsec_server.state.values import CertificateRecord, Event, NodeRecord
from tests.pki import Leaf, Pki, make_pki
from tests.wire.gated import World, gated

RUN = 4_711_000_001
PLAN = "the plan's text"
SESSION = "/fedsec.v1.Fleet/Session"
MAX_CONTENT = 8 << 20


def enrol(store: Store, name: str, leaf: Leaf) -> NodeRecord:
    """Puts an enrolled node, whose certificate is `leaf`, into the database."""
    token = hashlib.sha256(secrets.token_bytes(8)).digest()
    store.add_invite(
        name,
        token,
        spiffe_id=leaf.spiffe_id,
        created_by="test",
        now=0.0,
        expires_at=100.0,
        max_nodes=1000,
    )
    serial = leaf.certificate.serial_number
    return store.enrol_node(
        token,
        signing_key=secrets.token_bytes(32),
        root_pinned=True,
        now=1.0,
        issue=lambda node: CertificateRecord(serial, node.spiffe_id, 0.0, 1e12),
    )


class FakeRun:
    """What the exchange tells a run process, kept in lists."""

    def __init__(self) -> None:
        self.told: list[Nodes] = []
        self.replies: list[tuple[Header, Blob | None]] = []
        self._news = asyncio.Event()

    def nodes(self, nodes: Nodes) -> None:
        self.told.append(nodes)
        self._news.set()

    def reply(self, header: Header, content: Blob | None) -> None:
        self.replies.append((header, content))
        self._news.set()

    @property
    def ready(self) -> list[str]:
        return [node.name for node in self.told[-1].ready] if self.told else []

    async def until_ready(self, *names: str) -> None:
        await self._until(lambda: self.ready == sorted(names) or set(self.ready) == set(names))

    async def until_replies(self, count: int) -> list[Header]:
        await self._until(lambda: len(self.replies) >= count)
        return [header for header, _ in self.replies]

    async def _until(self, condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()


class ScriptedNode:
    """A node whose every step the test decides."""

    def __init__(self, record: NodeRecord, channel: grpc.aio.Channel) -> None:
        self.record = record
        self.channel = channel
        self.call: Any = None
        self._early: list[CoordinatorFrame] = []

    @property
    def node_id(self) -> int:
        return self.record.node_id

    async def connect(
        self, held: Sequence[str] = (), version: tuple[int, int] = (1, 0)
    ) -> CoordinatorFrame:
        """Begins a control stream; returns the first frame of the coordinator."""
        self.call = self.channel.stream_stream(SESSION)()
        hello = Hello(version=Version(major=version[0], minor=version[1]), held=held)
        await self.send(NodeFrame(hello=hello))
        return await self.next()

    async def send(self, frame: NodeFrame) -> None:
        await self.call.write(frame.SerializeToString())

    async def next(self, seconds: float = 10.0) -> CoordinatorFrame:
        """Returns the next frame, whatever it is."""
        async with asyncio.timeout(seconds):
            data = await self.call.read()
        assert isinstance(data, bytes), "the coordinator ended the session"
        return CoordinatorFrame.FromString(data)

    async def expect(self, kind: str) -> Any:
        """Returns what the next frame of this kind holds; frames before it wait for their turn."""
        for i, frame in enumerate(self._early):
            if frame.WhichOneof("kind") == kind:
                return getattr(self._early.pop(i), kind)
        while True:
            frame = await self.next()
            if frame.WhichOneof("kind") == kind:
                return getattr(frame, kind)
            self._early.append(frame)

    async def accept(self, run_id: int = RUN) -> None:
        await self.send(NodeFrame(run_answer=RunAnswer(run_id=run_id, accepted=True)))

    async def refuse(self, reason: str, run_id: int = RUN) -> None:
        await self.send(NodeFrame(run_answer=RunAnswer(run_id=run_id, reason=reason)))

    def answer(self, to: Header, **changes: Any) -> Header:
        """Returns a good reply without content, but for `changes`."""
        fields: dict[str, Any] = {
            "message_id": new_message_id(),
            "reply_to": to.message_id,
            "run_id": to.run_id,
            "src_node_id": self.node_id,
            "dst_node_id": COORDINATOR_NODE_ID,
            "created_at": to.created_at,
            "ttl": to.ttl,
            "message_type": to.message_type,
        }
        return Header(**{**fields, **changes})

    async def reply(self, to: Header, **changes: Any) -> None:
        await self.send(NodeFrame(reply=self.answer(to, **changes)))

    async def fetch(self, header: Header, run_id: int = RUN) -> bytes:
        manifest = Manifest.from_proto(header.bulk, MAX_CONTENT)
        with BlobWriter(manifest.length) as writer:
            await streams.fetch(self.channel, manifest.digest, manifest, run_id, writer)
            with writer.finish() as blob:
                return bytes(blob.view())

    async def store(self, reply_to: str, data: bytes) -> Manifest:
        manifest = Manifest.of(data)
        await streams.store(self.channel, reply_to, manifest, memoryview(data))
        return manifest

    async def hang_up(self) -> None:
        await self.call.done_writing()

    async def vanish(self) -> None:
        """Cuts the connection without a word."""
        self.call.cancel()
        await self.channel.close()


@dataclass
class Rig:
    """A fleet port, what lies behind it, and what was recorded."""

    world: World
    store: Store
    recorder: Recorder
    journal: Journal
    exchange: Exchange
    uploads: Uploads
    run: FakeRun = field(default_factory=FakeRun)
    leaves: dict[str, Leaf] = field(default_factory=dict)
    records: dict[str, NodeRecord] = field(default_factory=dict)

    def enrol(self, name: str) -> NodeRecord:
        leaf = self.world.pki.node()
        self.leaves[name], self.records[name] = leaf, enrol(self.store, name, leaf)
        return self.records[name]

    def node(self, name: str) -> ScriptedNode:
        """Returns the node with a connection of its own; enrols it if it is new."""
        if name not in self.records:
            self.enrol(name)
        return ScriptedNode(self.records[name], self.world.channel(self.leaves[name]))

    async def ready(self, name: str, held: Sequence[str] = ()) -> ScriptedNode:
        """Returns a node that is connected and accepted the open run."""
        node = self.node(name)
        await node.connect(held)
        assert (await node.expect("run_offer")).plan == PLAN
        await node.accept()
        await self.run._until(lambda: name in self.run.ready)
        return node

    def open_run(self, reconnect_s: float = 3.0, run_id: int = RUN) -> FakeRun:
        self.run = FakeRun()
        self.exchange.open_run(run_id, PLAN, reconnect_s, self.run)
        return self.run

    def push(
        self,
        node: ScriptedNode,
        content: bytes = b"",
        *,
        seconds: float = 30.0,
        run_id: int = RUN,
    ) -> Header:
        """Sends a message of the run to a node, as a run process would."""
        header = instruction(node.node_id, run_id=run_id)
        blob = None
        if content:
            blob = Blob.write([content])
            header.bulk.CopyFrom(Manifest.of(content).to_proto())
        self.exchange.push(run_id, header, blob, seconds)
        return header

    async def events(self, kind: str) -> list[Event]:
        """Returns what was recorded of a kind so far."""
        await self.journal.write(lambda: None)
        return [event for event in self.store.events() if event.kind == kind]


def instruction(node_id: int, run_id: int = RUN) -> Header:
    return Header(
        message_id=new_message_id(),
        run_id=run_id,
        src_node_id=COORDINATOR_NODE_ID,
        dst_node_id=node_id,
        created_at=1e9,
        ttl=100.0,
        message_type="train",
    )


@asynccontextmanager
async def fleet(
    directory: Path, *, pki: Pki | None = None, limits: UploadLimits | None = None
) -> AsyncIterator[Rig]:
    """Starts a fleet port with a fresh database."""
    store = Store.open(directory / "state.sqlite")
    recorder = Recorder(store)
    journal = Journal(recorder)
    exchange = Exchange(journal, max_content=MAX_CONTENT, max_stored=4)
    limits = limits or UploadLimits(max_content=MAX_CONTENT)
    uploads = Uploads(limits, elsewhere=exchange.stored_bytes)
    pki = pki or make_pki()

    async def renew(_principal: object, _request: object) -> Any:
        raise NotImplementedError("no test of this rig renews")

    service = FleetService(
        exchange,
        store=store,
        journal=journal,
        denylist=Denylist(),
        uploads=uploads,
        renew=renew,
    )
    async with gated(service.methods(), pki=pki, kind=Kind.NODE) as world:
        service._denylist = world.denylist  # the gate's, which is made after its methods
        yield Rig(world, store, recorder, journal, exchange, uploads)
    await recorder.settle()
    await journal.close()
    store.close()
