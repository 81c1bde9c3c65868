"""One RPC as a handler sees it: who calls, bytes in, bytes out.

All four kinds of RPC look the same here, as they do on the wire: a unary request is one message
and then the end. Handlers get raw bytes, because gRPC answers a message that it cannot parse
without asking us, and nobody would ever hear of it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from fedsec.errors import ProtocolError
from fedsec.identity.names import Principal, Role

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)

Read = Callable[[], Awaitable[bytes | None]]
Write = Callable[[bytes], Awaitable[None]]


class CallFailed(Exception):
    """What `Call.fail` raises; the gate answers it with exactly this status."""

    def __init__(self, status: grpc.StatusCode, sentence: str, code: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.code = code or status.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Call:
    """A running RPC.

    Args:
        principal: Who calls, from the certificate; None on the listener for enrolment alone.
        peer: The address, for logs, e.g. ``"ipv4:10.0.0.7:41000"``.
        method: Path of the RPC, e.g. ``"/fedsec.v1.Fleet/Session"``.
        read: Waits for the next request, None at their end; the end is also what a lost
            connection looks like, a moment before the handler is cancelled.
        write: Sends one reply; returns when gRPC has taken it, so a slow peer slows the handler.
    """

    principal: Principal | None
    peer: str
    method: str
    read: Read
    write: Write

    @property
    def who(self) -> str:
        """Who calls, for logs and errors: the label of the certificate, else the address."""
        return self.principal.label if self.principal else self.peer

    def caller(self) -> Principal:
        """Returns who calls.

        Raises:
            ProtocolError: ``anonymous``: the listener does not ask for certificates.
        """
        if self.principal is None:
            raise ProtocolError(self.peer, "anonymous", f"{self.method} needs a certificate")
        return self.principal

    async def receive(self, kind: type[Request]) -> Request | None:
        """Waits for the next request and parses it; None at the end of the requests.

        Raises:
            ProtocolError: ``malformed``: these bytes are no `kind`.
        """
        data = await self.read()
        return None if data is None else parse(kind, data, self.who)

    async def send(self, reply: Message) -> None:
        """Sends one reply."""
        await self.write(reply.SerializeToString())


Handler = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Method:
    """One row of a listener's table of RPCs.

    Args:
        name: Path, e.g. ``"/fedsec.v1.Fleet/Session"``.
        roles: Who may call it. Empty for the listener for enrolment, where nobody has a role yet.
        handler: Answers it.
        long_lived: It may stay open until the certificate expires; any other RPC is ended when it
            takes longer than the gate's patience.
    """

    name: str
    roles: frozenset[Role]
    handler: Handler
    long_lived: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """An RPC that was refused or cut short, for the log.

    Args:
        method: Path as the peer wrote it, cut to 100 printable characters.
        peer: Address.
        principal: Who, if the certificate was understood.
        code: One stable word, e.g. ``"revoked"``, ``"expired"``, ``"role"``, ``"malformed"``.
        reason: One sentence.
        unreported: Refusals of this peer before this one that were too many to report.
    """

    method: str
    peer: str
    principal: Principal | None
    code: str
    reason: str
    unreported: int = 0


def parse(kind: type[Request], data: bytes, peer: str) -> Request:
    """Returns the message of type `kind` that `data` encodes.

    Raises:
        ProtocolError: ``malformed``: `data` encodes no such message.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise ProtocolError(
            peer, "malformed", f"{len(data)} bytes are no {kind.DESCRIPTOR.full_name}"
        ) from None


def unary(kind: type[Request], answer: Callable[[Call, Request], Awaitable[Message]]) -> Handler:
    """Makes a handler of a function from one request to one reply."""

    async def handler(call: Call) -> None:
        await call.send(await answer(call, await _only(call, kind)))

    return handler


def server_stream(
    kind: type[Request], answer: Callable[[Call, Request], Awaitable[None]]
) -> Handler:
    """Makes a handler of a function that gets one request and sends any number of replies."""

    async def handler(call: Call) -> None:
        await answer(call, await _only(call, kind))

    return handler


async def _only(call: Call, kind: type[Request]) -> Request:
    request = await call.receive(kind)
    if request is None:
        raise ProtocolError(call.who, "malformed", f"the call brought no {kind.__name__}")
    return request
