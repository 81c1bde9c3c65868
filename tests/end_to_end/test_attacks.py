"""Attacks on identity, each on a whole coordinator over real sockets, while a good node works.

Each is refused, the log of events has the reason, and the good node's session does its round trip
afterwards (`siege` sees to that). What TLS itself refuses gets into the log of events by way of the
program's stderr; `test_attacks_process` shows that.
"""

import asyncio
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509

from fedsec.errors import ConfigError
from fedsec.identity.leaves import make_key, make_request
from fedsec.identity.names import Kind, Role
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.generated import admin_pb2
from fedsec.wire.generated import fleet_pb2 as pb
from fedsec.wire.streams import STORE, encode_chunk
from fedsec_server.coordinator import coordinate
from fedsec_server.settings import Listener
from fedsec_server.state.values import NodeState
from tests.end_to_end.attackrig import (
    CONTENT,
    Siege,
    Skewed,
    brief,
    pki_of,
    siege,
)
from tests.pki import BAD_NODES, forge
from tests.server.coordinatorrig import Holder, make_place
from tests.timing import at_once
from tests.wire.gated import refused, run, stream, unary
from tests.wire.raw_http2 import call_with

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
AT_ONCE_S = 1.0
RENEW = "/fedsec.v1.Fleet/Renew"


def test_bad_certificates_at_the_fleet_port(tmp_path: Path) -> None:
    """1 to 8: expired, not yet valid, wrong CA, leaf as CA, servers' CA, usage, URIs, CN, ..."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            pki = pki_of(here.place)
            for name, defect in BAD_NODES.items():
                leaf = defect.make(pki)
                channel = here.channel("fleet", Holder(leaf.chain_pem, leaf.key_pem, name))
                status, details = await refused(unary(channel, RENEW))
                assert status is (UNAVAILABLE if defect.tls else UNAUTHENTICATED), name
                if not defect.tls:
                    assert details.startswith(f"{defect.code}: "), name
                    event = await here.refused_for(defect.code, method=RENEW)
                    assert event.subject.startswith("peer ")

    run(main(), 60)


def test_a_node_speaks_for_another_in_the_body(tmp_path: Path) -> None:
    """9: in a reply, in an upload and in a download; the certificate decides each time."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            evil, good = await here.ready("evil"), here.good
            header = here.push(good)
            delivered = await good.expect("deliver")
            await evil.reply(delivered, src_node_id=good.node_id)
            ack = await evil.expect("ack")
            assert ack.refused.startswith("not-yours: ")
            event = await here.logged("reply-refused", code="not-yours")
            assert event.subject == evil.record.spiffe_id
            with pytest.raises(grpc.aio.AioRpcError, match="not-yours"):
                await evil.store(header.message_id, b"forged")
            with pytest.raises(grpc.aio.AioRpcError, match="no-content"):
                await evil.fetch(delivered)
            for code in ("not-yours", "no-content"):
                assert (await here.refused_for(code)).subject == evil.record.spiffe_id
            assert here.run.replies == []
            mine = here.push(evil)
            await evil.reply(await evil.expect("deliver"), src_node_id=good.node_id)
            failure = await here.reply_to(mine)
            assert failure.failure.reason.startswith("the reply of node evil was refused: ")
            assert failure.src_node_id == evil.node_id
            await here.logged("reply-refused", code="wrong-address", node="evil")
            await good.reply(delivered)
            assert not (await here.reply_to(header)).HasField("failure")
            await good.expect("ack")

    run(main())


def test_content_for_a_message_that_is_not_owed(tmp_path: Path) -> None:
    """Nobody stores what no message asks for: not for an invented one, not for an answered one."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            evil = await here.ready("evil")
            with pytest.raises(grpc.aio.AioRpcError, match="unknown"):
                await evil.store("0" * 32, CONTENT)
            header = here.push(evil)
            await evil.reply(await evil.expect("deliver"))
            await here.reply_to(header)
            with pytest.raises(grpc.aio.AioRpcError, match="duplicate"):
                await evil.store(header.message_id, CONTENT)
            for code in ("unknown", "duplicate"):
                event = await here.refused_for(code, method=STORE)
                assert event.subject == evil.record.spiffe_id

    run(main())


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR])
def test_commands_by_who_may_not_give_them(tmp_path: Path, role: Role) -> None:
    """10: a node at the wrong port and at the right one; people beyond their role."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            revoke = admin_pb2.RevokeNodeRequest(name="good")
            path, data = "/fedsec.v1.Admin/RevokeNode", revoke.SerializeToString()
            evil = here.channel("fleet", here.holders["evil"])
            status, _ = await refused(unary(evil, path, data))
            assert status is grpc.StatusCode.UNIMPLEMENTED
            event = await here.refused_for("unknown-method", method=path)
            assert event.subject == here.records["evil"].spiffe_id
            outside = here.channel("admin", here.holders["evil"])
            assert (await refused(unary(outside, path, data)))[0] is UNAVAILABLE
            ann = here.channel("admin", here.place.issue(Kind.PERSON, "ann", role))
            status, _ = await refused(unary(ann, path, data))
            assert status is DENIED
            event = await here.refused_for("role", method=path)
            assert event.subject.endswith(f"/person/{role}/ann")
            inside = here.channel("fleet", here.place.issue(Kind.PERSON, "ann", Role.ADMIN))
            assert (await refused(unary(inside, path, data)))[0] is UNAVAILABLE
            assert here.store.node_by_name("good").state is NodeState.ENROLLED

    run(main())


def test_a_certificate_expires_under_an_open_session_and_upload(tmp_path: Path) -> None:
    """12: both end at the moment of expiry, and the same connection gets no further call."""

    async def main(attempt: int) -> float:
        async with siege(tmp_path / f"{attempt}") as here:
            holder = brief(here.place, here.holders["evil"], 3.0)
            here.holders["evil"] = holder
            evil = await here.ready("evil")
            header = here.push(evil)
            upload = await begin_upload(here, evil.channel, header.message_id)
            end = x509.load_pem_x509_certificate(holder.chain_pem).not_valid_after_utc
            for call in (upload, evil.call):
                status, details = await refused(read_to_end(call))
                late = (datetime.now(UTC) - end).total_seconds()
                assert late >= 0
                assert status is UNAUTHENTICATED
                assert details.startswith("expired: ")
            status, details = await refused(unary(evil.channel, RENEW))
            assert status is UNAUTHENTICATED
            assert details.startswith("expired: ")
            for method in ("/fedsec.v1.Fleet/Session", STORE, RENEW):
                event = await here.refused_for("expired", method=method)
                assert event.subject == evil.record.spiffe_id
            # an old certificate renews nothing over a new connection either: TLS refuses it
            again = here.channel("fleet", holder)
            assert (await refused(unary(again, RENEW)))[0] is UNAVAILABLE
        return late

    run(at_once(main, AT_ONCE_S), 60)


def test_a_node_is_revoked_in_mid_upload(tmp_path: Path) -> None:
    """13: all of its streams end within a second; the other node's upload goes through."""

    async def main(attempt: int) -> float:
        async with siege(tmp_path / f"{attempt}") as here:
            evil, good = await here.ready("evil"), here.good
            bad, fine = here.push(evil), here.push(good)
            uploads = [
                await begin_upload(here, node.channel, header.message_id)
                for node, header in ((evil, bad), (good, fine))
            ]
            started = time.monotonic()
            await here.revoke("evil")
            for call in (uploads[0], evil.call):
                status, details = await refused(read_to_end(call))
                assert status is UNAUTHENTICATED
                assert details.startswith("revoked: ")
            took = time.monotonic() - started
            failure = await here.reply_to(bad)
            assert failure.failure.reason == "node evil was revoked"
            for start in (CHUNK_BYTES, 2 * CHUNK_BYTES):
                await uploads[1].write(encode_chunk(memoryview(CONTENT)[start:][:CHUNK_BYTES]))
            await uploads[1].done_writing()
            assert (await store_frame(uploads[1])).stored
            await good.reply(await good.expect("deliver"), bulk=Manifest.of(CONTENT).to_proto())
            assert not (await here.reply_to(fine)).HasField("failure")
            await good.expect("ack")
            # 17, and on new connections
            channel = here.channel("fleet", here.holders["evil"])
            for method in (RENEW, "/fedsec.v1.Fleet/Session", STORE, "/fedsec.v1.Fleet/Fetch"):
                status, details = await refused(unary(channel, method))
                assert status is UNAUTHENTICATED
                assert details.startswith("revoked: ")
            event = await here.refused_for("revoked", method=RENEW)
            assert event.subject == evil.record.spiffe_id
            await here.logged("node-revoked", name="evil", reason="a test")
        return took

    run(at_once(main, AT_ONCE_S), 60)


async def begin_upload(
    here: Siege, channel: grpc.aio.Channel, reply_to: str
) -> "grpc.aio.StreamStreamCall[bytes, bytes]":
    """Begins an upload of `CONTENT` and sends its first chunk."""
    call = stream(channel, STORE)
    begin = pb.StoreBegin(reply_to=reply_to, manifest=Manifest.of(CONTENT).to_proto())
    await call.write(pb.ContentFrame(begin=begin).SerializeToString())
    assert (await store_frame(call)).resume == 0
    await call.write(encode_chunk(memoryview(CONTENT)[:CHUNK_BYTES]))
    return call


async def store_frame(call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> pb.StoreFrame:
    data = await call.read()
    assert isinstance(data, bytes)
    return pb.StoreFrame.FromString(data)


async def read_to_end(call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


@pytest.mark.parametrize("listener", ["enrol", "fleet", "admin"])
def test_plaintext_and_old_tls_at_every_port(tmp_path: Path, listener: Listener) -> None:
    """19: TLS 1.2 shakes hands, is refused by the gate and logged; plaintext gets no answer."""

    async def main() -> None:
        async with siege(tmp_path) as here:
            async with grpc.aio.insecure_channel(here.address(listener)) as channel:
                assert (await refused(unary(channel, RENEW)))[0] is UNAVAILABLE
            holder = {
                "enrol": None,
                "fleet": here.holders["evil"],
                "admin": here.place.issue(Kind.PERSON, "ann", Role.ADMIN),
            }[listener]
            port = int(here.address(listener).rpartition(":")[2])
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = python_context(here, holder, tmp_path)
                context.minimum_version = context.maximum_version = version
                spoken, answer = await asyncio.to_thread(call_with, context, port, "/x")
                assert spoken == version.name.replace("TLSv1_", "TLSv1.")
                code = b"tls-version" if spoken == "TLSv1.2" else b"unknown-method"
                assert code in answer
                await here.refused_for(code.decode())

    run(main())


def python_context(here: Siege, holder: Holder | None, directory: Path) -> ssl.SSLContext:
    """Returns what Python's own TLS needs to reach a listener."""
    pem = here.place.authorities.servers.certificate_pem.decode()
    context = ssl.create_default_context(cadata=pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the anchor is an issuing CA
    if holder is not None:
        file = directory / "holder.pem"
        file.write_bytes(holder.chain_pem + holder.key_pem)
        context.load_cert_chain(file)
    return context


@pytest.mark.parametrize("minutes", [-10, 10])
def test_the_coordinators_clock_goes_wrong(tmp_path: Path, minutes: int) -> None:
    """18: validity is judged by the coordinator's clock, in both directions, and nobody's else."""

    async def main() -> None:
        clock = Skewed()
        async with siege(tmp_path, clock=clock) as here:
            pki, evil = pki_of(here.place), here.records["evil"]
            old = forge(
                pki.nodes, [evil.spiffe_id], now=pki.now, not_before=pki.now - timedelta(hours=1)
            )
            soon = brief(here.place, here.holders["evil"], 300)  # from a minute ago
            channels = [
                here.channel("fleet", each)
                for each in (Holder(old.chain_pem, old.key_pem, ""), soon)
            ]
            clock.off = timedelta(minutes=minutes)
            _, details = await refused(unary(channels[0], "/fedsec.v1.Fleet/Fetch"))
            assert details.startswith("malformed: ")  # it came in
            status, details = await refused(here.renew(channels[1], make_request(make_key())))
            code = "expired" if minutes > 0 else "not-yet-valid"
            assert status is UNAUTHENTICATED
            assert details.startswith(f"{code}: ")
            assert (await here.refused_for(code, method=RENEW)).subject == evil.spiffe_id
            clock.off = timedelta(0)
            assert (await here.renew(channels[1], make_request(make_key()))).chain_pem

    run(main())


@pytest.mark.parametrize(
    ("version", "code"),
    [((2, 0), "version"), ((0, 9), "version"), ((1, 9), "version"), ((1, 0), "")],
)
def test_versions_are_negotiated_in_a_hello(
    tmp_path: Path, version: tuple[int, int], code: str
) -> None:
    async def main() -> None:
        async with siege(tmp_path) as here:
            node = here.node("evil")
            frame = await node.connect(version=version)
            assert frame.refused.code == code
            assert frame.WhichOneof("kind") == ("refused" if code else "welcome")
            if code:
                assert f"the node {version[0]}.{version[1]}" in frame.refused.reason
                event = await here.logged("session-refused", node="evil")
                assert event.detail["reason"] == frame.refused.reason

    run(main())


def test_a_coordinator_with_a_root_key_in_its_directory_does_not_start(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    (key,) = (tmp_path / "root").glob("*.key.pem")
    hidden = place.layout.runs / "4711"
    hidden.mkdir(parents=True)
    (hidden / "notes.txt").write_bytes(b"\n\nmy notes\n" + key.read_bytes())

    async def main() -> None:
        with pytest.raises(ConfigError, match=r"root.*notes\.txt|notes\.txt.*root"):
            async with coordinate(place.layout, 1):
                raise AssertionError("it started")

    run(main())
    assert not place.layout.listening.exists()


@pytest.mark.parametrize("which", ["", "ca"])
def test_a_coordinator_whose_directory_is_open_to_others_does_not_start(
    tmp_path: Path, which: str
) -> None:
    """Who can put files there can make himself an authority."""
    place = make_place(tmp_path)
    directory = place.layout.directory / which
    directory.chmod(0o777)

    async def main() -> None:
        with pytest.raises(ConfigError, match=f"chmod 700 {directory.resolve()}$"):
            async with coordinate(place.layout, 1):
                raise AssertionError("it started")

    run(main())
