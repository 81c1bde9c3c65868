"""The time of a round while somebody attacks the coordinator, beside the time when nobody does.

Ten light nodes do rounds of 10,000 float32 over a real coordinator. The attacker is one enrolled
node, or somebody without a certificate, at a steady pace from this process; what it costs the
machine is part of what is measured, for both share it. Every attack is refused: the number of
refusals is asserted. A ratio of 0.83 or more is a round at most 20 % longer.
"""

import asyncio
import json
import socket
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import common
import grpc.aio
from light_fleet import LIFE, crowds, enrol
from scale import LIGHT_SIZE, PLAN

from fedsec.identity.names import Kind
from fedsec.wire.channels import open_channel
from fedsec.wire.content import Manifest
from fedsec.wire.credentials import node_credentials
from fedsec.wire.duplex import Duplex
from fedsec.wire.generated.fleet_pb2 import ContentFrame, NodeFrame, RenewRequest, StoreBegin
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import new_message_id
from fedsec.wire.streams import STORE
from fedsec_client.link import Link, LinkLostError
from fedsec_server.generations import load_authorities
from fedsec_server.layout import Listening
from fedsec_sim.loopback import LoopbackFederation

APP = Path(__file__).parent / "roundtrip_app"
NODES = 10
PACE_S = 0.02
RENEW = "/fedsec.v1.Fleet/Renew"


class Attacker:
    """What one enrolled node, or a stranger, does wrong; `refused` counts how often it was told."""

    def __init__(self, federation: LoopbackFederation) -> None:
        [spec] = enrol(federation, 1, first=10_000)
        authorities = load_authorities(federation.layout, LIFE, now=datetime.now(UTC))
        self.address = Listening.read(federation.layout).addresses["fleet"]
        self._anchors = authorities.anchors(Kind.SERVER)
        self._pair = spec["chain"].encode(), spec["key"].encode()
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
        if len(self._open) < 500:
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


def main() -> None:
    """Measures, prints and writes."""
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="of each run (default: 40, quick: 5)")
    chosen = parser.parse_args()
    rounds = chosen.rounds or (5 if chosen.quick else 40)
    names = list(ATTACKS)[:2] if chosen.quick else list(ATTACKS)
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="fedsec-bench-") as work,
        LoopbackFederation(Path(work) / "fedsec", apps={"roundtrip": APP}) as federation,
        crowds(federation, NODES),
    ):
        attacker = Attacker(federation)
        for name in names:
            quiet = one_run(federation, rounds)
            with going_on(attacker, ATTACKS[name]):
                attacked = one_run(federation, rounds)
            assert attacker.refused >= rounds, f"{name}: refused {attacker.refused} times"
            attacker.refused = 0
            results.append(
                common.compare(
                    f"round n={NODES} d={LIGHT_SIZE} under {name}, 50 a second",
                    "time",
                    "s",
                    ours=attacked,
                    peer=quiet,
                    peer_name="nobody attacks",
                )
            )
    common.publish(results, chosen.json)


def one_run(federation: LoopbackFederation, rounds: int) -> list[float]:
    """Returns seconds of each round."""
    report = federation.directory / "report.json"
    plan = PLAN.format(rounds=rounds, size=LIGHT_SIZE, nodes=NODES, report=report)
    run_id = federation.submit(plan)
    federation.wait_for_run(run_id, seconds=240)
    seconds: list[float] = json.loads(report.read_text("utf-8"))["seconds"]
    return seconds


@contextmanager
def going_on(attacker: Attacker, attack: Callable[[Attacker], Awaitable[None]]) -> Iterator[None]:
    """Lets an attack go on in a thread until the end of the block."""
    done = threading.Event()

    async def repeat() -> None:
        while not done.is_set():
            await attack(attacker)
            await asyncio.sleep(PACE_S)
        await attacker.close()

    thread = threading.Thread(target=asyncio.run, args=(repeat(),))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(30)


if __name__ == "__main__":
    main()
