"""From delivery to acknowledgement, over real connections that break: nothing lost, nothing twice."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from fedsec.wire.blobs import Blob
from fedsec.wire.channels import open_channel
from fedsec.wire.content import Manifest
from fedsec.wire.credentials import node_credentials
from fedsec.wire.generated.fleet_pb2 import CoordinatorFrame
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import ErrorCode, new_message_id, reply_failure
from fedsec_client.desk import MAX_MESSAGES, Desk
from fedsec_client.link import Link, LinkLostError, Uplink
from fedsec_client.runhost import Reply, Room, RunHost
from fedsec_client.settings import NodeSettings
from fedsec_sim.faultproxy import FaultProxy
from tests.clients.coordinator import NODE_ID, RUN_ID, FakeCoordinator, Session
from tests.clients.waiting import until

LARGE = 5 << 20
SKELETON = b"\n\x07\n\x01m\x12\x02\n\x00"


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 30))


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


def test_a_message_is_fetched_answered_stored_and_forgotten() -> None:
    async def main() -> None:
        async with meeting() as (coordinator, node):
            _, session = await node.connect()
            body = os.urandom(LARGE)
            message = instruction()
            session.push(message, Blob.write([body]))
            reply = await coordinator.reply()
            assert reply.reply_to == message.message_id
            assert stored(coordinator, message) == body + body
            await until(lambda: not node.desk.held)

    run(main())


def test_a_message_without_content_needs_no_transfer() -> None:
    async def main() -> None:
        async with meeting() as (coordinator, node):
            _, session = await node.connect()
            session.push(instruction())
            await coordinator.reply()
            assert (coordinator.fetched, coordinator.stores) == ([], [])

    run(main())


def test_the_same_content_crosses_the_network_once() -> None:
    async def main() -> None:
        async with meeting() as (coordinator, node):
            _, session = await node.connect()
            body = Blob.write([bytes(LARGE)])
            for _ in range(3):
                session.push(instruction(), body)
                await coordinator.reply()
            assert len(coordinator.fetched) == 1
            assert node.host.seen == [bytes(LARGE)] * 3

    run(main())


def test_a_reply_is_kept_until_it_is_acknowledged_and_sent_again_over_the_next_link() -> None:
    async def main() -> None:
        async with meeting() as (coordinator, node):
            coordinator.auto_ack = False
            _, session = await node.connect()
            message = instruction()
            session.push(message, Blob.write([b"abc"]))
            first = await coordinator.reply()
            session.hang_up()
            await until(lambda: node.uplink.link is None)
            assert node.desk.held == [message.message_id]
            _, again = await node.connect()
            assert list(again.hello.held) == [message.message_id]
            assert await coordinator.reply() == first
            assert stored(coordinator, message) == b"abcabc"
            assert len(node.host.seen) == 1  # it was not worked on twice
            again.ack(message.message_id)
            await until(lambda: not node.desk.held)

    run(main())


def test_a_message_that_is_delivered_again_is_not_worked_on_again() -> None:
    async def main() -> None:
        async with meeting() as (coordinator, node):
            coordinator.auto_ack = False
            _, session = await node.connect()
            message = instruction()
            session.push(message)
            await coordinator.reply()
            session.push(message)
            session.ack(message.message_id)
            await until(lambda: not node.desk.held)
            assert len(node.host.seen) == 1
            assert coordinator.replies.empty()

    run(main())


def test_what_is_cancelled_is_dropped_wherever_it_is() -> None:
    async def main() -> None:
        async with meeting() as (coordinator, node):
            coordinator.auto_ack = False
            _, session = await node.connect()
            at_work, replied = instruction(), instruction()
            session.push(replied)
            await coordinator.reply()
            never = asyncio.Event()

            async def hang(message: Header, given: bytes) -> bytes:
                await never.wait()
                return b""

            node.host.answer = hang
            session.push(at_work)
            await until(lambda: len(node.host.seen) == 2)
            session.cancel(at_work.message_id)
            session.cancel(replied.message_id)
            session.cancel(new_message_id())  # unknown: no harm
            await until(lambda: not node.desk.held)
            assert node.host.cancelled == [at_work.message_id]
            assert coordinator.replies.empty()

    run(main())


def test_the_end_of_a_run_drops_its_messages_and_content() -> None:
    async def main() -> None:
        async with meeting() as (coordinator, node):
            coordinator.auto_ack = False
            _, session = await node.connect()
            body = Blob.write([b"abc"])
            session.push(instruction(), body)
            await coordinator.reply()
            node.desk.end_run(RUN_ID)
            await until(lambda: not node.desk.held)
            session.push(instruction(), body)
            await coordinator.reply()
            assert len(coordinator.fetched) == 2

    run(main())


def failure(reply: Header) -> tuple[int, str]:
    return reply.failure.code, reply.failure.reason


def test_what_cannot_be_done_is_answered() -> None:
    async def main() -> None:
        async with meeting("max_content_mb = 1") as (coordinator, node):
            _, session = await node.connect()
            session.push(instruction(run_id=99))
            code, reason = failure(await coordinator.reply())
            assert (code, reason) == (5, "the node does not take part in the run")
            session.push(instruction(), Blob.write([bytes((1 << 20) + 1)]))
            code, reason = failure(await coordinator.reply())
            assert code == ErrorCode.MESSAGE_UNAVAILABLE
            assert "content of 1048577 bytes, at most 1048576 accepted" in reason
            gone = instruction()
            gone.bulk.CopyFrom(Manifest.of(b"never there").to_proto())
            session.push(gone)
            code, reason = failure(await coordinator.reply())
            assert (code, "no such content" in reason) == (3, True)
            bad = instruction()
            bad.message_type = "nonsense"
            session.push(bad)
            code, reason = failure(await coordinator.reply())
            assert (code, "could not read the message" in reason) == (3, True)
            assert node.host.seen == []

    run(main())


def test_replies_that_nobody_takes_hold_up_further_work() -> None:
    limits = "max_content_mb = 1\ncontent_total_mb = 2"

    async def main() -> None:
        async with meeting(limits) as (coordinator, node):
            coordinator.auto_ack = False
            node.host.answer = lambda *_: _give(bytes(1 << 20))
            _, session = await node.connect()
            messages = [instruction() for _ in range(4)]
            for message in messages:
                session.push(message)
            for _ in range(3):
                await coordinator.reply()
            with pytest.raises(TimeoutError):
                await coordinator.reply(0.2)
            assert len(node.host.seen) == 3  # two fit, and the third has passed the bound
            session.ack(messages[0].message_id)
            await coordinator.reply()
            assert len(node.host.seen) == 4

    run(main())


def test_there_is_an_end_to_what_a_node_holds() -> None:
    async def main() -> None:
        async with meeting() as (coordinator, node):
            never = asyncio.Event()

            async def hang(message: Header, given: bytes) -> bytes:
                await never.wait()
                return b""

            node.host.answer = hang
            _, session = await node.connect()
            for _ in range(MAX_MESSAGES + 1):
                session.push(instruction())
            code, reason = failure(await coordinator.reply())
            assert (code, reason) == (5, f"the node holds {MAX_MESSAGES} messages already")
            await until(lambda: len(node.desk.held) == MAX_MESSAGES)

    run(main())


@asynccontextmanager
async def shaky() -> AsyncIterator[tuple[FakeCoordinator, Node, FaultProxy]]:
    async with FakeCoordinator() as coordinator:
        with FaultProxy(f"127.0.0.1:{coordinator.port}") as proxy:
            node = Node(coordinator, f"localhost:{proxy.address.rpartition(':')[2]}")
            try:
                yield coordinator, node, proxy
            finally:
                await node.close()


def test_a_download_that_is_cut_goes_on_where_it_stopped() -> None:
    async def main() -> None:
        async with shaky() as (coordinator, node, proxy):
            _, session = await node.connect()
            body = os.urandom(LARGE)
            coordinator.stall_at = 2
            session.push(instruction(), Blob.write([body]))
            await until(lambda: proxy.passed["down"] > 2 << 20)
            await asyncio.sleep(0.1)  # for the second chunk to be read
            proxy.cut()
            await until(lambda: node.uplink.link is None)
            await node.connect()
            await coordinator.reply()
            assert proxy.cuts == 1
            assert node.host.seen == [body]
            assert [first for _, first in coordinator.fetched] == [0, 2]

    run(main())


def test_an_upload_that_is_cut_goes_on_where_it_stopped() -> None:
    async def main() -> None:
        async with shaky() as (coordinator, node, proxy):
            _, session = await node.connect()
            coordinator.stall_store_at = 2
            body = os.urandom(LARGE)
            node.host.answer = lambda *_: _give(body)
            session.push(instruction())
            await asyncio.wait_for(coordinator.stalled.wait(), 10)
            proxy.cut()
            await until(lambda: node.uplink.link is None)
            await node.connect()
            reply = await coordinator.reply()
            assert bytes(coordinator.stored[reply.reply_to].view()) == body
            assert len(coordinator.stores) == 2
            assert coordinator.chunks_stored == 5  # what had come was not sent again
            assert proxy.cuts == 1

    run(main())


async def _give(body: bytes) -> bytes:
    return body


def test_a_new_link_takes_over_while_the_old_one_ends_its_transfer() -> None:
    """Make before break: what is on its way over the old connection arrives over it."""

    async def main() -> None:
        async with meeting() as (coordinator, node):
            old, session = await node.connect()
            body = os.urandom(LARGE)
            proceed = asyncio.Event()
            entered = asyncio.Event()

            async def slow(message: Header, given: bytes) -> bytes:
                entered.set()
                await proceed.wait()
                return given

            node.host.answer = slow
            message = instruction()
            session.push(message, Blob.write([body]))
            await asyncio.wait_for(entered.wait(), 10)
            with old.in_use():  # as a transfer does
                new, _ = await node.connect()
                assert node.uplink.link is new
                await until(old.over.is_set)
                await asyncio.sleep(0.05)
                channel_state = old.channel.get_state()
                assert channel_state.name == "READY"  # still there for the transfer
                proceed.set()
                reply = await coordinator.reply()
            assert reply.reply_to == message.message_id
            assert stored(coordinator, message) == body
            await until(lambda: old.channel.get_state().name == "SHUTDOWN")

    run(main())
