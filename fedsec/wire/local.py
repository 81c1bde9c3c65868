"""Frames between two processes of one machine, over a Unix socket, with descriptors beside them.

    frame = u32be(length) || payload            length <= 4 MiB

A descriptor travels with the first byte of its frame. The receiver reads the four bytes of the
length by themselves, so that what the kernel hands over beside them belongs to this frame.
Spec: docs/spec/wire.md, "Local hop".
"""

import array
import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fedsec.errors import ProtocolError
from fedsec.failpoints import reach

MAX_FRAME = 4 << 20
MAX_DESCRIPTORS = 1

_HEAD = 4
_FD_BYTES = array.array("i").itemsize
_ANCILLARY_BYTES = socket.CMSG_SPACE(8 * _FD_BYTES)  # room to see, and close, some too many
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

Received = tuple[bytes, list[int]]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Returns two connected sockets, one for each process. Neither is inherited by itself."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


class LocalSocket:
    """Blocking frames. Any thread may `send`; one thread at a time may `receive`.

    Args:
        sock: Connected; owned from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._sending = threading.RLock()
        self._receiving = threading.RLock()
        self._reader = _FrameReader(sock)

    def send(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        """Sends one frame; `fds` (at most one) stay the caller's, who may close them at once.

        Waits while the other side does not read.

        Raises:
            ProtocolError: ``too-large``, the frame is beyond 4 MiB; nothing was sent.
            BrokenPipeError: The other process is gone.
        """
        outgoing = _Outgoing.of(frame, fds)
        with self._sending:
            if self._sock.fileno() < 0:
                raise BrokenPipeError("the local socket was closed")
            reach("frame leaving")
            with _broken_pipe():
                while outgoing.rest:
                    outgoing.send_some(self._sock)
            reach("frame left")

    def receive(self, timeout: float | None = None) -> Received | None:
        """Returns the next frame and its descriptors, the caller's to close; None at the end.

        Args:
            timeout: Seconds to wait, None for ever. What arrived of a frame until then is kept.

        Raises:
            TimeoutError: No whole frame came in time.
            ProtocolError: ``too-large``, ``too-many-descriptors``, or ``cut-frame``: the other side
                ended in the middle of a frame. Nothing sensible can be read after it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._receiving:
            if self._sock.fileno() < 0:
                return None
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
                if not poll.poll(left):
                    raise TimeoutError(f"no frame within {timeout} seconds")
                try:
                    frame = self._reader.step()
                except EOFError:
                    return None
                if frame is not None:
                    return frame

    def close(self) -> None:
        """Closes the socket; the other side sees the end, a `receive` that waits returns None."""
        with contextlib.suppress(OSError):  # not connected any more
            self._sock.shutdown(socket.SHUT_RDWR)
        with self._receiving, self._sending:  # those who wait leave, and the number is not reused
            self._sock.close()
            self._reader.drop()


class AsyncLocalSocket:
    """The same frames in an event loop. Any task may `send`; one task at a time may `receive`.

    Args:
        sock: Connected; owned from now on.
        loop: The loop that runs the callers.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._reader = _FrameReader(sock)
        self._readable: asyncio.Future[None] | None = None
        self._queue: deque[tuple[_Outgoing, asyncio.Future[None]]] = deque()
        self._closed = False

    async def send(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        """Sends one frame and returns when the kernel has all of it: that is the backpressure.

        Frames leave whole and in the order of the calls. One whose sender is cancelled is sent
        nevertheless: half a frame would spoil all that follow.

        Raises:
            ProtocolError: ``too-large``, the frame is beyond 4 MiB; nothing was sent.
            BrokenPipeError: The other process is gone, or this socket was closed.
        """
        outgoing = _Outgoing.of(frame, fds)
        if self._closed:
            raise BrokenPipeError("the local socket was closed")
        if not self._queue and self._flushed(outgoing):
            return
        outgoing.keep_fds()
        sent: asyncio.Future[None] = self._loop.create_future()
        self._queue.append((outgoing, sent))
        if len(self._queue) == 1:
            self._loop.add_writer(self._sock, self._flush)
        await sent

    async def receive(self) -> Received | None:
        """Returns the next frame and its descriptors, the caller's to close; None at the end.

        A cancelled call loses nothing.

        Raises:
            ProtocolError: As `LocalSocket.receive`.
        """
        await asyncio.sleep(0)  # a sender that never pauses must not keep the loop to itself
        while not self._closed:
            try:
                frame = self._reader.step()
            except EOFError:
                return None
            except BlockingIOError:
                await self._until_readable()
                continue
            if frame is not None:
                return frame
        return None

    def close(self) -> None:
        """Closes the socket. A waiting `receive` returns None, a waiting `send` raises."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._reader.drop()
        self._fail_senders(BrokenPipeError("the local socket was closed"))
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    async def _until_readable(self) -> None:
        self._readable = self._loop.create_future()
        self._loop.add_reader(self._sock, _wake, self._readable)
        try:
            await self._readable
        finally:
            self._readable = None
            if not self._closed:
                self._loop.remove_reader(self._sock)

    def _flushed(self, outgoing: "_Outgoing") -> bool:
        """Sends what the kernel takes now and tells whether that was all."""
        with contextlib.suppress(BlockingIOError), _broken_pipe():
            while outgoing.rest:
                outgoing.send_some(self._sock)
        return not outgoing.rest

    def _flush(self) -> None:
        try:
            while self._queue and self._flushed(self._queue[0][0]):
                outgoing, sent = self._queue.popleft()
                outgoing.drop_fds()
                _wake(sent)
        except OSError as error:
            self._fail_senders(error)
        if not self._queue:
            self._loop.remove_writer(self._sock)

    def _fail_senders(self, error: OSError) -> None:
        while self._queue:
            outgoing, sent = self._queue.popleft()
            outgoing.drop_fds()
            if not sent.done():
                sent.set_exception(error)


@dataclass(slots=True)
class _Outgoing:
    """What is still to be sent of one frame."""

    rest: memoryview
    fds: list[int]
    kept: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, frame: bytes, fds: Sequence[int]) -> "_Outgoing":
        if len(frame) > MAX_FRAME:
            raise ProtocolError(
                "", "too-large", f"a local frame of {len(frame)} bytes, at most {MAX_FRAME} go"
            )
        if len(fds) > MAX_DESCRIPTORS:
            raise ProtocolError(
                "", "too-many-descriptors", f"{len(fds)} descriptors with one frame, 1 goes"
            )
        return cls(memoryview(len(frame).to_bytes(_HEAD, "big") + frame), list(fds))

    def send_some(self, sock: socket.socket) -> None:
        """Sends as much as the kernel takes; the descriptors go with the first byte."""
        if self.fds:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", self.fds).tobytes())
            sent = sock.sendmsg([self.rest], [rights])
            self.fds = []
        else:
            sent = sock.send(self.rest)
        self.rest = self.rest[sent:]

    def keep_fds(self) -> None:
        """Makes the descriptors our own, for the caller may close its ones before they go."""
        self.kept = self.fds = [os.dup(fd) for fd in self.fds]

    def drop_fds(self) -> None:
        _close_all(self.kept)
        self.kept = []


class _FrameReader:
    """Puts frames together from what the socket yields."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fds: list[int] = []
        self._buffer = bytearray(_HEAD)
        self._filled = 0
        self._in_head = True

    def step(self) -> Received | None:
        """Reads once; returns the frame if that completed it.

        Raises:
            EOFError: The other side ended between two frames.
            BlockingIOError: Nothing is there.
            ProtocolError: see `LocalSocket.receive`.
        """
        if not self._fill():
            if self._in_head and not self._filled:
                raise EOFError
            self.drop()
            raise ProtocolError("", "cut-frame", "the other process ended in mid-frame")
        if self._filled < len(self._buffer):
            return None
        if self._in_head:
            length = int.from_bytes(self._buffer, "big")
            if length > MAX_FRAME:
                self.drop()
                raise ProtocolError(
                    "",
                    "too-large",
                    f"a local frame of {length} bytes, at most {MAX_FRAME} accepted",
                )
            self._expect(length, in_head=False)
            if length:
                return None
        frame, fds = bytes(self._buffer), self._fds
        self._fds = []
        self._expect(_HEAD, in_head=True)
        return frame, fds

    def drop(self) -> None:
        """Closes the descriptors of a frame that will never be complete."""
        _close_all(self._fds)
        self._fds = []

    def _expect(self, length: int, *, in_head: bool) -> None:
        self._buffer = bytearray(length)
        self._filled = 0
        self._in_head = in_head

    def _fill(self) -> int:
        """Returns the bytes that one read added to the buffer; 0 at the end."""
        rest = memoryview(self._buffer)[self._filled :]
        # What comes beside the bytes of a payload, the kernel closes.
        read = self._read_head if self._in_head else self._sock.recv_into
        try:
            count = read(rest)
        except ConnectionResetError:  # the other side ended without having read all of ours
            return 0
        self._filled += count
        return count

    def _read_head(self, rest: memoryview) -> int:
        count, ancillary, flags, _ = self._sock.recvmsg_into(
            [rest], _ANCILLARY_BYTES, _CLOSE_ON_EXEC
        )
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(data) - len(data) % _FD_BYTES
                self._fds += array.array("i", data[:whole])
        if len(self._fds) > MAX_DESCRIPTORS or flags & socket.MSG_CTRUNC:
            self.drop()
            raise ProtocolError(
                "",
                "too-many-descriptors",
                "more than one descriptor came with one frame, or more than may be open here",
            )
        return count


@contextlib.contextmanager
def _broken_pipe() -> Iterator[None]:
    """Gives the ways in which the other side can be gone one name and one sentence."""
    try:
        yield
    except ConnectionError as error:
        raise BrokenPipeError("the process at the other end of the local socket is gone") from error


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
