"""Attacks on identity and transport, over real sockets.

Each is refused, by TLS itself or by the gate with a reason in the log, while a good node that is
connected all the time notices nothing.
"""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from grpc.experimental.session_cache import ssl_session_cache_lru

from fedsec.identity.names import Kind
from fedsec.wire.call import Call, Method
from fedsec.wire.channels import open_channel
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.credentials import node_credentials
from fedsec.wire.generated import fleet_pb2 as pb
from fedsec.wire.streams import STORE, UploadLimits, Uploads, encode_chunk, serve_store, store
from tests.pki import BAD_NODES, Leaf, make_pki
from tests.timing import at_once
from tests.wire.gated import (
    ADMIN,
    METHODS,
    NODES,
    WHO,
    World,
    gated,
    refused,
    run,
    stream,
    unary,
    undisturbed,
    until,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
AT_ONCE_S = 0.5


@pytest.mark.parametrize("name", sorted(BAD_NODES))
def test_a_bad_certificate(name: str) -> None:
    """Expired, not yet valid, wrong CA, leaf as CA, servers' CA, wrong usage, SANs, CN, ..."""
    defect = BAD_NODES[name]

    async def main() -> None:
        async with gated() as world, undisturbed(world):
            status, details = await refused(world.ask(defect.make(world.pki)))
            if defect.tls:
                assert status is UNAVAILABLE
                assert world.refusals == []
            else:
                assert status is UNAUTHENTICATED
                assert details.startswith(f"{defect.code}: ")
                (refusal,) = world.refusals
                assert (refusal.code, refusal.principal) == (defect.code, None)
                assert refusal.method == WHO.name

    run(main())


def test_no_certificate() -> None:
    async def main() -> None:
        async with gated() as world, undisturbed(world):
            async with world.anonymous() as channel:
                status, _ = await refused(unary(channel, WHO.name))
            assert status is UNAVAILABLE

    run(main())


def test_a_node_calls_an_admins_method() -> None:
    """Refused by its role where the method exists, and by TLS on the listener for people."""

    async def main() -> None:
        async with gated() as world, undisturbed(world):
            leaf = world.pki.node()
            status, _ = await refused(world.ask(leaf, ADMIN.name))
            assert status is grpc.StatusCode.PERMISSION_DENIED
            (refusal,) = world.refusals
            assert refusal.code == "role"
            assert refusal.principal is not None
            assert refusal.principal.spiffe_id == leaf.spiffe_id
            async with gated([ADMIN], pki=world.pki, kind=Kind.PERSON) as people:
                status, _ = await refused(people.ask(leaf, ADMIN.name))
                assert status is UNAVAILABLE
                assert await people.ask(world.pki.person(), ADMIN.name) == b"x"

    run(main())


@pytest.mark.slow
def test_expired_by_session_resumption() -> None:
    """TLS grants a resumed session to an expired certificate; the gate does not."""

    async def main() -> None:
        async with gated([*METHODS, RESUMED]) as world, undisturbed(world):
            brief = world.pki.node(lifetime=timedelta(seconds=3))
            cache = ssl_session_cache_lru(1)  # type: ignore[no-untyped-call]
            assert await _resuming(world, brief, cache) == b"false"
            assert await _resuming(world, brief, cache) == b"true"
            await _sleep_until_expired(brief)
            status, details = await refused(_resuming(world, brief, cache))
            assert status is UNAUTHENTICATED
            assert details.startswith("expired: ")
            assert world.codes() == ["expired"]
            assert _REUSED == [b"true"]
            # without the session, TLS itself refuses
            assert (await refused(world.ask(brief)))[0] is UNAVAILABLE

    run(main())


async def _tell_resumed(call: Call) -> None:
    await call.write(_REUSED[0])


_REUSED: list[bytes] = []
RESUMED = Method("/test.Service/Resumed", NODES, _tell_resumed)


async def _resuming(world: World, leaf: Leaf, cache: object) -> bytes:
    """Calls on a connection of its own with a TLS session cache; says whether it was resumed."""
    original = type(world.gate)._identify

    def identify(gate: object, visitor: object, context: object) -> object:
        _REUSED[:] = list(context.auth_context()["ssl_session_reused"])  # type: ignore[attr-defined]
        return original(gate, visitor, context)  # type: ignore[arg-type]

    credentials = node_credentials(world.pki.servers.certificate_pem, leaf.chain_pem, leaf.key_pem)
    type(world.gate)._identify = identify  # type: ignore[assignment, method-assign]
    try:
        options = [("grpc.ssl_session_cache", cache)]
        async with open_channel(world.address, credentials, options=options) as channel:
            return await unary(channel, RESUMED.name)
    finally:
        type(world.gate)._identify = original  # type: ignore[method-assign]


async def _sleep_until_expired(leaf: Leaf) -> None:
    left = leaf.certificate.not_valid_after_utc - datetime.now(UTC)
    await asyncio.sleep(max(0.0, left.total_seconds()) + 1.05)  # TLS counts whole seconds


def test_expired_on_an_open_connection() -> None:
    """A timer ends the stream at the moment of expiry, and no new call gets in."""

    async def main(_: int) -> float:
        async with gated() as world, undisturbed(world):
            brief = world.pki.node(lifetime=timedelta(seconds=2))
            async with world.channel(brief) as channel:
                call = stream(channel)
                await call.write(b"x")
                assert await call.read() == b"x"
                status, details = await refused(call.read())
                end = brief.certificate.not_valid_after_utc
                took = (datetime.now(UTC) - end).total_seconds()
                assert took >= 0
                assert status is UNAUTHENTICATED
                assert details.startswith("expired: ")
                status, details = await refused(unary(channel, WHO.name))
                assert status is UNAUTHENTICATED
                assert details.startswith("expired: ")
            assert world.codes() == ["expired", "expired"]
        return took

    run(at_once(main, AT_ONCE_S))


@pytest.mark.parametrize("what", ["identity", "serial"])
def test_revoked_in_mid_stream(what: str) -> None:
    async def main(_: int) -> float:
        async with gated() as world, undisturbed(world):
            leaf = world.pki.node()
            async with world.channel(leaf) as channel:
                calls = [stream(channel) for _ in range(3)]
                for call in calls:
                    await call.write(b"x")
                    assert await call.read() == b"x"
                started = time.monotonic()
                if what == "identity":
                    world.denylist.deny_identity(leaf.spiffe_id)
                else:
                    world.denylist.deny_serial(leaf.certificate.serial_number)
                ends = await asyncio.gather(*(refused(call.read()) for call in calls))
                took = time.monotonic() - started
                for status, details in ends:
                    assert status is UNAUTHENTICATED
                    assert details.startswith("revoked: node ")
                assert (await refused(unary(channel, WHO.name)))[0] is UNAUTHENTICATED
            # nor on a new connection, which TLS alone would admit
            assert (await refused(world.ask(leaf)))[1].startswith("revoked: ")
            assert set(world.codes()) == {"revoked"}
        return took

    run(at_once(main, AT_ONCE_S))


def test_revoked_in_mid_upload() -> None:
    """The upload ends at once, is never kept, and another node's goes through meanwhile."""
    content = bytes(range(256)) * (4 * CHUNK_BYTES // 256)
    manifest = Manifest.of(content)
    uploads = Uploads(UploadLimits())
    kept: list[str] = []

    async def keep(reply_to: str, manifest: Manifest, blob: object) -> None:
        kept.append(reply_to)

    async def handler(call: Call) -> None:
        await serve_store(call, uploads, lambda _reply_to, _manifest: 0, keep)

    row = Method(STORE, NODES, handler, long_lived=True)

    async def main(_: int) -> float:
        async with gated([*METHODS, row]) as world, undisturbed(world) as good:
            kept.clear()
            leaf = world.pki.node()
            async with world.channel(leaf) as channel:
                call = stream(channel, STORE)
                begin = pb.StoreBegin(reply_to="a" * 32, manifest=manifest.to_proto())
                await call.write(pb.ContentFrame(begin=begin).SerializeToString())
                await call.read()
                await call.write(encode_chunk(memoryview(content)[:CHUNK_BYTES]))
                await until(lambda: uploads.held_bytes(leaf.spiffe_id) == CHUNK_BYTES)
                started = time.monotonic()
                world.denylist.deny_identity(leaf.spiffe_id)
                status, details = await refused(call.read())
                took = time.monotonic() - started
                assert status is UNAUTHENTICATED
                assert details.startswith("revoked: ")
            uploads.drop_owner(leaf.spiffe_id)
            assert uploads.unfinished == 0
            async with world.channel(good) as channel:
                await store(channel, "b" * 32, manifest, memoryview(content))
            assert kept == ["b" * 32]
            assert world.codes() == ["revoked"]
        return took

    run(at_once(main, AT_ONCE_S))


def test_a_ca_is_removed_live() -> None:
    """Its nodes lose their streams and cannot return; the next CA's nodes come in."""

    async def main(_: int) -> float:
        async with gated() as world:
            old = world.pki.node()
            # as after a compromise: another CA of the same federation, for the same kind
            renewed = replace(world.pki, nodes=make_pki().nodes)
            async with world.channel(old) as channel:
                call = stream(channel)
                await call.write(b"x")
                assert await call.read() == b"x"
                started = time.monotonic()
                server = world.pki.server()
                ca = renewed.nodes.certificate_pem
                world.credentials.replace(server.chain_pem, server.key_pem, ca)
                world.gate.replace_issuers(ca)
                status, details = await refused(call.read())
                took = time.monotonic() - started
                assert status is UNAUTHENTICATED
                assert details.startswith("wrong-issuer: ")
                assert (await refused(unary(channel, WHO.name)))[0] is UNAUTHENTICATED
            assert (await refused(world.ask(old)))[0] is UNAVAILABLE
            assert await world.ask(renewed.node())
            assert world.codes() == ["wrong-issuer", "wrong-issuer"]
        return took

    run(at_once(main, AT_ONCE_S))


def test_when_a_former_ca_goes_only_its_own_streams_end() -> None:
    """14, as a planned change: both CAs count, then the former one does not."""

    async def main() -> None:
        async with gated() as world:
            new = replace(world.pki, nodes=make_pki().nodes)
            former, ours = world.pki.nodes.certificate_pem, new.nodes.certificate_pem
            server = world.pki.server()

            def count(anchors: bytes) -> None:
                world.credentials.replace(server.chain_pem, server.key_pem, anchors)
                world.gate.replace_issuers(anchors)

            async with world.channel(old := world.pki.node()) as late:
                last = stream(late)
                await last.write(b"x")
                assert await last.read() == b"x"
                count(ours + former)
                async with world.channel(renewed := new.node()) as early:
                    kept = stream(early)
                    for call in (kept, last):  # both, on open connections and new ones
                        await call.write(b"y")
                        assert await call.read() == b"y"
                    assert await world.ask(old)
                    count(ours)
                    status, details = await refused(last.read())
                    assert (status, details[:14]) == (UNAUTHENTICATED, "wrong-issuer: ")
                    await kept.write(b"z")
                    assert await kept.read() == b"z"
                    assert (await refused(world.ask(old)))[0] is UNAVAILABLE
                    assert await world.ask(renewed)
            assert world.codes() == ["wrong-issuer"]

    run(main())


def test_replacing_the_ca_leaves_streams_alone_that_it_also_issued() -> None:
    async def main() -> None:
        async with gated() as world, undisturbed(world):
            world.gate.replace_issuers(world.pki.nodes.certificate_pem)
            await asyncio.sleep(0)
            assert world.codes() == []

    run(main())
