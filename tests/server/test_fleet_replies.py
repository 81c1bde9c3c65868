"""Replies and contents at the fleet port: what is taken, what is refused, what is left behind."""

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from fedsec.wire.content import Manifest
from fedsec.wire.generated.fleet_pb2 import FetchRequest, NodeFrame
from fedsec.wire.generated.message_pb2 import Failure, Header
from fedsec.wire.headers import ErrorCode, new_message_id
from fedsec.wire.streams import FETCH
from fedsec.wire.uploads import UploadLimits
from fedsec_server import fleet as fleet_module
from tests.server.fleetrig import RUN, Rig, ScriptedNode, fleet
from tests.server.test_fleet import BIG, refused_read
from tests.wire.gated import run


def wrong_replies(node: ScriptedNode, to: Header) -> dict[str, Header]:
    return {
        "bad-header": node.answer(to, message_id="not hex"),
        "wrong-run": node.answer(to, run_id=to.run_id + 1),
        "wrong-address": node.answer(to, src_node_id=node.node_id + 1),
        "content-missing": node.answer(to, bulk=Manifest.of(b"never sent").to_proto()),
        "too-large": node.answer(to, bulk=Manifest(9 << 20, tuple([b"x" * 32] * 9)).to_proto()),
    }


@pytest.mark.parametrize(
    "code", ["bad-header", "wrong-run", "wrong-address", "content-missing", "too-large"]
)
def test_a_wrong_reply_is_refused_and_an_error_takes_its_place(tmp_path: Path, code: str) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run()
            node = await rig.ready("north")
            rig.push(node)
            header = await node.expect("deliver")
            await node.send(NodeFrame(reply=wrong_replies(node, header)[code]))
            ack = await node.expect("ack")
            assert ack.message_id == header.message_id
            assert ack.refused.startswith(f"{code}: ")
            (failure,) = await side.until_replies(1)
            assert failure.reply_to == header.message_id
            assert failure.src_node_id == node.node_id
            assert failure.failure.code == ErrorCode.REPLY_MESSAGE_UNAVAILABLE
            assert failure.failure.reason.startswith("the reply of node north was refused: ")
            (event,) = await rig.events("reply-refused")
            assert (event.detail["node"], event.detail["code"]) == ("north", code)
            # The session goes on.
            rig.push(node)
            await node.reply(await node.expect("deliver"))
            assert not (await side.until_replies(2))[1].HasField("failure")

    run(main())


def test_nobody_answers_for_another_node(tmp_path: Path) -> None:
    """The identity is the certificate's; what the body says cannot change it."""

    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run()
            north, south = await rig.ready("north"), await rig.ready("south")
            rig.push(north, BIG)
            header = await north.expect("deliver")
            await south.reply(header, src_node_id=north.node_id)
            ack = await south.expect("ack")
            assert ack.refused.startswith("not-yours: ")
            with pytest.raises(grpc.aio.AioRpcError, match="not-yours"):
                await south.store(header.message_id, b"forged")
            with pytest.raises(grpc.aio.AioRpcError, match="no-content"):
                await south.fetch(header)
            assert side.replies == []
            (event,) = await rig.events("reply-refused")
            assert event.subject == rig.leaves["south"].spiffe_id
            await north.reply(header)
            (reply,) = await side.until_replies(1)
            assert not reply.HasField("failure")

    run(main())


def test_the_first_of_two_replies_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run()
            node = await rig.ready("north")
            rig.push(node)
            header = await node.expect("deliver")
            await node.reply(header, group_id="first")
            assert (await node.expect("ack")).refused == ""
            await node.reply(header, group_id="second")
            assert (await node.expect("ack")).refused.startswith("duplicate: ")
            assert [reply.group_id for reply, _ in side.replies] == ["first"]

    run(main())


def test_a_late_reply_has_no_effect(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run()
            node = await rig.ready("north")
            rig.push(node, BIG, seconds=0.05)
            header = await node.expect("deliver")
            (failure,) = await side.until_replies(1)
            assert failure.failure.code == ErrorCode.REPLY_MESSAGE_UNAVAILABLE
            assert failure.failure.reason == "node north did not answer by the deadline"
            assert (await node.expect("cancel")).message_id == header.message_id
            await node.reply(header)
            assert (await node.expect("ack")).refused.startswith("late: ")
            with pytest.raises(grpc.aio.AioRpcError, match="late"):
                await node.store(header.message_id, b"too late")
            with pytest.raises(grpc.aio.AioRpcError, match="no-content"):
                await node.fetch(header)
            assert len(side.replies) == 1
            (event,) = await rig.events("answer-failed")
            assert (event.detail["node"], event.detail["code"]) == ("north", "deadline")

    run(main())


def test_too_many_refused_replies_end_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "_REFUSALS_BURST", 3)

    async def main() -> None:
        async with fleet(tmp_path) as rig:
            rig.open_run()
            node, other = await rig.ready("north"), await rig.ready("south")
            nothing = Header(message_id=new_message_id(), message_type="train", reply_to="0" * 32)
            for _ in range(4):
                await node.send(NodeFrame(reply=nothing))
            status, details = await refused_read(node)
            assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details.startswith("rate: ")
            assert len(await rig.events("reply-refused")) == 4
            rig.push(other)
            await other.reply(await other.expect("deliver"))
            await rig.run.until_replies(1)

    run(main())


def test_content_is_fetched_by_who_was_sent_it_from_any_chunk(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            rig.open_run()
            node = await rig.ready("north")
            rig.push(node, BIG)
            header = await node.expect("deliver")
            digest = Manifest.of(BIG).digest

            async def fetch(**request: Any) -> list[bytes]:
                method: Any = node.channel.unary_stream(FETCH)
                call = method(FetchRequest(**request).SerializeToString())
                return [bytes(data) async for data in call]

            assert len(await fetch(digest=digest, run_id=RUN, first_chunk=0)) == 4
            assert len(await fetch(digest=digest, run_id=RUN, first_chunk=3)) == 1
            assert await fetch(digest=digest, run_id=RUN, first_chunk=4) == []
            for bad in (
                {"digest": digest, "run_id": RUN + 1, "first_chunk": 0},
                {"digest": b"x" * 32, "run_id": RUN, "first_chunk": 0},
                {"digest": digest, "run_id": RUN, "first_chunk": 5},
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await fetch(**bad)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert await node.fetch(header) == BIG

    run(main())


def test_content_without_a_reply_is_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run()
            node = await rig.ready("north")
            headers = [rig.push(node) for _ in range(5)]
            for _ in headers:
                await node.expect("deliver")
            for header in headers[:4]:
                await node.store(header.message_id, b"one")
            await node.store(headers[0].message_id, b"one")  # again: it is there
            await node.store(headers[0].message_id, b"two")  # anew: takes its place
            with pytest.raises(grpc.aio.AioRpcError, match="too-many-uploads"):
                await node.store(headers[4].message_id, b"five")
            await node.reply(headers[0], bulk=Manifest.of(b"two").to_proto())
            await side.until_replies(1)
            await node.store(headers[4].message_id, b"five")
            rig.exchange.close_run(RUN, "over")
            assert not rig.exchange._stored

    run(main())


def test_what_one_node_stores_is_bounded_in_bytes_and_others_are_not_touched(
    tmp_path: Path,
) -> None:
    limits = UploadLimits(max_content=len(BIG), max_partial=2 * len(BIG))

    async def main() -> None:
        async with fleet(tmp_path, limits=limits) as rig:
            side = rig.open_run()
            node, other = await rig.ready("north"), await rig.ready("south")
            headers = [rig.push(node) for _ in range(3)]
            for _ in headers:
                await node.expect("deliver")
            for header in headers[:2]:
                await node.store(header.message_id, BIG)
            with pytest.raises(grpc.aio.AioRpcError, match=f"and {2 * len(BIG)} bytes are kept"):
                await node.store(headers[2].message_id, BIG)
            theirs = rig.push(other)
            await other.expect("deliver")
            await other.store(theirs.message_id, BIG)
            await node.reply(headers[0], bulk=Manifest.of(BIG).to_proto())
            await side.until_replies(1)  # which is the run's now, and counts no more
            await node.store(headers[2].message_id, BIG)

    run(main())


def test_what_all_nodes_store_is_bounded_and_waits_for_room(tmp_path: Path) -> None:
    limits = UploadLimits(max_content=len(BIG), max_partial=len(BIG), max_total=2 * len(BIG))

    async def main() -> None:
        async with fleet(tmp_path, limits=limits) as rig:
            side = rig.open_run()
            nodes = [await rig.ready(name) for name in ("north", "south", "west")]
            headers = [rig.push(node) for node in nodes]
            for node in nodes:
                await node.expect("deliver")
            for place in range(2):
                await nodes[place].store(headers[place].message_id, BIG)
            with pytest.raises(grpc.aio.AioRpcError, match="no-room: ") as caught:
                await nodes[2].store(headers[2].message_id, BIG)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await nodes[0].reply(headers[0], bulk=Manifest.of(BIG).to_proto())
            await side.until_replies(1)  # which is the run's now, and leaves room
            await nodes[2].store(headers[2].message_id, BIG)

    run(main())


def test_a_failure_of_the_node_is_passed_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run()
            node = await rig.ready("north")
            rig.push(node)
            header = await node.expect("deliver")
            failure = Failure(code=ErrorCode.CLIENT_APP_CRASHED, reason="out of memory")
            await node.reply(header, failure=failure)
            (reply,) = await side.until_replies(1)
            assert reply.failure == failure

    run(main())


def exchange_is_empty(rig: Rig) -> bool:
    return not rig.exchange._stored and len(rig.exchange._contents) == 0


def test_nothing_is_left_of_a_run_that_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            rig.open_run()
            node = await rig.ready("north")
            rig.push(node, BIG)
            header = await node.expect("deliver")
            await node.store(header.message_id, b"result")
            rig.exchange.close_run(RUN, "stopped")
            assert exchange_is_empty(rig)
            await node.reply(header, bulk=Manifest.of(b"result").to_proto())
            assert (await node.expect("ack")).refused.startswith("withdrawn: ")

    run(main())
