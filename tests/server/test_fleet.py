"""The fleet port over real sockets: greetings, deliveries, replies, losses, and what is refused."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.generated.fleet_pb2 import NodeFrame, RunAnswer
from fedsec.wire.headers import ErrorCode
from fedsec_server import exchange as exchange_module
from fedsec_server import fleet as fleet_module
from fedsec_server import versions
from tests.server.fleetrig import RUN, SESSION, ScriptedNode, fleet
from tests.wire.gated import run, until

BIG = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"the last chunk is short"


async def refused_read(node: ScriptedNode) -> tuple[grpc.StatusCode, str]:
    """Reads on until the session ends; returns how."""
    async with asyncio.timeout(10):
        try:
            while await node.call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
    raise AssertionError("the session ended well")


def test_a_message_goes_out_and_its_reply_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run()
            node = await rig.ready("north")
            sent = rig.push(node, BIG)
            header = await node.expect("deliver")
            assert header == sent
            assert await node.fetch(header) == BIG
            manifest = await node.store(header.message_id, BIG[::-1])
            await node.reply(header, bulk=manifest.to_proto())
            ack = await node.expect("ack")
            assert (ack.message_id, ack.refused) == (header.message_id, "")
            ((reply, content),) = side.replies
            assert reply.reply_to == header.message_id
            assert content is not None
            assert bytes(content.view()) == BIG[::-1]
            content.close()
            assert len(rig.exchange._contents) == 0  # nobody needs it any more
            assert not rig.exchange._stored

    run(main())


def test_runs_are_offered_to_who_is_there_and_to_who_comes(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            early = rig.node("early")
            welcome = (await early.connect()).welcome
            assert (welcome.node_id, welcome.name) == (early.node_id, "early")
            side = rig.open_run()
            assert (await early.expect("run_offer")).run_id == RUN
            late = rig.node("late")
            await late.connect()
            assert (await late.expect("run_offer")).run_id == RUN
            await early.accept()
            await late.refuse("task 'x' is not allowed here")
            await until(lambda: bool(side.told) and bool(side.told[-1].refused), 10)
            await side.until_ready("early")
            assert [(r.node.name, r.reason) for r in side.told[-1].refused] == [
                ("late", "task 'x' is not allowed here")
            ]
            (event,) = await rig.events("run-refused")
            assert event.detail["node"] == "late"
            rig.exchange.close_run(RUN, "all done")
            assert (await early.expect("run_end")).reason == "all done"
            assert (await late.expect("run_end")).reason == "all done"

    run(main())


@pytest.mark.parametrize(
    ("theirs", "ours", "sentence"),
    [
        ((1, 3), (1, 4), ""),
        ((1, 2), (1, 4), "upgrade the node"),
        ((1, 5), (1, 4), "upgrade the coordinator"),
        ((2, 4), (1, 4), "upgrade the coordinator"),
        ((0, 4), (1, 4), "upgrade the node"),
    ],
)
def test_versions_are_negotiated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    theirs: tuple[int, int],
    ours: tuple[int, int],
    sentence: str,
) -> None:
    monkeypatch.setattr(versions, "PROTOCOL", ours)

    async def main() -> None:
        async with fleet(tmp_path) as rig:
            node = rig.node("north")
            first = await node.connect(version=theirs)
            if not sentence:
                assert first.welcome.version.minor == ours[1]
                return
            assert first.refused.code == "version"
            assert first.refused.reason == (
                f"the coordinator speaks protocol {ours[0]}.{ours[1]}, "
                f"the node {theirs[0]}.{theirs[1]}: {sentence}"
            )
            assert await node.call.read() is grpc.aio.EOF
            assert not rig.exchange.connected()
            (event,) = await rig.events("session-refused")
            assert sentence in str(event.detail["reason"])

    run(main())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xff\xff\xff", "malformed"),
        (NodeFrame(run_answer=RunAnswer(run_id=RUN)).SerializeToString(), "no-hello"),
        (b"", "no-hello"),
    ],
)
def test_a_session_begins_with_a_hello(tmp_path: Path, frame: bytes, code: str) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            node = rig.node("north")
            node.call = node.channel.stream_stream(SESSION)()
            await node.call.write(frame)
            status, details = await refused_read(node)
            assert status is grpc.StatusCode.INVALID_ARGUMENT
            assert details.startswith(f"{code}: ")
            assert rig.world.codes() == [code]

    run(main())


def test_a_silent_caller_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "HELLO_S", 0.05)

    async def main() -> None:
        async with fleet(tmp_path) as rig:
            node = rig.node("north")
            node.call = node.channel.stream_stream(SESSION)()
            assert (await refused_read(node))[1].startswith("no-hello: ")

    run(main())


def test_a_frame_that_does_not_parse_ends_the_session_with_a_sentence(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            rig.open_run(reconnect_s=0.05)
            node = await rig.ready("north")
            rig.push(node)
            await node.call.write(b"\xff" * 20)
            status, details = await refused_read(node)
            assert (status, details) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "malformed: 20 bytes are no fedsec.v1.NodeFrame",
            )
            assert rig.world.codes() == ["malformed"]
            (failure,) = await rig.run.until_replies(1)
            assert failure.failure.code == ErrorCode.NODE_UNAVAILABLE

    run(main())


def test_a_lost_node_answers_with_an_error_after_its_grace(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run(reconnect_s=0.1)
            node, other = await rig.ready("north"), await rig.ready("south")
            rig.push(node)
            await node.expect("deliver")
            began = asyncio.get_running_loop().time()
            await node.vanish()
            (failure,) = await side.until_replies(1)
            assert asyncio.get_running_loop().time() - began >= 0.1
            assert failure.failure.code == ErrorCode.NODE_UNAVAILABLE
            assert failure.failure.reason == "node north was lost, and is not back within 0.1 s"
            await side.until_ready("south")
            rig.push(other)
            await other.reply(await other.expect("deliver"))
            await side.until_replies(2)

    run(main())


def test_a_node_that_returns_in_time_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run(reconnect_s=10.0)
            node = await rig.ready("north")
            for content in (b"one", b"two"):
                rig.push(node, content)
            held, lost = await node.expect("deliver"), await node.expect("deliver")
            await node.vanish()
            await until(lambda: not rig.exchange.connected(), 10)
            back = await rig.ready("north", held=[held.message_id])
            again = await back.expect("deliver")
            assert again == lost
            assert await back.fetch(again) == b"two"
            await back.reply(held)
            await back.reply(again)
            replies = await side.until_replies(2)
            assert [r.reply_to for r in replies] == [held.message_id, lost.message_id]
            assert not any(r.HasField("failure") for r in replies)

    run(main())


def test_a_replaced_session_loses_no_delivery_and_no_answer(tmp_path: Path) -> None:
    """Make before break, as a node does whose certificate was renewed."""

    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run(reconnect_s=0.2)
            old = await rig.ready("north")
            rig.push(old, b"content")
            at_work = await old.expect("deliver")
            new = rig.node("north")
            await new.connect(held=[at_work.message_id])
            assert side.ready == ["north"]  # it never left
            rig.push(old)  # before the new session has accepted the run again
            await new.accept()
            pushed = await new.expect("deliver")
            # The answer to the first comes over the old connection, to the second over the new.
            await old.store(at_work.message_id, b"result")
            await old.reply(at_work, bulk=Manifest.of(b"result").to_proto())
            await new.reply(pushed)
            replies = await side.until_replies(2)
            assert not any(r.HasField("failure") for r in replies)
            assert {(await new.expect("ack")).message_id for _ in range(2)} == {
                at_work.message_id,
                pushed.message_id,
            }
            await old.hang_up()
            assert await old.call.read() is grpc.aio.EOF
            await asyncio.sleep(0.3)  # the end of the old session is no loss of the node
            assert rig.exchange.connected() == {old.node_id}
            assert await rig.events("node-disconnected") == []
            assert len(await rig.events("session-replaced")) == 1
            assert rig.world.codes() == []

    run(main())


def test_a_replaced_session_that_does_not_hang_up_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "DRAIN_S", 0.05)
    monkeypatch.setattr(exchange_module, "RETIRE_S", 0.05)

    async def main() -> None:
        async with fleet(tmp_path) as rig:
            old, new = rig.node("north"), rig.node("north")
            await old.connect()
            await new.connect()
            refused = await old.expect("refused")
            assert refused.code == "replaced"
            assert refused.reason == "a newer session of node north has taken over"
            async with asyncio.timeout(10):
                assert await old.call.read() is grpc.aio.EOF
            assert rig.exchange.connected() == {new.node_id}

    run(main())


def test_a_revoked_node_is_cut_and_what_it_owes_fails_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            side = rig.open_run(reconnect_s=60.0)
            node, other = await rig.ready("north"), await rig.ready("south")
            rig.push(node, BIG)
            await node.expect("deliver")
            rig.world.denylist.deny_identity(rig.leaves["north"].spiffe_id)
            async with asyncio.timeout(1):
                status, _ = await refused_read(node)
            assert status is grpc.StatusCode.UNAUTHENTICATED
            (failure,) = await side.until_replies(1)
            assert failure.failure.reason == "node north was revoked"
            rig.push(other)
            await other.reply(await other.expect("deliver"))
            await side.until_replies(2)

    run(main())


def test_who_was_never_enrolled_here_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            stranger = ScriptedNode(rig.enrol("known"), rig.world.channel(rig.world.pki.node()))
            stranger.call = stranger.channel.stream_stream(SESSION)()
            assert (await refused_read(stranger))[1].startswith("unknown-node: ")

    run(main())


def test_a_node_that_hangs_up_hears_what_became_of_its_reply(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            rig.open_run()
            node = await rig.ready("north")
            rig.push(node)
            header = await node.expect("deliver")
            await node.reply(header)
            await node.hang_up()
            assert (await node.expect("ack")).message_id == header.message_id
            assert await node.call.read() is grpc.aio.EOF

    run(main())


def test_who_left_and_came_is_recorded(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as rig:
            node = rig.node("north")
            await node.connect()
            await node.hang_up()
            assert await node.call.read() is grpc.aio.EOF
            await until(lambda: not rig.exchange.connected(), 10)
            (came,) = await rig.events("node-connected")
            (left,) = await rig.events("node-disconnected")
            assert came.subject == left.subject == rig.leaves["north"].spiffe_id
            assert rig.store.node_by_name("north").last_seen_at is not None

    run(main())
