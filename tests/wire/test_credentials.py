"""Credentials are checked when handed in, and a listener's are replaced while it runs."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from grpc.experimental.session_cache import ssl_session_cache_lru

from fedsec.errors import ConfigError
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import (
    QUIET_S,
    ServerCredentials,
    anonymous_credentials,
    node_credentials,
)
from tests.pki import Leaf, make_pki
from tests.wire.gated import METHODS, WHO, World, gated, refused, run, stream, unary

ROOT = Path(__file__).parents[2]
PKI = make_pki()
CA = PKI.servers.certificate_pem
GARBAGE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_a_new_certificate_is_shown_without_restart_and_open_streams_stay() -> None:
    """The former one is for another host by now, so that who gets in has seen the new one."""

    async def main() -> None:
        async with gated() as world, world.channel() as channel:
            call = stream(channel)
            await call.write(b"1")
            assert await call.read() == b"1"
            elsewhere = world.pki.server(hosts=("other.example",))
            world.credentials.replace(elsewhere.chain_pem, elsewhere.key_pem)
            assert (await refused(world.ask(None)))[0] is grpc.StatusCode.UNAVAILABLE
            here = world.pki.server()
            world.credentials.replace(here.chain_pem, here.key_pem)
            assert await world.ask(None)
            await call.write(b"2")
            assert await call.read() == b"2"

    run(main())


def test_a_renewed_certificate_outlives_the_one_before() -> None:
    async def main() -> None:
        pki = make_pki()
        brief = pki.server(lifetime=timedelta(seconds=1))
        async with gated(pki=pki, server=brief) as world:
            renewed = pki.server()
            world.credentials.replace(renewed.chain_pem, renewed.key_pem)
            assert await world.ask(None)

    run(main())


def test_another_ca_for_clients_is_taken_without_restart() -> None:
    async def main() -> None:
        other = make_pki()
        async with gated() as world:
            server = world.pki.server()
            world.credentials.replace(server.chain_pem, server.key_pem, other.nodes.certificate_pem)
            assert (await refused(world.ask(None)))[0] is grpc.StatusCode.UNAVAILABLE
            # this one passes TLS now; the gate, which was told of no other CA, refuses it
            status, details = await refused(world.ask(other.node()))
            assert status is grpc.StatusCode.UNAUTHENTICATED
            assert details.startswith("wrong-issuer: ")
            # and without a CA named, the present one stays
            world.credentials.replace(server.chain_pem, server.key_pem)
            status, _ = await refused(world.ask(other.node()))
            assert status is grpc.StatusCode.UNAUTHENTICATED

    run(main())


async def _with_cache(world: World, leaf: Leaf, cache: object) -> bytes:
    credentials = node_credentials(world.pki.servers.certificate_pem, leaf.chain_pem, leaf.key_pem)
    options = [("grpc.ssl_session_cache", cache)]
    async with open_channel(world.address, credentials, options=options) as channel:
        return await unary(channel, WHO.name)


def test_a_replacement_makes_kept_sessions_void() -> None:
    """Also where the certificate is the same as before."""

    async def main() -> None:
        async with gated() as world:
            seen: list[bytes] = []
            original = world.gate._identify

            def identify(visitor: object, context: object) -> object:
                seen.extend(context.auth_context()["ssl_session_reused"])  # type: ignore[attr-defined]
                return original(visitor, context)  # type: ignore[arg-type]

            world.gate._identify = identify  # type: ignore[assignment, method-assign]
            server = world.pki.server()
            leaf, cache = world.pki.node(), ssl_session_cache_lru(4)  # type: ignore[no-untyped-call]
            for _ in range(3):
                world.credentials.replace(server.chain_pem, server.key_pem)
                for _ in range(2):
                    assert await _with_cache(world, leaf, cache)
            assert seen == [b"false", b"true"] * 3

    run(main())


def test_grpc_is_told_as_before_whenever_that_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a new answer only after a time in which nobody asked; see the module's text."""
    now = 1000.0
    slept: list[float] = []
    monkeypatch.setattr("fedsec.wire.credentials.time.monotonic", lambda: now)
    monkeypatch.setattr("fedsec.wire.credentials.time.sleep", slept.append)
    server = PKI.server()
    credentials = ServerCredentials(server.chain_pem, server.key_pem, None)
    now += 60
    assert credentials._fetch() is None
    credentials.replace(server.chain_pem, server.key_pem)
    now += QUIET_S / 2
    assert credentials._fetch() is not None
    assert slept == [QUIET_S]
    assert credentials._fetch() is None
    now += 2 * QUIET_S
    credentials.replace(server.chain_pem, server.key_pem)
    assert credentials._fetch() is not None
    assert slept == [QUIET_S]  # nobody had asked for long enough


def test_a_replacement_while_another_one_waits_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    server = PKI.server()
    credentials = ServerCredentials(server.chain_pem, server.key_pem, None)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        if not waits:
            credentials.replace(server.chain_pem, server.key_pem)
        waits.append(seconds)

    monkeypatch.setattr("fedsec.wire.credentials.time.sleep", sleep)
    credentials.replace(server.chain_pem, server.key_pem)
    first, second = credentials._fetch(), credentials._fetch()
    assert None not in {first, second}
    assert first is not second
    assert second is credentials._current
    assert credentials._fetch() is None


FLOOD = """
import socket, sys
while True:
    try:
        opened = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(50)]
        for connection in opened:
            connection.close()
    except OSError:
        pass
"""


@pytest.mark.slow
def test_replacing_under_a_flood_of_handshakes_kills_nobody(tmp_path: Path) -> None:
    """The listener is a process of its own, for what is feared is that it dies."""
    server = PKI.server()
    (tmp_path / "ca.pem").write_bytes(PKI.nodes.certificate_pem)
    (tmp_path / "chain.pem").write_bytes(server.chain_pem)
    (tmp_path / "key.pem").write_bytes(server.key_pem)
    listener = subprocess.Popen(
        [sys.executable, "-m", "tests.wire.peer_process", "replacing", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert listener.stdout is not None
    port = listener.stdout.readline().strip()
    flood: list[subprocess.Popen[bytes]] = [
        subprocess.Popen([sys.executable, "-c", FLOOD, port]) for _ in range(2)
    ]
    try:
        assert listener.stdout.readline() == "replaced 20 times\n"
        assert listener.wait(20) == 0
    finally:
        for process in flood:
            process.kill()
            process.wait()
        listener.kill()
        listener.wait()
        listener.stdout.close()


def test_what_cannot_be_used_is_refused_and_the_former_credentials_stay() -> None:
    async def main() -> None:
        async with gated() as world:
            one, two = world.pki.server(), world.pki.server()
            for chain, key, ca, message in [
                (one.chain_pem, two.key_pem, None, "does not belong to the first certificate"),
                (b"", one.key_pem, None, "certificate chain is no PEM"),
                (GARBAGE, one.key_pem, None, "certificate chain is no PEM"),
                (one.chain_pem, b"no key", None, "the TLS key is no PKCS #8 PEM"),
                (one.chain_pem, one.key_pem, GARBAGE, "clients' CA is no PEM"),
            ]:
                with pytest.raises(ConfigError, match=message):
                    world.credentials.replace(chain, key, ca)
            assert await world.ask(None)

    run(main())


def test_a_listener_for_anyone_is_given_no_ca_later() -> None:
    server = PKI.server()
    credentials = ServerCredentials(server.chain_pem, server.key_pem, None)
    with pytest.raises(ConfigError, match="asks for no certificates"):
        credentials.replace(server.chain_pem, server.key_pem, PKI.nodes.certificate_pem)


def test_a_key_with_a_passphrase_is_refused_not_asked_for() -> None:
    leaf = PKI.node()
    sealed = leaf.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    with pytest.raises(ConfigError, match="without a passphrase"):
        node_credentials(CA, leaf.chain_pem, sealed)


def test_a_client_is_told_before_it_connects() -> None:
    leaf, other = PKI.node(), PKI.node()
    with pytest.raises(ConfigError, match="servers' CA is no PEM"):
        node_credentials(GARBAGE, leaf.chain_pem, leaf.key_pem)
    with pytest.raises(ConfigError, match="does not belong"):
        node_credentials(CA, leaf.chain_pem, other.key_pem)
    with pytest.raises(ConfigError, match="servers' CA is no PEM"):
        anonymous_credentials(b"")


def test_no_message_repeats_a_key() -> None:
    leaf, other = PKI.node(), PKI.node()
    with pytest.raises(ConfigError) as caught:
        node_credentials(CA, leaf.chain_pem, other.key_pem)
    secret = other.key_pem.decode().splitlines()[1]
    assert secret not in str(caught.value)


def test_a_new_channel_shows_a_new_certificate() -> None:
    """Two channels of one process never share a connection."""

    async def main() -> None:
        async with gated(METHODS) as world:
            name = "7" * 32
            before, after = world.pki.node(name), world.pki.node("8" * 32)
            async with world.channel(before) as old, world.channel(after) as new:
                assert await unary(old, WHO.name) == b"node 77777777"
                assert await unary(new, WHO.name) == b"node 88888888"
                assert await unary(old, WHO.name) == b"node 77777777"

    run(main())
