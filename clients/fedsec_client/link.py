"""A connection to the coordinator with its control stream, and which one is the present one.

    Link:    opening --Welcome--> up --cut, Refused, close--> over
                                  up --retire--> retiring --its transfers end--> over

A renewed certificate needs a new connection. It is made before the old one is given up: the new
link becomes the present one, and the old link retires, which lets its fetches and stores finish.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import grpc
import grpc.aio

from fedsec.console import safe
from fedsec.errors import FedsecError, ProtocolError
from fedsec.wire.answers import refusal_of
from fedsec.wire.call import parse
from fedsec.wire.generated.fleet_pb2 import CoordinatorFrame, Hello, NodeFrame, Welcome
from fedsec_client.versions import SOFTWARE, protocol_version

SESSION = "/fedsec.v1.Fleet/Session"
WELCOME_S = 20.0  # a handshake and one exchange; a frozen coordinator is noticed after 13 s
_COORDINATOR = "coordinator"
_CLOSE_S = 2.0

_LOG = logging.getLogger(__name__)


class LinkLostError(FedsecError):
    """A link could not be made, or has ended.

    Args:
        code: ``"revoked"``, ``"version"``, ``"replaced"``, ... as the coordinator said, or gRPC's
            status in lower case, e.g. ``"unavailable"``, where no coordinator spoke.
        detail: One sentence.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Link:
    """A channel of its own and the control stream on it.

    Args:
        channel: Owned from now on.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.over = asyncio.Event()
        self._call: grpc.aio.StreamStreamCall[bytes, bytes] | None = None
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._closed = False
        self._transfers = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def open(self, held: Iterable[str]) -> Welcome:
        """Begins the control stream and returns the coordinator's welcome.

        Args:
            held: Ids of the messages that the agent works on or holds a reply for.

        Raises:
            LinkLostError: The coordinator is not there, is not who it must be, or refuses.
        """
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = self.channel.stream_stream(SESSION)
        self._call = method()
        hello = Hello(version=protocol_version(), software=SOFTWARE, held=held)
        try:
            async with asyncio.timeout(WELCOME_S):
                await self._call.write(NodeFrame(hello=hello).SerializeToString())
                frame = await self._read()
        except TimeoutError:
            raise LinkLostError("no-answer", f"no welcome within {WELCOME_S:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise LinkLostError(*refusal_of(error)) from error
        except asyncio.InvalidStateError:  # the call ended before the hello was out; read why
            frame = await self._read()
        if frame is None or frame.WhichOneof("kind") != "welcome":
            raise LinkLostError("no-welcome", "the coordinator's first frame was no welcome")
        return frame.welcome

    async def run(self, on_frame: Callable[[CoordinatorFrame], None]) -> None:
        """Reads frames until the stream ends, and writes what `send` queued.

        Args:
            on_frame: Gets each frame, in order; must not wait.

        Raises:
            LinkLostError: How it ended. A retired link ends without one.
        """
        writer = asyncio.create_task(self._write_all())
        try:
            while (frame := await self._read()) is not None:
                on_frame(frame)
            end = LinkLostError("ended", "the coordinator ended the session")
        except LinkLostError as error:
            end = error
        finally:
            writer.cancel()
            retired = self.over.is_set()
            self.over.set()
        if not retired:
            raise end

    def send(self, frame: NodeFrame) -> None:
        """Queues a frame. What is lost with the link is for the sender to send again."""
        self._outgoing.put_nowait(frame.SerializeToString())

    @contextmanager
    def in_use(self) -> Iterator[grpc.aio.Channel]:
        """Gives the channel for a transfer, which a retiring link waits for."""
        self._transfers += 1
        self._quiet.clear()
        try:
            yield self.channel
        finally:
            self._transfers -= 1
            if not self._transfers:
                self._quiet.set()

    async def retire(self) -> None:
        """Ends the control stream, waits for the transfers, closes the channel."""
        self.over.set()
        if self._call is not None:
            with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
                await self._call.done_writing()
        await self._quiet.wait()
        await self.close()

    async def close(self) -> None:
        """Cuts everything that goes over the link. Harmless when done before."""
        self.over.set()
        if self._closed:
            return
        self._closed = True
        if self._call is not None:
            self._call.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self.channel.close()

    async def _read(self) -> CoordinatorFrame | None:
        """Returns the next frame, None at the end; a refusal is raised."""
        if self._call is None:
            raise LinkLostError("closed", "the session was not opened")
        try:
            data = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise LinkLostError(*refusal_of(error)) from error
        except asyncio.CancelledError:
            if self.over.is_set():  # our own cancel of the call, not of this task
                return None
            raise
        if not isinstance(data, bytes):
            return None
        try:
            frame = parse(CoordinatorFrame, data, _COORDINATOR)
        except ProtocolError as error:
            raise LinkLostError(error.code, error.detail) from error
        if frame.WhichOneof("kind") == "refused":
            raise LinkLostError(frame.refused.code, frame.refused.reason)
        return frame

    async def _write_all(self) -> None:
        while self._call is not None:
            data = await self._outgoing.get()
            try:
                await self._call.write(data)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                _LOG.debug("the control stream takes no more: %s", safe(error))
                return  # whoever reads hears how it ended


class Uplink:
    """The present link, if there is one."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._there = asyncio.Event()

    @property
    def link(self) -> Link | None:
        """The present link."""
        return self._link

    async def current(self) -> Link:
        """Waits for a link that is not over, and returns it."""
        while True:
            await self._there.wait()
            if self._link is not None and not self._link.over.is_set():
                return self._link
            self._there.clear()

    def switch(self, link: Link) -> Link | None:
        """Makes `link` the present one; returns the one before."""
        before, self._link = self._link, link
        self._there.set()
        return before

    def drop(self, link: Link) -> None:
        """Notes that `link` is over; does nothing when it is not the present one."""
        if self._link is link:
            self._link = None
            self._there.clear()
