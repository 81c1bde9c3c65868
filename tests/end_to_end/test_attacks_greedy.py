"""Attacks on the coordinator's memory, disk and time, over real sockets, while a good node works."""

import asyncio
import sqlite3
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest

from fedsec.identity.leaves import make_key, make_request
from fedsec.identity.names import Kind, Role
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import node_credentials
from fedsec.wire.duplex import Duplex
from fedsec.wire.generated.fleet_pb2 import Hello, NodeFrame, RunAnswer, Version
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import new_message_id
from tests.end_to_end.attackrig import Siege, siege
from tests.server.deskrig import ENROL, enrolment
from tests.timing import at_once
from tests.wire.gated import refused, run, unary

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
SESSION = "/fedsec.v1.Fleet/Session"


def test_what_a_refused_reply_names_is_not_sent_back_at_length(tmp_path: Path) -> None:
    """Else a node that does not read would have the coordinator keep megabytes per reply."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            evil = await here.ready("evil")
            reply = Header(message_id=new_message_id(), reply_to="f" * 1_000_000)
            await evil.send(NodeFrame(reply=reply))
            ack = await evil.expect("ack")
            assert ack.refused.startswith("bad-header: ")
            assert len(ack.SerializeToString()) < 1000
            event = await here.logged("reply-refused", code="bad-header", node="evil")
            assert len(str(event.detail)) < 1000

    run(main())


def test_a_header_padded_with_unknown_fields_is_refused(tmp_path: Path) -> None:
    """Each field of it is in order; a megabyte that nobody reads would go through all processes."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            evil = await here.ready("evil")
            header = here.push(evil)
            reply = evil.answer(await evil.expect("deliver"))
            padding = b"\xfa\x3f" + _varint(2_000_000) + bytes(2_000_000)  # field 1023, bytes
            reply.MergeFromString(padding)
            assert reply.ByteSize() > 2_000_000
            await evil.send(NodeFrame(reply=reply))
            assert (await evil.expect("ack")).refused.startswith("too-large: ")
            failure = await here.reply_to(header)
            assert failure.failure.reason.startswith("the reply of node evil was refused: ")
            await here.logged("reply-refused", code="too-large", node="evil")

    run(main())


def _varint(value: int) -> bytes:
    octets = b""
    while value > 127:
        octets += bytes([value & 127 | 128])
        value >>= 7
    return octets + bytes([value])


def test_a_node_cannot_hoard_certificates(tmp_path: Path) -> None:
    """Each costs a row, and its revocation another one: a flood would slow the revocation down."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            channel = here.channel("fleet", here.holders["evil"])
            csr = make_request(make_key())
            outcomes = await asyncio.gather(
                *(here.renew(channel, csr) for _ in range(50)), return_exceptions=True
            )
            told = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
            assert len(told) >= 25
            for error in told:
                assert error.code() is EXHAUSTED
                assert (error.details() or "").startswith("rate: ")
            event = await here.refused_for("rate", method="/fedsec.v1.Fleet/Renew")
            assert event.subject == here.records["evil"].spiffe_id
            good = here.channel("fleet", here.holders["good"])
            assert (await here.renew(good, csr)).chain_pem

    run(main())


def test_sessions_cannot_be_opened_without_end(tmp_path: Path) -> None:
    """Each is recorded when it begins and when it ends, for good."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            evil = here.node("evil")
            codes = set()
            for _ in range(80):
                try:
                    await evil.connect()
                    evil.call.cancel()
                except grpc.aio.AioRpcError as error:
                    codes.add((error.details() or "").partition(":")[0])
            assert codes == {"rate"}
            await here.refused_for("rate", method=SESSION)
            assert len(await here.events("node-connected")) < 80

    run(main())


def test_a_guessed_token_does_not_reach_for_the_databases_lock(tmp_path: Path) -> None:
    async def main(attempt: int) -> float:
        async with siege(tmp_path / f"{attempt}") as here:
            writer = sqlite3.connect(here.place.layout.database, isolation_level=None)
            writer.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            status, details = await refused(here.enrol(enrolment(b"g" * 32)))
            writer.rollback()
            writer.close()
            took = time.monotonic() - started
            assert status is grpc.StatusCode.UNAUTHENTICATED
            assert details.startswith("unknown-token: ")
            await here.refused_for("unknown-token", method=ENROL)
        return took

    run(at_once(main, 1.0), 60)


def test_strangers_send_little(tmp_path: Path) -> None:
    """Who has no certificate gets no more memory than a request to enrol needs."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            channel = here.anonymous()
            status, _ = await refused(unary(channel, ENROL, bytes(100_000)))
            assert status is EXHAUSTED
            _, details = await refused(unary(channel, ENROL, bytes(10_000)))
            assert details.startswith("malformed: ")  # and the connection goes on
            token = (await here.invite("north")).token
            csr = make_request(make_key(), common_name="n" * 64)
            assert (await here.enrol(enrolment(token, csr_der=csr))).name == "north"

    run(main())


@pytest.mark.parametrize("listener", ["fleet", "admin"])
def test_oversize_frames_metadata_and_bombs(tmp_path: Path, listener: str) -> None:
    """22, and at a control stream that is open."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            channel = generous(here, listener)
            path = SESSION if listener == "fleet" else "/fedsec.v1.Admin/Status"
            if listener == "fleet":
                call = Duplex(channel, path)
                hello = Hello(version=Version(major=1))
                await call.write(NodeFrame(hello=hello).SerializeToString())
                assert await call.read()
                # gRPC's client calls it INTERNAL when the refusal comes before all is written
                status, _ = await refused(overfeed(call))
                assert status in {EXHAUSTED, grpc.StatusCode.INTERNAL}
                await here.logged("node-disconnected", node="evil")
            assert (await refused(unary(channel, path, bytes((4 << 20) + 1))))[0] is EXHAUSTED
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            big = (("x-big", "a" * 10_000),)
            assert (await refused(method(b"", metadata=big, timeout=5)))[0] is EXHAUSTED
            bomb = method(bytes(8 << 20), compression=grpc.Compression.Gzip, timeout=5)
            # one for its size after inflation, the other for being compressed at all
            assert (await refused(bomb))[0] in {EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED}

    run(main())


async def overfeed(call: Duplex) -> None:
    await call.write(bytes((4 << 20) + 1))
    while isinstance(await call.read(), bytes):
        pass


def generous(here: Siege, listener: str) -> grpc.aio.Channel:
    """Returns a channel of a good identity whose own end lets everything out."""
    if listener == "fleet":
        holder = here.holders["evil"]
    else:
        holder = here.place.issue(Kind.PERSON, "ann", Role.ADMIN)
    channel = open_channel(
        here.address("fleet" if listener == "fleet" else "admin"),
        node_credentials(
            here.place.authorities.servers.certificate_pem, holder.chain_pem, holder.key_pem
        ),
        options=[
            ("grpc.max_send_message_length", 64 << 20),
            ("grpc.compression_enabled_algorithms_bitset", 7),
        ],
    )
    here.channels.append(channel)
    return channel


def test_what_a_node_says_forges_no_line_of_the_log(tmp_path: Path) -> None:
    """30: escape sequences and line breaks in reasons and versions reach the log as text."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            evil = await here.ready("evil")
            hostile = 'no\x1b[2J\r\n{"level": "info", "message": "all is well"}\u202e'
            await evil.refuse(hostile)
            event = await here.logged("run-refused", node="evil")
            assert event.detail["reason"] == hostile  # the database keeps what was said
            frame = NodeFrame(run_answer=RunAnswer(run_id=2**63 + 7, reason=hostile))
            await evil.send(frame)  # a run that there is not is nobody's
            assert len(await here.events("run-refused")) == 1

    run(main())
