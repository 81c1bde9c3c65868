"""The control stream of a node, as the coordinator writes to it."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fedsec.wire.call import Write
from fedsec.wire.generated.fleet_pb2 import CoordinatorFrame, Refused


@dataclass(frozen=True, slots=True)
class Member:
    """An enrolled node, as its certificate and the enrolment record say.

    Args:
        node_id: As enrolled.
        name: The operator's name for it.
        spiffe_id: Of its certificate.
    """

    node_id: int
    name: str
    spiffe_id: str


class Session:
    """Frames for one node, in order. Anyone may `send`; one task runs `write_all`.

    What waits here is bounded by what runs ask of the node at a time.

    Args:
        member: Whose control stream it is.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self.on_end: Callable[[], None] = _nothing
        self._frames: deque[bytes] = deque()
        self._awake = asyncio.Event()
        self._ended = False

    def send(self, frame: CoordinatorFrame) -> None:
        """Queues a frame; after the end of the session it is dropped."""
        if not self._ended:
            self._frames.append(frame.SerializeToString())
            self._awake.set()

    def silence(self) -> None:
        """Drops what still waits: another session says it from now on."""
        self._frames.clear()

    def end(self, code: str, reason: str) -> None:
        """Sends `Refused` in place of all that still waits, and nothing after it."""
        if not self._ended:
            self._frames.clear()
            self.send(CoordinatorFrame(refused=Refused(code=code, reason=reason)))
            self._ended = True
            self.on_end()

    def finish(self) -> None:
        """Lets `write_all` return when all that waits is written; nothing is sent after it."""
        self._ended = True
        self._awake.set()

    async def write_all(self, write: Write) -> None:
        """Writes frames as they come, until the session has ended."""
        while True:
            while self._frames:
                await write(self._frames.popleft())
            if self._ended:
                return
            self._awake.clear()
            await self._awake.wait()


def _nothing() -> None:
    """What a session that nobody watches does at its end."""
