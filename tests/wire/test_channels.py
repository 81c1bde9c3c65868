"""Listening, connecting, and the first contact, whose failures are told apart."""

import asyncio
import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.names import Kind
from fedsec.wire.call import Method
from fedsec.wire.channels import check_presents, fetch_pinned_chain, listen, open_channel
from fedsec.wire.credentials import ServerCredentials, anonymous_credentials
from fedsec.wire.options import SERVER_OPTIONS
from tests.pki import Leaf, make_pki
from tests.wire.gated import (
    ECHO,
    ONCE,
    World,
    echo,
    gated,
    once,
    python_context,
    refused,
    run,
    stream,
    unary,
    until,
)
from tests.wire.raw_http2 import OPENING

PKI = make_pki()


def pin_of(pem: bytes) -> bytes:
    certificate = x509.load_pem_x509_certificate(pem)
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


PIN = pin_of(PKI.servers.certificate_pem)


def code_of(address: str, pin: bytes = PIN, timeout_s: float = 5.0) -> str:
    with pytest.raises(IdentityError) as caught:
        fetch_pinned_chain(address, pin, timeout_s)
    assert address.rpartition(":")[0] in caught.value.detail
    return caught.value.code


@pytest.mark.parametrize("kind", [None, Kind.NODE])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_pinned_ca_is_fetched_and_is_a_good_anchor(kind: Kind | None, host: str) -> None:
    row = Method("/t/Enrol", frozenset(), once) if kind is None else ONCE

    async def main() -> None:
        async with gated([row], pki=PKI, kind=kind) as world:
            address = f"{host}:{world.listener.port}"
            ca = await asyncio.to_thread(fetch_pinned_chain, address, PIN)
            assert pin_of(ca) == PIN
            if kind is None:
                async with open_channel(address, anonymous_credentials(ca)) as channel:
                    assert await unary(channel, "/t/Enrol", b"token") == b"token"

    run(main())


def test_a_chain_without_the_pinned_ca() -> None:
    async def main() -> None:
        async with gated(pki=PKI) as world:
            for pin in (pin_of(make_pki().servers.certificate_pem), bytes(32), b""):
                code = await asyncio.to_thread(code_of, world.address, pin)
                assert code == "pin-mismatch"

    run(main())


def test_the_pinned_ca_behind_a_foreign_leaf_gives_a_thief_nothing() -> None:
    """The CA's certificate is public, so anyone can present it; TLS then verifies the rest."""
    foreign = make_pki().server()
    thief = Leaf(foreign.certificate, PKI.servers.certificate_pem, foreign.key)
    row = Method("/t/Enrol", frozenset(), once)

    async def main() -> None:
        async with gated([row], pki=PKI, kind=None, server=thief) as world:
            ca = await asyncio.to_thread(fetch_pinned_chain, world.address, PIN)
            async with open_channel(world.address, anonymous_credentials(ca)) as channel:
                status, _ = await refused(unary(channel, "/t/Enrol"))
            assert status is grpc.StatusCode.UNAVAILABLE

    run(main())


def test_nothing_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert code_of(f"127.0.0.1:{port}") == "nothing-listens"


def test_an_unknown_host() -> None:
    assert code_of("no-such-host.invalid:443") == "host-unknown"


def test_a_host_that_cannot_be_reached_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> socket.socket:
        raise TimeoutError("timed out")

    monkeypatch.setattr("fedsec.wire.channels.socket.create_connection", silent)
    assert code_of("127.0.0.1:1") == "no-answer"


@contextmanager
def answering(reply: bytes | None) -> Iterator[int]:
    """A port that answers each connection with some bytes and closes; None: with silence."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        kept: list[socket.socket] = []

        def serve() -> None:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            kept.append(connection)
            if reply is not None:
                connection.recv(4096)
                connection.sendall(reply)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join()
            for connection in kept:
                connection.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
        b"\x15\x03\x03\x00\x02\x02\x46",
    ],
    ids=["http", "ssh", "closes", "alert"],
)
def test_a_port_without_tls(reply: bytes) -> None:
    with answering(reply) as port:
        assert code_of(f"127.0.0.1:{port}") == "not-tls"


def test_a_plaintext_grpc_port() -> None:
    async def main() -> None:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        assert await asyncio.to_thread(code_of, f"127.0.0.1:{port}") == "not-tls"
        await server.stop(0)

    run(main())


def test_a_port_that_says_nothing() -> None:
    with answering(None) as port:
        assert code_of(f"127.0.0.1:{port}", timeout_s=0.2) == "no-answer"


def test_a_server_of_old_tls_only(tmp_path: Path) -> None:
    """TLS 1.2 is not spoken even at the first contact."""
    leaf = PKI.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(leaf.chain_pem)
    key.write_bytes(leaf.key_pem)
    context.load_cert_chain(chain, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        assert code_of(f"127.0.0.1:{server.getsockname()[1]}") == "not-tls"
        thread.join()


@pytest.mark.parametrize("address", ["", "localhost", "localhost:0", "localhost:70000", "a:b:443"])
def test_a_malformed_address_is_a_mistake_of_the_operator(address: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        fetch_pinned_chain(address, PIN)
    with pytest.raises(ConfigError, match="host:port"):
        open_channel(address, anonymous_credentials(PKI.servers.certificate_pem))


def test_two_listeners_on_one_port_are_an_error_not_a_share() -> None:
    async def main() -> None:
        async with gated(pki=PKI) as world:
            handler = world.gate.generic_handler([ONCE])
            address = f"127.0.0.1:{world.listener.port}"
            server = PKI.server()
            credentials = ServerCredentials(server.chain_pem, server.key_pem, None).credentials
            with pytest.raises(ConfigError, match=f"cannot listen on {address}"):
                await listen(address, credentials, handler)

    run(main())


def test_connections_beyond_the_limit_are_closed() -> None:
    async def main() -> None:
        async with gated(pki=PKI) as world:
            handler = world.gate.generic_handler([ONCE])
            server = PKI.server()
            credentials = ServerCredentials(server.chain_pem, server.key_pem, None).credentials
            small = await listen("127.0.0.1:0", credentials, handler, max_connections=2)
            opened = [
                socket.create_connection(("127.0.0.1", small.port), timeout=5) for _ in range(6)
            ]
            closed = await asyncio.to_thread(lambda: sum(map(_is_closed, opened)))
            assert closed == 4
            for connection in opened:
                connection.close()
            await small.server.stop(0)

    run(main())


@pytest.mark.parametrize("kind", [Kind.NODE, None], ids=["fleet", "enrol"])
def test_who_connects_and_makes_no_call_frees_its_place(kind: Kind | None, tmp_path: Path) -> None:
    """All places are taken by greeted connections without a call; a stream keeps its own."""
    assert 0 < dict(SERVER_OPTIONS)["grpc.max_connection_idle_ms"] <= 60_000
    idle_ms = {"grpc.max_connection_idle_ms": 1500}
    options = tuple({**dict(SERVER_OPTIONS), **idle_ms}.items())

    async def main() -> None:
        row = Method("/t/Echo", frozenset() if kind is None else ECHO.roles, echo, long_lived=True)
        async with (
            gated([row], pki=PKI, kind=kind, options=options, max_connections=3) as world,
            world.anonymous() if kind is None else world.channel() as channel,
        ):
            call = stream(channel, row.name)
            await call.write(b"before")
            assert await call.read() == b"before"
            idle = [await asyncio.to_thread(_greeted, world, tmp_path) for _ in range(2)]
            address = ("127.0.0.1", world.listener.port)
            with socket.create_connection(address, timeout=5) as fourth:
                assert await asyncio.to_thread(_is_closed, fourth)
            for connection in idle:
                assert await asyncio.to_thread(_is_ended, connection)
            await call.write(b"after")
            assert await call.read() == b"after"
            (await asyncio.to_thread(_greeted, world, tmp_path)).close()

    run(main())


def test_a_channel_whose_connection_was_closed_for_idleness_connects_again() -> None:
    options = tuple({**dict(SERVER_OPTIONS), "grpc.max_connection_idle_ms": 200}.items())

    async def main() -> None:
        async with gated([ONCE], pki=PKI, options=options) as world, world.channel() as channel:
            for _ in range(2):
                assert await unary(channel, ONCE.name) == b"x"
                await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY, 5)

    run(main())


def _greeted(world: World, directory: Path) -> ssl.SSLSocket:
    """Returns a connection on which TLS and HTTP/2 have begun, and no call."""
    context = python_context(world, PKI.node(), directory)
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", world.listener.port), timeout=5)
    tls = context.wrap_socket(plain, server_hostname="localhost")
    tls.sendall(OPENING)
    assert tls.recv(1)
    return tls


def _is_ended(connection: ssl.SSLSocket) -> bool:
    """Whether the other end closes within 5 s."""
    with connection, contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        try:
            while connection.recv(4096):
                pass
        except TimeoutError:
            return False
    return True


def _is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.3)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_one_of_the_anchors_must_be_presented() -> None:
    mine, other = make_pki(), make_pki()

    async def main() -> None:
        async with gated(pki=mine) as world:
            both = other.servers.certificate_pem + mine.servers.certificate_pem
            await asyncio.to_thread(check_presents, world.address, both, 5.0)
            with pytest.raises(IdentityError, match="presents another CA") as caught:
                await asyncio.to_thread(
                    check_presents, world.address, other.servers.certificate_pem, 5.0
                )
            assert caught.value.code == "pin-mismatch"

    run(main())
