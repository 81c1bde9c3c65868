"""An enrolled node that speaks the protocol by itself, so that it can answer wrongly.

It runs on a thread of its own. What it answers in a round is for the test to say.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
import numpy as np
from flwr.app import RecordDict

from fedsec.errors import FedsecError
from fedsec.flower.messages import read_instruction, train_reply
from fedsec.wire.blobs import BlobWriter
from fedsec.wire.channels import open_channel
from fedsec.wire.content import Manifest
from fedsec.wire.credentials import node_credentials
from fedsec.wire.generated.fleet_pb2 import CoordinatorFrame, Hello, NodeFrame, RunAnswer
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import new_message_id
from fedsec.wire.records import decode_records, encode_records
from fedsec.wire.streams import fetch, store
from fedsec_client.enrolment import Enrolment
from fedsec_client.link import SESSION
from fedsec_client.versions import protocol_version


@dataclass(frozen=True)
class Asked:
    """An instruction to train."""

    header: Header
    round: int
    weights: np.ndarray


@dataclass(frozen=True)
class Reply:
    """A reply before it is sent, so that a test can spoil any part of it."""

    header: Header
    bulk: bytes


Answer = Callable[["HostileNode", Asked], Awaitable[None]]


def reply_with(asked: Asked, records: RecordDict) -> Reply:
    """Returns a well-formed reply that carries `records`."""
    skeleton, bodies = encode_records(records)
    header = Header(
        message_id=new_message_id(),
        reply_to=asked.header.message_id,
        run_id=asked.header.run_id,
        src_node_id=asked.header.dst_node_id,
        dst_node_id=asked.header.src_node_id,
        group_id=asked.header.group_id,
        created_at=asked.header.created_at,
        ttl=asked.header.ttl,
        message_type=asked.header.message_type,
        skeleton=skeleton,
    )
    bulk = b"".join(bytes(body) for body in bodies)
    if bulk:
        header.bulk.CopyFrom(Manifest.of(bulk).to_proto())
    return Reply(header, bulk)


def update_reply(asked: Asked, vector: np.ndarray) -> Reply:
    """Returns a reply as the built-in app makes it."""
    return reply_with(asked, train_reply(vector, examples=2, loss=1.0))


@dataclass
class HostileNode:
    """The node that joined in `directory`.

    Args:
        directory: With an identity.
        usual: What it does in a round that is not in `special`.
        special: What it does in some rounds.
        loop: That runs in another thread, for many nodes; None: one of its own.

    Attributes:
        acks: Refusals of the coordinator by instruction; "" where it took the answer.
        errors: What went wrong on the node's own side.
        refusals: What a test's answer was refused with where a refusal is expected.
        asked: Instructions by round.
    """

    directory: Path
    usual: Answer
    special: Mapping[int, Answer]
    loop: asyncio.AbstractEventLoop | None = None
    acks: list[tuple[str, str]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    refusals: list[FedsecError] = field(default_factory=list)
    asked: dict[int, Asked] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._loop = self.loop or asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hostile-node")
        if self.loop is None:
            self._thread.start()
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._session = asyncio.run_coroutine_threadsafe(self._serve(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        self._session.cancel()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        if self.loop is not None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def send(self, reply: Reply) -> None:
        """Sends a reply, its content first."""
        if reply.bulk:
            manifest = Manifest.from_proto(reply.header.bulk, 1 << 40)
            await store(self._channel, reply.header.reply_to, manifest, memoryview(reply.bulk))
        await self.send_frame(NodeFrame(reply=reply.header))

    async def send_frame(self, frame: NodeFrame) -> None:
        async with self._writing:
            await self._call.write(frame.SerializeToString())

    async def acknowledged(self, asked: Asked, count: int) -> list[str]:
        """Waits for `count` acks of an instruction; returns their refusals."""
        async with asyncio.timeout(30):
            while True:
                found = [why for which, why in self.acks if which == asked.header.message_id]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.01)

    async def _end(self) -> None:
        for task in set(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._over.wait()

    async def _serve(self) -> None:
        enrolment = Enrolment.load(self.directory)
        held = enrolment.credentials
        credentials = node_credentials(held.servers_ca_pem, held.chain_pem, held.key_pem)
        self._writing = asyncio.Lock()
        try:
            async with open_channel(enrolment.record.fleet_address, credentials) as channel:
                self._channel = channel
                self._call = channel.stream_stream(SESSION)()
                await self.send_frame(NodeFrame(hello=Hello(version=protocol_version())))
                while isinstance(data := await self._read(), bytes):
                    await self._on_frame(CoordinatorFrame.FromString(data))
        finally:
            self._over.set()

    async def _read(self) -> object:
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            self.errors.append(error)
            return None

    async def _on_frame(self, frame: CoordinatorFrame) -> None:
        match frame.WhichOneof("kind"):
            case "run_offer":
                answer = RunAnswer(run_id=frame.run_offer.run_id, accepted=True)
                await self.send_frame(NodeFrame(run_answer=answer))
            case "ack":
                self.acks.append((frame.ack.message_id, frame.ack.refused))
            case "deliver":
                task = asyncio.create_task(self._on_deliver(frame.deliver))
                self._tasks.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

    async def _on_deliver(self, header: Header) -> None:
        manifest = Manifest.from_proto(header.bulk, 1 << 30)
        writer = BlobWriter(manifest.length)
        await fetch(self._channel, manifest.digest, manifest, header.run_id, writer)
        with writer.finish() as blob:
            instruction = read_instruction(decode_records(header.skeleton, blob.view()))
            weights = instruction.arrays["weights"].copy()
        asked = Asked(header, instruction.heading.round, weights)
        self.asked[asked.round] = asked
        await self.special.get(asked.round, self.usual)(self, asked)
