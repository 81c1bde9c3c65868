"""From delivery to acknowledgement, over real connections that break: nothing lost, nothing twice."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest

from fedsec.wire.blobs import Blob
from fedsec.wire.content import Manifest
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import ErrorCode, new_message_id
from fedsec_client.desk import MAX_MESSAGES
from tests.clients.coordinator import RUN_ID
from tests.clients.noderig import instruction, meeting, shaky, stored
from tests.clients.waiting import until

LARGE = 5 << 20


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 120))


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
            await asyncio.wait_for(coordinator.stalled.wait(), 60)
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
            await asyncio.wait_for(entered.wait(), 60)
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
