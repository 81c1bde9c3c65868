"""How a call ends: by itself, by its caller, by the gate. Over mutual TLS on loopback."""

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from fedsec.errors import (
    StateError,
)
from fedsec.wire.call import Call, Method
from fedsec.wire.gate import utc_now
from tests.wire.gated import (
    ECHO,
    METHODS,
    NODES,
    WHO,
    echo,
    gated,
    refused,
    run,
    stream,
    unary,
    until,
)

RENEW = "/fedsec.v1.Fleet/Renew"
SLOW = "/test.Service/Slow"


def test_a_handler_that_cancels_itself_ends_with_a_status() -> None:
    async def gives_up(call: Call) -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        async with gated([Method("/t/F", NODES, gives_up)]) as world:
            status, _ = await refused(world.ask(None, "/t/F"))
            assert status is grpc.StatusCode.ABORTED

    run(main())


def test_patience_ends_a_short_call_but_not_a_long_lived_one() -> None:
    rows = [
        Method(SLOW, NODES, echo),  # waits for requests that never come
        ECHO,
    ]

    async def main() -> None:
        async with gated(rows, patience_s=0.2) as world, world.channel() as channel:
            slow, lasting = stream(channel, SLOW), stream(channel)
            await lasting.write(b"1")
            assert await lasting.read() == b"1"
            status, details = await refused(slow.read())
            assert status is grpc.StatusCode.DEADLINE_EXCEEDED
            assert details == f"deadline-exceeded: {SLOW} took more than 0.2 s"
            await lasting.write(b"2")
            assert await lasting.read() == b"2"

    run(main())


def test_an_open_stream_ends_when_the_clock_is_set_beyond_its_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedsec.wire.jumps.LOOK_S", 0.02)
    slept = timedelta(0)

    async def main() -> None:
        nonlocal slept
        async with gated(clock=lambda: utc_now() + slept) as world:
            short, long = (world.pki.node(lifetime=timedelta(hours=h)) for h in (1, 3))
            async with world.channel(short) as one, world.channel(long) as other:
                ends, stays = stream(one), stream(other)
                for call in (ends, stays):
                    await call.write(b"1")
                    assert await call.read() == b"1"
                slept = timedelta(hours=2)
                status, details = await refused(ends.read())
                assert status is grpc.StatusCode.UNAUTHENTICATED
                assert details.startswith("expired: ")
                await stays.write(b"2")
                assert await stays.read() == b"2"

    run(main())


def test_a_caller_that_goes_away_cancels_its_handler_at_once() -> None:
    ended = asyncio.Event()

    async def waits(call: Call) -> None:
        try:
            await call.write(b"ready")
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def main() -> None:
        async with gated([Method("/t/W", NODES, waits, long_lived=True)]) as world:
            async with world.channel() as channel:
                call = stream(channel, "/t/W")
                assert await call.read() == b"ready"
                call.cancel()
                async with asyncio.timeout(1):
                    await ended.wait()
            await until(lambda: world.gate.open_calls == 0)
            assert world.refusals == []

    run(main())


def test_an_error_while_a_handler_is_cancelled_disturbs_nobody() -> None:
    async def stubborn(call: Call) -> None:
        try:
            await call.write(b"ready")
            await asyncio.Event().wait()
        finally:
            raise StateError("cleaning up failed")

    async def main() -> None:
        row = Method("/t/W", NODES, stubborn, long_lived=True)
        async with gated([*METHODS, row]) as world, world.channel() as channel:
            call = stream(channel, row.name)
            await call.read()
            call.cancel()
            await until(lambda: world.gate.open_calls == 0)
            assert await unary(channel, WHO.name)

    run(main())


def test_a_handler_that_will_not_end_keeps_nobody_in(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsec.wire.gate._CLEAN_UP_S", 0.1)
    release, started = asyncio.Event(), asyncio.Event()

    async def unwilling(call: Call) -> None:
        await call.read()
        started.set()
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    row = Method("/t/W", NODES, unwilling, long_lived=True)

    async def main() -> None:
        async with gated([row]) as world:
            leaf = world.pki.node()
            async with world.channel(leaf) as channel:
                call = stream(channel, row.name)
                await call.write(b"x")
                await started.wait()
                world.denylist.deny_identity(leaf.spiffe_id)
                async with asyncio.timeout(1):
                    status, _ = await refused(call.read())
                assert status is grpc.StatusCode.UNAUTHENTICATED
            release.set()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "/t/W does not end when cancelled" in caplog.text


async def _read_on(call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
    while True:
        await call.read()


def test_a_peer_that_does_not_read_is_shut_out_all_the_same() -> None:
    """Its handler stops at once; what gRPC holds already is all that it ever gets."""
    written = 0
    stopped = asyncio.Event()

    async def flood(call: Call) -> None:
        nonlocal written
        try:
            while True:
                await call.write(bytes(1 << 20))
                written += 1
        finally:
            stopped.set()

    async def main() -> None:
        async with gated([*METHODS, Method("/t/Flood", NODES, flood, long_lived=True)]) as world:
            leaf = world.pki.node()
            async with world.channel(leaf) as channel:
                call = stream(channel, "/t/Flood")
                await call.read()
                before = -1
                while before != written:  # until flow control holds the writer back
                    before = written
                    await asyncio.sleep(0.2)
                world.denylist.deny_identity(leaf.spiffe_id)
                async with asyncio.timeout(0.5):
                    await stopped.wait()
                assert world.gate.open_calls == 1  # counted until its status is out
                status, details = await refused(_read_on(call))
                assert status is grpc.StatusCode.UNAUTHENTICATED
                assert details.startswith("revoked: ")
                await until(lambda: world.gate.open_calls == 0)
            assert before < 64  # MiB that can be under way to a peer that does not read

    run(main())
