"""A client's stream in both directions, which tells truly how it ended.

When the other end ends a call while a message is being written to it, gRPC's `write` fails, and
puts INTERNAL "Internal error from Core" over the status, which may have come already or be about to
come. A node would never hear that it was revoked. Here the other end's status is kept when it
comes; it comes after all messages before it have been read, so somebody must be reading.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import TypeVar

import grpc
import grpc.aio

from fedsec.errors import ProtocolError

Value = TypeVar("Value")

_WRITE_FAILED = "Internal error from Core"  # gRPC's words
_SETTLE_S = 1.0  # the true status is at most this far behind


class Duplex:
    """A stream-stream call over raw bytes. One reader and one writer at a time.

    Args:
        channel: To the coordinator.
        path: E.g. ``"/fedsec.v1.Fleet/Session"``.
    """

    def __init__(self, channel: grpc.aio.Channel, path: str) -> None:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        self._end: tuple[grpc.StatusCode, str] | None = None
        self._ended = asyncio.Event()
        self._call = method()
        self._call.add_done_callback(self._note)

    async def write(self, message: bytes) -> None:
        """Sends one message; returns when gRPC has taken it.

        Raises:
            AioRpcError: How the call ended.
            ProtocolError: ``ended-early``, the other end has closed the call as if all was said.
        """
        try:
            await self._call.write(message)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError) as error:
            if not self._call.done():
                raise
            raise await self._how() from error

    async def read(self) -> bytes | None:
        """Waits for the next message; None when the other end has closed the call.

        Raises:
            AioRpcError: How the call ended, if otherwise.
        """
        try:
            data = await self._call.read()
        except grpc.aio.AioRpcError as error:
            how = await self._how()
            if isinstance(how, ProtocolError):
                return None
            raise how from error
        return data if isinstance(data, bytes) else None  # gRPC's own mark for the end

    async def done_writing(self) -> None:
        """Says that no more messages come. Does nothing when the call has ended."""
        await self._call.done_writing()

    def cancel(self) -> None:
        """Ends the call; who reads or writes then gets `asyncio.CancelledError`."""
        self._call.cancel()

    async def _how(self) -> grpc.aio.AioRpcError | ProtocolError:
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await self._ended.wait()
        code, details = self._end or (grpc.StatusCode.INTERNAL, _WRITE_FAILED)
        if code is grpc.StatusCode.OK:
            return ProtocolError("", "ended-early", "the other end has closed the call")
        nothing = grpc.aio.Metadata()
        return grpc.aio.AioRpcError(code, nothing, nothing, details=details)

    def _note(self, call: object) -> None:
        """Is called with each status that the call gets: the true one, and gRPC's own."""
        del call
        details = _at_once(self._call.details())
        if details != _WRITE_FAILED:
            self._end = _at_once(self._call.code()), details
            self._ended.set()


def _at_once(known: Coroutine[object, object, Value]) -> Value:
    """Returns the result of a coroutine that has nothing to wait for."""
    try:
        known.send(None)
    except StopIteration as done:
        value: Value = done.value
        return value
    known.close()
    raise RuntimeError("gRPC announced a status that it does not have")
