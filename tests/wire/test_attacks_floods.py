"""Floods and slowness of an enrolled node below gRPC, in frames of HTTP/2 made by hand.

Each is cut off or costs nothing, while a good node that is connected all the time is served at
once. Connections beyond their number: `test_channels`; silent ones: `test_attacks_tls`; uploads
that stall: `test_streams_bad`; calls beyond their rate: `test_gate`.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from fedsec.wire.options import MAX_CONCURRENT_STREAMS
from tests.wire.gated import (
    ECHO,
    WHO,
    World,
    gated,
    python_context,
    run,
    undisturbed,
    until,
)
from tests.wire.raw_http2 import GOAWAY, OPENING, frames, headers, ping, reset

AT_ONCE_S = 1.0
HOST = "localhost"
MANY = 4000
ENHANCE_YOUR_CALM = 11
PATIENCE_S = 20


def pings() -> Iterator[bytes]:
    yield from map(ping, range(MANY))


def calls_given_up() -> Iterator[bytes]:
    """Begins a call and resets it, over and over: "rapid reset"."""
    for stream in range(1, 2 * MANY, 2):
        yield headers(stream, ECHO.name, HOST) + reset(stream)


def streams() -> Iterator[bytes]:
    """Opens far more calls than the coordinator allows, and ends none."""
    for stream in range(1, 2 * MANY, 2):
        yield headers(stream, ECHO.name, HOST)


FLOODS: dict[str, Callable[[], Iterable[bytes]]] = {
    "pings": pings,
    "calls given up": calls_given_up,
    "streams": streams,
}


@contextlib.contextmanager
def connected(world: World, directory: Path) -> Iterator[ssl.SSLSocket]:
    context = python_context(world, world.pki.node(), directory)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", world.listener.port), timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as tls,
    ):
        tls.sendall(OPENING)
        yield tls


def flood(world: World, directory: Path, data: Iterable[bytes]) -> bytes:
    """Sends all of it, or as much as is taken; returns what came back until the end or silence."""
    with connected(world, directory) as tls:
        with contextlib.suppress(OSError):  # it was cut off
            for each in data:
                tls.sendall(each)
        tls.settimeout(0.5)
        answered = bytearray()
        with contextlib.suppress(OSError):
            while more := tls.recv(65536):
                answered += more
        return bytes(answered)


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_keeps_nobody_waiting_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with gated() as world, undisturbed(world) as good:
            flooding = asyncio.create_task(
                asyncio.to_thread(flood, world, tmp_path, FLOODS[name]())
            )
            most, waits = 0, []
            while not flooding.done():
                began = time.monotonic()
                assert await world.ask(good)
                waits.append(time.monotonic() - began)
                most = max(most, world.gate.open_calls)
            assert sorted(waits)[len(waits) // 2] < AT_ONCE_S
            assert most <= MAX_CONCURRENT_STREAMS + 2, "the good node has two calls"
            await until(lambda: world.gate.open_calls == 1, PATIENCE_S)  # the good node's stream

    run(main())


def test_who_pings_without_end_is_cut_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with gated() as world, undisturbed(world):
            answered = await asyncio.to_thread(flood, world, tmp_path, pings())
            [last] = [payload for kind, payload in frames(answered) if kind == GOAWAY]
            assert int.from_bytes(last[4:8], "big") == ENHANCE_YOUR_CALM
            assert last[8:] == b"too_many_pings"

    run(main())


def test_a_header_that_never_ends_is_no_call(tmp_path: Path) -> None:
    """A byte at a time, on twenty connections: no handler begins, and nobody waits for them."""

    async def main() -> None:
        async with gated() as world, undisturbed(world) as good:
            with contextlib.ExitStack() as stack:
                slow = [
                    await asyncio.to_thread(stack.enter_context, connected(world, tmp_path))
                    for _ in range(20)
                ]
                waits = []
                for byte in headers(1, WHO.name, HOST)[:12]:
                    for each in slow:
                        each.sendall(bytes([byte]))
                    began = time.monotonic()
                    assert await world.ask(good)
                    waits.append(time.monotonic() - began)
                assert sorted(waits)[len(waits) // 2] < AT_ONCE_S
                assert world.gate.open_calls == 1  # the good node's stream

    run(main())
