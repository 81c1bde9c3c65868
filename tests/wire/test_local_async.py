"""The same local frames in an event loop."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ProtocolError
from fedsec.wire.blobs import Blob
from fedsec.wire.local import AsyncLocalSocket, LocalSocket, socket_pair
from tests.wire.descriptors import open_fds


def run_async(test: Callable[[AsyncLocalSocket, AsyncLocalSocket], Awaitable[None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        one, other = (AsyncLocalSocket(sock, loop) for sock in socket_pair())
        try:
            await asyncio.wait_for(test(one, other), 30)
        finally:
            one.close()
            other.close()

    asyncio.run(main())


def content_of(fds: list[int]) -> list[bytes]:
    found = []
    for fd in fds:
        with Blob.adopt(fd, os.fstat(fd).st_size) as blob:
            found.append(bytes(blob.view()))
    return found


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_async_frames_arrive_whole_and_in_order(frames: list[bytes]) -> None:
    async def test(one: AsyncLocalSocket, other: AsyncLocalSocket) -> None:
        for frame in frames:
            await one.send(frame)
        one.close()
        assert [await other.receive() for _ in frames] == [(frame, []) for frame in frames]
        assert await other.receive() is None
        assert await other.receive() is None

    run_async(test)


def test_async_backpressure_holds_the_sender_and_keeps_descriptors() -> None:
    async def test(one: AsyncLocalSocket, other: AsyncLocalSocket) -> None:
        before = open_fds()
        sends = []
        for i in range(6):
            with Blob.write([b"content %d" % i]) as blob:
                sends.append(asyncio.create_task(one.send(bytes([i]) * 1_000_000, [blob.fd])))
                await asyncio.sleep(0)  # the task runs up to its wait; then our descriptor closes
        assert not any(task.done() for task in sends)
        for i in range(6):
            frame, fds = await other.receive() or (b"", [])
            assert frame == bytes([i]) * 1_000_000
            assert content_of(fds) == [b"content %d" % i]
        await asyncio.gather(*sends)
        assert open_fds() == before

    run_async(test)


def test_a_cancelled_send_still_sends_whole_frames() -> None:
    async def test(one: AsyncLocalSocket, other: AsyncLocalSocket) -> None:
        sends = [asyncio.create_task(one.send(bytes([i]) * 1_000_000)) for i in range(3)]
        await asyncio.sleep(0)
        sends[0].cancel()
        sends[1].cancel()
        got = [await other.receive() for _ in range(3)]
        assert [frame[:1] for frame, _ in filter(None, got)] == [b"\0", b"\1", b"\2"]
        assert [len(frame) for frame, _ in filter(None, got)] == [1_000_000] * 3
        results = await asyncio.gather(*sends, return_exceptions=True)
        assert [type(result) for result in results] == [
            asyncio.CancelledError,
            asyncio.CancelledError,
            type(None),
        ]

    run_async(test)


def test_a_cancelled_receive_loses_nothing() -> None:
    async def test(one: AsyncLocalSocket, other: AsyncLocalSocket) -> None:
        one._sock.send(b"\0\0\0\5ab")
        receiving = asyncio.create_task(other.receive())
        for _ in range(5):
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        one._sock.send(b"cde")
        assert await other.receive() == (b"abcde", [])

    run_async(test)


def test_a_flood_leaves_the_loop_to_others() -> None:
    async def test(one: AsyncLocalSocket, other: AsyncLocalSocket) -> None:
        for _ in range(50):
            await one.send(b"x")
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        for _ in range(50):
            await other.receive()
        assert turns >= 49
        task.cancel()

    run_async(test)


def test_async_close_wakes_those_who_wait() -> None:
    async def test(one: AsyncLocalSocket, other: AsyncLocalSocket) -> None:
        before = open_fds()
        receiving = asyncio.create_task(one.receive())
        with Blob.write([b"abc"]) as blob:
            sends = [asyncio.create_task(one.send(bytes(3_000_000), [blob.fd])) for _ in range(2)]
            for _ in range(3):
                await asyncio.sleep(0)
        one.close()
        one.close()
        assert await receiving is None
        for send in sends:
            with pytest.raises(BrokenPipeError, match="was closed"):
                await send
        with pytest.raises(BrokenPipeError, match="was closed"):
            await one.send(b"x")
        assert await one.receive() is None
        with pytest.raises(ProtocolError, match="cut-frame"):
            await other.receive()
        assert open_fds() == before - 1

    run_async(test)


def test_async_send_to_nobody_is_a_broken_pipe() -> None:
    async def test(one: AsyncLocalSocket, other: AsyncLocalSocket) -> None:
        waiting = asyncio.create_task(one.send(bytes(3_000_000)))
        await asyncio.sleep(0)
        other.close()
        with pytest.raises(BrokenPipeError, match="is gone"):
            await waiting
        with pytest.raises(BrokenPipeError, match="is gone"):
            await one.send(b"x")
        assert await one.receive() is None

    run_async(test)


def test_both_kinds_speak_to_each_other() -> None:
    async def main() -> None:
        one, other = socket_pair()
        blocking = LocalSocket(other)
        sock = AsyncLocalSocket(one, asyncio.get_running_loop())

        def echo() -> None:
            while (received := blocking.receive(30)) is not None:
                blocking.send(*received)
                for fd in received[1]:
                    os.close(fd)

        thread = threading.Thread(target=echo)
        thread.start()
        for size in (0, 1, 100_000, 1_000_000):
            with Blob.write([bytes([size % 251]) * 5000]) as blob:
                await sock.send(bytes(size), [blob.fd])
                frame, fds = await sock.receive() or (b"", [])
                assert (frame, content_of(fds)) == (bytes(size), [bytes(blob.view())])
        sock.close()
        thread.join(10)
        blocking.close()

    asyncio.run(asyncio.wait_for(main(), 30))
