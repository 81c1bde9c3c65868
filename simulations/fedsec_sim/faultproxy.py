"""A TCP proxy on loopback that cuts, stalls and heals connections on command, for tests.

It stands between a node and the coordinator and knows nothing of TLS: what it does to bytes a bad
network does too. The proxy runs on a thread of its own; every method may be called from any thread.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Self

from fedsec.errors import StateError

Direction = Literal["up", "down"]

_CHUNK = 1 << 14  # bytes read at a time; a cut is exact all the same
_PATIENCE = 10.0  # seconds for the proxy's own thread to answer


class FaultProxy:
    """Forwards connections to `target` until it is told to be a bad network.

    Args:
        target: ``"host:port"`` of the server.

    Attributes:
        address: ``"127.0.0.1:port"``, where clients connect instead.
        passed: Bytes forwarded so far; "up" is towards the server.
        connections: Connections accepted so far.
        cuts: Connections that the proxy broke so far.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host.strip("[]"), int(port))
        self.address = ""
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self.connections = 0
        self.cuts = 0
        self._limit: dict[Direction, int | None] = {"up": None, "down": None}
        self._open: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._refusing = False
        self._flows = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self._thread.start()
        self._ask(self._start)
        return self

    def __exit__(self, *_: object) -> None:
        self._ask(self._shut)
        if self._loop:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_PATIENCE)
            self._loop.close()

    def cut_after(self, count: int, direction: Direction = "up") -> None:
        """Breaks the connection that carries the byte after the next `count`, and only that one.

        Args:
            count: Bytes that still pass in `direction`, over all connections together, >= 0.
            direction: Which bytes count.
        """
        self._ask(lambda: self._set_limit(direction, count))

    def cut(self) -> None:
        """Breaks every open connection at once; new ones are accepted."""
        self._ask(self._cut_all)

    def stall(self) -> None:
        """Lets no byte pass; connections stay open and new ones are accepted."""
        self._ask(self._flows.clear)

    def refuse(self) -> None:
        """Breaks every connection, and each new one, until `heal`."""
        self._ask(lambda: self._set_refusing(refusing=True))

    def heal(self) -> None:
        """Is a good network again; what was stalled passes."""
        self._ask(lambda: self._set_refusing(refusing=False))

    def _ask(self, action: Callable[[], object]) -> None:
        """Runs `action` on the proxy's thread and waits for it."""

        async def call() -> None:
            result = action()
            if asyncio.iscoroutine(result):
                await result

        if self._loop is None or self._loop.is_closed():
            raise StateError("the fault proxy is not running; use it in a `with` block")
        asyncio.run_coroutine_threadsafe(call(), self._loop).result(_PATIENCE)

    async def _start(self) -> None:
        self._flows.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _shut(self) -> None:
        if self._server:
            self._server.close()
        self._flows.set()
        self._cut_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # their connections are gone, so they end by themselves
            await asyncio.wait(others, timeout=_PATIENCE / 2)

    def _set_limit(self, direction: Direction, count: int) -> None:
        self._limit[direction] = self.passed[direction] + count

    def _set_refusing(self, *, refusing: bool) -> None:
        self._refusing = refusing
        self._flows.set()
        if refusing:
            self._cut_all()

    def _cut_all(self) -> None:
        for pair in tuple(self._open):
            self._break(pair)

    def _break(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        if pair in self._open:
            self._open.discard(pair)
            self.cuts += 1
            for writer in pair:
                _reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            self.cuts += 1
            _reset(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        pair = (writer, up_writer)
        self._open.add(pair)
        await asyncio.gather(
            self._pump(reader, up_writer, "up", pair), self._pump(up_reader, writer, "down", pair)
        )
        self._open.discard(pair)
        for end in pair:
            end.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: Direction,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                limit = self._limit[direction]
                room = (
                    len(data) if limit is None else min(len(data), limit - self.passed[direction])
                )
                self.passed[direction] += room
                writer.write(data[:room])
                await writer.drain()
                if room < len(data):
                    self._limit[direction] = None
                    self._break(pair)
                    return
            if pair in self._open and writer.can_write_eof():
                writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection as a broken network does: no goodbye, nothing flushed."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
