"""Attacks below identity: other protocols, old TLS, foreign servers, sizes. Over real sockets.

Each is refused while a good node that is connected all the time notices nothing.
"""

import asyncio
import socket
import ssl
import time
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509

from fedsec.errors import ConfigError
from fedsec.wire.answers import refusal_of
from fedsec.wire.call import Call, Method
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import anonymous_credentials, node_credentials
from tests.pki import SERVER, forge, forge_server, make_pki, node_uri
from tests.timing import at_once
from tests.wire.gated import (
    ECHO,
    NODES,
    WHO,
    gated,
    python_context,
    refused,
    run,
    stream,
    unary,
    undisturbed,
)
from tests.wire.raw_http2 import call_with

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
AT_ONCE_S = 0.5


def test_plaintext() -> None:
    async def main() -> None:
        async with gated() as world, undisturbed(world):
            async with grpc.aio.insecure_channel(world.address) as channel:
                status, _ = await refused(unary(channel, WHO.name))
            assert status is UNAVAILABLE
            for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 64):
                assert await asyncio.to_thread(_closes, world.listener.port, garbage)
            assert world.refusals == []

    run(main())


def _closes(port: int, sent: bytes) -> bool:
    """Sends bytes without TLS; says whether the other end closed without an answer in clear."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        plain.sendall(sent)
        try:
            answered = plain.recv(1024)
        except ConnectionResetError:
            return True
        return not answered or answered[0] == 0x15  # a TLS alert


@pytest.mark.parametrize(
    ("version", "admitted"),
    [(ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)],
)
def test_tls_1_2(tmp_path: Path, version: ssl.TLSVersion, admitted: bool) -> None:
    """gRPC's server accepts TLS 1.2; the gate does not. The same client with 1.3 is served."""

    async def main() -> None:
        async with gated() as world, undisturbed(world):
            context = python_context(world, world.pki.node(), tmp_path)
            context.minimum_version = context.maximum_version = version
            spoken, answered = await asyncio.to_thread(
                call_with, context, world.listener.port, WHO.name
            )
            assert spoken == ("TLSv1.3" if admitted else "TLSv1.2")
            assert (b"node " in answered) is admitted  # the handler's answer, in a data frame
            assert world.codes() == ([] if admitted else ["tls-version"])
            if not admitted:
                assert world.refusals[0].reason == "this port speaks TLS 1.3 only, not TLSv1.2"

    run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_older_tls_does_not_even_shake_hands(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        async with gated() as world, undisturbed(world):
            context = python_context(world, world.pki.node(), tmp_path)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            with pytest.raises(ssl.SSLError):
                await asyncio.to_thread(call_with, context, world.listener.port, WHO.name)

    run(main())


BAD_SERVERS = {
    "of another federation": lambda _pki: make_pki().server(),
    "of another host": lambda pki: pki.server(hosts=("other.example",)),
    "without any host": lambda pki: forge_server(pki, others=[]),
    "host in CN only": lambda pki: forge_server(pki, others=[], common_name="localhost"),
    "for clients only": lambda pki: forge_server(pki, purposes=(x509.OID_CLIENT_AUTH,)),
    "expired": lambda pki: forge_server(
        pki, not_before=pki.now - timedelta(hours=3), not_after=pki.now - timedelta(hours=1)
    ),
    "a node's": lambda pki: pki.node(),
    "signed by the nodes' CA": lambda pki: forge(
        pki.nodes,
        [node_uri()],
        now=pki.now,
        purposes=(SERVER,),
        others=[x509.DNSName("localhost")],
    ),
}


@pytest.mark.parametrize("name", sorted(BAD_SERVERS))
def test_a_foreign_server(name: str) -> None:
    """The client sends nothing to a server that is not the federation's for this host."""
    reached: list[str] = []

    async def handler(call: Call) -> None:
        reached.append(call.who)

    row = Method(WHO.name, NODES, handler)

    async def main() -> None:
        pki = make_pki()
        async with (
            gated(pki=pki) as ours,
            undisturbed(ours),  # a node that is at the right server
            gated([row], pki=pki, server=BAD_SERVERS[name](pki)) as world,
        ):
            # gRPC says UNAUTHENTICATED where TLS passed and its own look at the host did not
            status, details = await refused(world.ask(None))
            assert status in {UNAVAILABLE, UNAUTHENTICATED}
            assert not details.startswith(("revoked", "expired"))
            async with world.anonymous() as channel:
                status, _ = await refused(unary(channel, WHO.name))
            assert status in {UNAVAILABLE, UNAUTHENTICATED}
            assert world.refusals == []
        assert not reached

    run(main())


def test_the_host_name_cannot_be_overridden() -> None:
    credentials = anonymous_credentials(make_pki().servers.certificate_pem)
    for name in ("grpc.ssl_target_name_override", "grpc.default_authority"):
        with pytest.raises(ConfigError, match="certificate of another host"):
            open_channel("localhost:1", credentials, options=[(name, "other.example")])


def test_many_silent_connections_keep_nobody_waiting() -> None:
    async def main(_: int) -> float:
        async with gated() as world, undisturbed(world):
            silent = [
                socket.create_connection(("127.0.0.1", world.listener.port)) for _ in range(100)
            ]
            started = time.monotonic()
            assert await world.ask(None)
            took = time.monotonic() - started
            for connection in silent:
                connection.close()
        return took

    run(at_once(main, 1.0))


def test_oversize_messages_and_metadata() -> None:
    async def main() -> None:
        async with gated() as world, undisturbed(world):
            async with world.channel() as channel:
                call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
                call = channel.unary_unary(WHO.name)
                big = {"x-big": "a" * 10_000}
                status, _ = await refused(call(b"x", metadata=tuple(big.items()), timeout=5))
                assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
            generous = ("grpc.max_send_message_length", 8 << 20)
            leaf = world.pki.node()
            async with open_channel(
                world.address,
                node_credentials(world.pki.servers.certificate_pem, leaf.chain_pem, leaf.key_pem),
                options=[generous],
            ) as channel:
                status, _ = await refused(unary(channel, WHO.name, bytes((4 << 20) + 1)))
                assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert await unary(channel, WHO.name)  # the connection goes on

    run(main())


def test_compressed_messages_are_not_inflated() -> None:
    async def main() -> None:
        async with gated() as world, undisturbed(world):
            leaf = world.pki.node()
            credentials = node_credentials(
                world.pki.servers.certificate_pem, leaf.chain_pem, leaf.key_pem
            )
            everything = [("grpc.compression_enabled_algorithms_bitset", 7)]
            async with open_channel(world.address, credentials, options=everything) as channel:
                call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
                call = channel.unary_unary(WHO.name)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(bytes(1 << 20), compression=grpc.Compression.Gzip, timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert refusal_of(caught.value)[0]

    run(main())


def test_the_rows_above_are_what_the_listener_offers() -> None:
    """The attacks aim at methods that do answer a good node."""

    async def main() -> None:
        async with gated() as world:
            assert await world.ask(None, WHO.name)
            async with world.channel() as channel:
                call = stream(channel, ECHO.name)
                await call.write(b"1")
                assert await call.read() == b"1"

    run(main())
