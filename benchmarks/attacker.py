"""Who attacks in `under_attack.py`: one enrolled node, or somebody without a certificate.

    attacker.py FILE NAME       does NAME at a steady pace until stdin ends; then says how often

How often it came to attack, and was refused, it says on stdout, as JSON.
"""

import asyncio
import json
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import grpc.aio

from fedsec.wire.channels import open_channel
from fedsec.wire.content import Manifest
from fedsec.wire.credentials import node_credentials
from fedsec.wire.duplex import Duplex
from fedsec.wire.generated.fleet_pb2 import ContentFrame, NodeFrame, RenewRequest, StoreBegin
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import new_message_id
from fedsec.wire.streams import STORE
from fedsec_client.link import Link, LinkLostError

PACE_S = 0.02
MOST_OPEN = 500  # silent connections at a time
RENEW = "/fedsec.v1.Fleet/Renew"


class Attacker:
    """What one enrolled node, or a stranger, does wrong; `refused` counts how often it was told."""

    def __init__(self, told: dict[str, str]) -> None:
        self.address = told["address"]
        self._anchors = told["servers_ca"].encode()
        self._pair = told["chain"].encode(), told["key"].encode()
        self._channel: grpc.aio.Channel | None = None
        self._link: Link | None = None
        self._open: list[socket.socket] = []
        self.refused = 0

    @property
    def channel(self) -> grpc.aio.Channel:
        """One of its own, for as long as an attack lasts."""
        if self._channel is None:
            credentials = node_credentials(self._anchors, *self._pair)
            self._channel = open_channel(self.address, credentials)
        return self._channel

    async def close(self) -> None:
        """Lets go of everything."""
        for each in self._open:
            each.close()
        self._open.clear()
        if self._link is not None:
            await self._link.close()
        elif self._channel is not None:
            await self._channel.close()
        self._link = self._channel = None

    async def silent_connection(self) -> None:
        """Connects and says nothing; the coordinator closes it after its time for handshakes."""
        host, _, port = self.address.rpartition(":")
        if len(self._open) == MOST_OPEN:
            self._open.pop(0).close()
        self._open.append(socket.create_connection((host, int(port))))
        self.refused += 1

    async def no_certificate(self) -> None:
        """Shakes hands without a certificate."""
        await asyncio.to_thread(self._shake_hands)

    def _shake_hands(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        host, _, port = self.address.rpartition(":")
        with (
            suppress(OSError),
            socket.create_connection((host, int(port)), timeout=5) as plain,
            context.wrap_socket(plain) as tls,
        ):
            tls.recv(1)  # TLS 1.3 tells the refusal after the handshake
        self.refused += 1

    async def malformed_call(self) -> None:
        """Sends what is no request of this method."""
        await self._refused(self.channel.unary_unary(RENEW)(b"\xff" * 1000, timeout=20))

    async def bad_request(self) -> None:
        """Asks for a certificate with what is no signing request."""
        request = RenewRequest(csr_der=b"no request").SerializeToString()
        await self._refused(self.channel.unary_unary(RENEW)(request, timeout=20))

    async def unasked_upload(self) -> None:
        """Uploads what nobody asked for, under an id of its own making."""
        manifest = Manifest.of(bytes(1000)).to_proto()
        await self._begin(StoreBegin(reply_to=new_message_id(), manifest=manifest))

    async def huge_upload(self) -> None:
        """Announces more than any message may carry."""
        chunks = 5000
        manifest = Manifest(chunks << 20, (bytes(32),) * chunks).to_proto()
        await self._begin(StoreBegin(reply_to=new_message_id(), manifest=manifest))

    async def forged_reply(self) -> None:
        """Answers what it was never asked, over a session that it opens again when it was cut."""
        if self._link is None or self._link.over.is_set():
            await self.close()
            self._link = Link(self.channel)
            await self._link.open(())
            self._running = asyncio.ensure_future(self._listen(self._link))
        self._link.send(NodeFrame(reply=Header(message_id=new_message_id(), reply_to="0" * 32)))

    async def _listen(self, link: Link) -> None:
        with suppress(LinkLostError):  # too many replies were refused, or too many sessions opened
            await link.run(lambda _frame: self._told())

    def _told(self) -> None:
        self.refused += 1

    async def _begin(self, begin: StoreBegin) -> None:
        call = Duplex(self.channel, STORE)
        try:
            await call.write(ContentFrame(begin=begin).SerializeToString())
            await call.read()
        except grpc.aio.AioRpcError:
            self.refused += 1
        finally:
            call.cancel()

    async def _refused(self, call: "Awaitable[bytes]") -> None:
        try:
            await call
        except grpc.aio.AioRpcError:
            self.refused += 1


ATTACKS: dict[str, Callable[[Attacker], Awaitable[None]]] = {
    "silent connections": Attacker.silent_connection,
    "handshakes without a certificate": Attacker.no_certificate,
    "malformed calls": Attacker.malformed_call,
    "false signing requests": Attacker.bad_request,
    "uploads that nobody asked for": Attacker.unasked_upload,
    "uploads of 5 GB": Attacker.huge_upload,
    "replies to what was not asked": Attacker.forged_reply,
}


async def attack(attacker: Attacker, what: Callable[[Attacker], Awaitable[None]]) -> None:
    """Repeats one attack until stdin ends."""
    over = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    began = time.monotonic()
    while not over.done():
        due = time.monotonic() + PACE_S
        await what(attacker)
        await asyncio.sleep(due - time.monotonic())
    seconds = time.monotonic() - began
    await attacker.close()
    print(json.dumps({"refused": attacker.refused, "seconds": seconds}))


if __name__ == "__main__":
    file, name = sys.argv[1:]
    asyncio.run(attack(Attacker(json.loads(Path(file).read_text("utf-8"))), ATTACKS[name]))
