"""A client's stream tells how the other end ended it, also where gRPC's own would not."""

import asyncio

import grpc
import grpc.aio
import pytest

from fedsec.errors import ProtocolError, StateError
from fedsec.wire.answers import refusal_of
from fedsec.wire.call import Call, Method
from fedsec.wire.duplex import Duplex
from tests.wire.gated import ECHO, NODES, gated, refused, run

MIB = bytes(1 << 20)


async def refuses_in_between(call: Call) -> None:
    await call.read()
    await call.write(b"go on")
    await call.read()
    raise StateError("the run has ended")


async def is_content_early(call: Call) -> None:
    await call.read()


async def _write_on(call: Duplex) -> None:
    for _ in range(200):
        await call.write(MIB)


ROWS = [
    ECHO,
    Method("/t/Refuses", NODES, refuses_in_between, long_lived=True),
    Method("/t/Content", NODES, is_content_early, long_lived=True),
]


def test_messages_go_both_ways_and_the_end_is_none() -> None:
    async def main() -> None:
        async with gated(ROWS) as world, world.channel() as channel:
            call = Duplex(channel, ECHO.name)
            await call.write(b"1")
            assert await call.read() == b"1"
            await call.done_writing()
            assert await call.read() is None
            await call.done_writing()

    run(main())


@pytest.mark.parametrize("attempt", range(10))
def test_a_refusal_while_writing_is_what_the_other_end_said(attempt: int) -> None:
    """gRPC's own stream says INTERNAL in most of these."""

    async def main() -> None:
        async with gated(ROWS) as world, world.channel() as channel:
            call = Duplex(channel, "/t/Refuses")
            await call.write(b"begin")
            assert await call.read() == b"go on"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _write_on(call)
            assert refusal_of(caught.value) == ("state", "the run has ended")
            # and again, for whoever else asks
            for late in (call.read(), call.write(b"x")):
                assert (await refused(late))[1] == "state: the run has ended"

    run(main())


def test_an_end_without_an_error_while_writing_is_told_apart() -> None:
    async def main() -> None:
        async with gated(ROWS) as world, world.channel() as channel:
            call = Duplex(channel, "/t/Content")
            with pytest.raises(ProtocolError) as caught:
                await _write_on(call)
            assert caught.value.code == "ended-early"
            assert await call.read() is None

    run(main())


def test_nobody_there() -> None:
    async def main() -> None:
        async with gated(ROWS) as world, world.channel() as channel:
            await world.listener.server.stop(0)
            call = Duplex(channel, ECHO.name)
            status, _ = await refused(call.write(b"x"))
            assert status is grpc.StatusCode.UNAVAILABLE

    run(main())


def test_ones_own_cancel_is_a_cancellation() -> None:
    async def main() -> None:
        async with gated(ROWS) as world, world.channel() as channel:
            call = Duplex(channel, ECHO.name)
            await call.write(b"x")
            assert await call.read() == b"x"
            reader = asyncio.ensure_future(call.read())
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader

    run(main())


def test_writing_after_the_last_message_is_the_callers_mistake() -> None:
    async def main() -> None:
        async with gated(ROWS) as world, world.channel() as channel:
            call = Duplex(channel, ECHO.name)
            await call.write(b"x")
            await call.done_writing()
            with pytest.raises(asyncio.InvalidStateError):
                await call.write(b"y")
            call.cancel()

    run(main())
