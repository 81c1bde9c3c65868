"""The agent's middle on loopback: desk and uplink, with links and a host that the test makes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

from fedsec.wire.blobs import Blob
from fedsec.wire.channels import open_channel
from fedsec.wire.content import Manifest
from fedsec.wire.credentials import node_credentials
from fedsec.wire.generated.fleet_pb2 import CoordinatorFrame
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import new_message_id, reply_failure
from fedsec_client.desk import Desk
from fedsec_client.link import Link, LinkLostError, Uplink
from fedsec_client.runhost import Reply, Room, RunHost
from fedsec_client.settings import NodeSettings
from fedsec_sim.faultproxy import FaultProxy
from tests.clients.coordinator import NODE_ID, RUN_ID, FakeCoordinator, Session

SKELETON = b"\n\x07\n\x01m\x12\x02\n\x00"


def instruction(run_id: int = RUN_ID, ttl: float = 60.0) -> Header:
    return Header(
        message_id=new_message_id(),
        run_id=run_id,
        src_node_id=1,
        dst_node_id=NODE_ID,
        created_at=1.0,  # by a clock that is far behind ours
        ttl=ttl,
        message_type="train",
    )


@dataclass
class Host:
    """Stands for a run with its worker: answers with content of the test's choice."""

    answer: Callable[[Header, bytes], Awaitable[bytes]]
    seen: list[bytes] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def execute(
        self, message: Header, content: Blob | None, *, due: float, room: Room
    ) -> Reply:
        await room()
        given = bytes(content.view()) if content else b""
        self.seen.append(given)
        try:
            body = await self.answer(message, given)
        except asyncio.CancelledError:
            self.cancelled.append(message.message_id)
            raise
        reply = reply_failure(message, 0, "")
        reply.ClearField("failure")
        reply.created_at = 2.0
        if not body:
            return Reply(reply)
        reply.bulk.CopyFrom(Manifest.of(body).to_proto())
        return Reply(reply, Blob.write([body]))


class Node:
    """The agent's middle: an uplink and a desk, with links that the test makes."""

    def __init__(self, coordinator: FakeCoordinator, address: str, limits: str = "") -> None:
        self.coordinator = coordinator
        self.address = address
        leaf = coordinator.pki.node()
        self._credentials = node_credentials(
            coordinator.pki.servers.certificate_pem, leaf.chain_pem, leaf.key_pem
        )
        self.host = Host(doubled)
        self.uplink = Uplink()
        settings = NodeSettings.parse(f"schema = 1\n[limits]\n{limits}")
        self.desk = Desk(self.uplink, self._host_of, settings.limits)
        self._readers: list[asyncio.Task[None]] = []

    def _host_of(self, run_id: int) -> RunHost | None:
        return cast("RunHost", self.host) if run_id == RUN_ID else None

    async def connect(self) -> tuple[Link, Session]:
        link = Link(open_channel(self.address, self._credentials))
        await link.open(self.desk.held)
        before = self.uplink.switch(link)
        self._readers.append(asyncio.create_task(self._read(link)))
        if before is not None:
            self._readers.append(asyncio.create_task(before.retire()))
        return link, await self.coordinator.session()

    async def _read(self, link: Link) -> None:
        with suppress(LinkLostError):
            await link.run(self._on_frame)
        self.uplink.drop(link)
        await link.retire()

    def _on_frame(self, frame: CoordinatorFrame) -> None:
        match frame.WhichOneof("kind"):
            case "deliver":
                self.desk.deliver(frame.deliver)
            case "ack":
                self.desk.acknowledge(frame.ack.message_id, frame.ack.refused)
            case "cancel":
                self.desk.cancel(frame.cancel.message_id)

    async def close(self) -> None:
        await self.desk.close()
        if self.uplink.link is not None:
            await self.uplink.link.close()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)


async def doubled(message: Header, given: bytes) -> bytes:
    return given + given


@asynccontextmanager
async def meeting(limits: str = "") -> AsyncIterator[tuple[FakeCoordinator, Node]]:
    async with FakeCoordinator() as coordinator:
        node = Node(coordinator, coordinator.fleet, limits)
        try:
            yield coordinator, node
        finally:
            await node.close()


def stored(coordinator: FakeCoordinator, message: Header) -> bytes:
    return bytes(coordinator.stored[message.message_id].view())


@asynccontextmanager
async def shaky() -> AsyncIterator[tuple[FakeCoordinator, Node, FaultProxy]]:
    async with FakeCoordinator() as coordinator:
        with FaultProxy(f"127.0.0.1:{coordinator.port}") as proxy:
            node = Node(coordinator, f"localhost:{proxy.address.rpartition(':')[2]}")
            try:
                yield coordinator, node, proxy
            finally:
                await node.close()
