"""A listener behind a gate on loopback, with callers of every kind, for the tests of transport."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from fedsec.identity.names import Kind, Role
from fedsec.wire.call import Call, Method, Refusal
from fedsec.wire.channels import MAX_CONNECTIONS, Listener, listen, open_channel
from fedsec.wire.credentials import ServerCredentials, anonymous_credentials, node_credentials
from fedsec.wire.denylist import Denylist
from fedsec.wire.gate import Gate, utc_now
from fedsec.wire.options import SERVER_OPTIONS
from fedsec.wire.rates import RateLimiter
from tests.pki import Leaf, Pki, make_pki

T = TypeVar("T")
NODES = frozenset({Role.NODE})
ADMINS = frozenset({Role.ADMIN})


def run(main: Coroutine[Any, Any, T], seconds: float = 30.0) -> T:
    """Runs a test's coroutine, which must end in time."""
    return asyncio.run(asyncio.wait_for(main, seconds))


async def echo(call: Call) -> None:
    """Sends each request back, and for a call without requests nothing."""
    while (data := await call.read()) is not None:
        await call.write(data)


async def once(call: Call) -> None:
    """Sends the first request back."""
    await call.write(await call.read() or b"")


async def whoami(call: Call) -> None:
    await call.read()
    await call.write(call.who.encode())


ECHO = Method("/test.Service/Echo", NODES, echo, long_lived=True)
ONCE = Method("/test.Service/Once", NODES, once)
WHO = Method("/test.Service/Who", NODES, whoami)
ADMIN = Method("/test.Service/Admin", ADMINS, once)
METHODS = (ECHO, ONCE, WHO, ADMIN)


@dataclass
class World:
    """One federation: its authorities and the listener that a test is about."""

    pki: Pki
    gate: Gate
    denylist: Denylist
    credentials: ServerCredentials
    listener: Listener
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"localhost:{self.listener.port}"

    def channel(self, leaf: Leaf | None = None, **options: int) -> grpc.aio.Channel:
        """Returns a channel of a node (a good one unless told) that never waits long."""
        leaf = leaf or self.pki.node()
        return open_channel(
            self.address,
            node_credentials(self.pki.servers.certificate_pem, leaf.chain_pem, leaf.key_pem),
            options=[(name.replace("__", "."), value) for name, value in options.items()],
        )

    def anonymous(self) -> grpc.aio.Channel:
        return open_channel(self.address, anonymous_credentials(self.pki.servers.certificate_pem))

    async def ask(self, leaf: Leaf | None, method: str = "/test.Service/Who") -> bytes:
        """Makes one unary call on a connection of its own."""
        async with self.channel(leaf) as channel:
            return await unary(channel, method)

    def codes(self) -> list[str]:
        return [refusal.code for refusal in self.refusals]


async def unary(
    channel: grpc.aio.Channel, method: str, request: bytes = b"x", seconds: float = 5.0
) -> bytes:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return await call(request, timeout=seconds)


def stream(
    channel: grpc.aio.Channel, method: str = "/test.Service/Echo"
) -> "grpc.aio.StreamStreamCall[bytes, bytes]":
    call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
    return call()


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """Awaits a call that must fail, and returns its status."""
    try:
        got = await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError(f"the call was answered with {got!r}")


async def until(condition: Callable[[], bool], seconds: float = 2.0) -> None:
    """Waits for what another task brings about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the other task knows of no event
            await asyncio.sleep(0.002)


def python_context(world: World, leaf: Leaf, directory: Path) -> ssl.SSLContext:
    """Returns Python's own TLS for a client that gRPC would not be; key files go to `directory`."""
    chain, key = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(leaf.chain_pem)
    key.write_bytes(leaf.key_pem)
    context = ssl.create_default_context(cadata=world.pki.servers.certificate_pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the anchor is an issuing CA
    context.load_cert_chain(chain, key)
    return context


@asynccontextmanager
async def gated(
    methods: Iterable[Method] = METHODS,
    *,
    pki: Pki | None = None,
    kind: Kind | None = Kind.NODE,
    server: Leaf | None = None,
    limiter: RateLimiter | None = None,
    clock: Callable[[], datetime] = utc_now,
    denylist: Denylist | None = None,
    options: Sequence[tuple[str, int]] = SERVER_OPTIONS,
    max_connections: int = MAX_CONNECTIONS,
    **gate_options: Any,
) -> AsyncIterator[World]:
    """Starts a listener for `kind` (None: for enrolment) and stops it at the end."""
    pki = pki or make_pki()
    server = server or pki.server()
    ca = pki.issuer(kind).certificate_pem if kind else None
    refusals: list[Refusal] = []
    denylist = denylist or Denylist()
    gate = Gate(
        ca,
        kind,
        denylist,
        RateLimiter(10_000, 10_000) if limiter is None else limiter,
        refusals.append,
        clock=clock,
        **gate_options,
    )
    credentials = ServerCredentials(server.chain_pem, server.key_pem, ca)
    handler = gate.generic_handler(methods)
    listener = await listen(
        "127.0.0.1:0",
        credentials.credentials,
        handler,
        max_connections=max_connections,
        options=options,
    )
    try:
        yield World(pki, gate, denylist, credentials, listener, refusals)
    finally:
        await listener.server.stop(0)


@asynccontextmanager
async def undisturbed(world: World) -> AsyncIterator[Leaf]:
    """A good node with an open stream, which must work before, during and after the attack."""
    leaf = world.pki.node()
    async with world.channel(leaf) as channel:
        call = stream(channel)
        await call.write(b"before")
        assert await call.read() == b"before"
        yield leaf
        await call.write(b"after")
        assert await call.read() == b"after"
        assert await unary(channel, WHO.name)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
