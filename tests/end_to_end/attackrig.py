"""A whole coordinator under attack, in this process, and a good node that must not notice it.

Listeners, gates, database, log of events are the real ones; what a run process would do, the rig
does. Every attack goes over real sockets.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message as Proto

from fedsec.identity.authorities import load_authority
from fedsec.identity.invites import Invite
from fedsec.identity.leaves import issue, key_pem, make_key, make_request
from fedsec.identity.names import Kind, Role
from fedsec.wire.blobs import Blob
from fedsec.wire.channels import open_channel
from fedsec.wire.content import Manifest
from fedsec.wire.credentials import anonymous_credentials
from fedsec.wire.gate import utc_now
from fedsec.wire.generated import admin_pb2
from fedsec.wire.generated.enrol_pb2 import EnrolReply, EnrolRequest
from fedsec.wire.generated.fleet_pb2 import RenewReply, RenewRequest
from fedsec.wire.generated.message_pb2 import Header
from fedsec_server.coordinator import Coordinator, coordinate
from fedsec_server.layout import Listening
from fedsec_server.settings import Listener
from fedsec_server.state.store import Store
from fedsec_server.state.values import Event, NodeRecord
from tests.pki import Pki
from tests.server.coordinatorrig import PASSPHRASE, Holder, Place, make_place
from tests.server.deskrig import ENROL
from tests.server.fleetrig import PLAN, RUN, FakeRun, ScriptedNode, instruction
from tests.wire.gated import unary

Reply = TypeVar("Reply", bound=Proto)
CONTENT = bytes(range(256)) * (3 << 12)  # 3 MiB: three chunks
MANY_ENROLMENTS = "enrolments_per_s = 1000.0\nenrolments_burst = 1000\n"


class Skewed:
    """A clock that can be set wrong."""

    def __init__(self) -> None:
        self.off = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.off


@dataclass
class Siege:
    """What an attacker meets, and what a test looks at."""

    place: Place
    coordinator: Coordinator
    store: Store
    run: FakeRun
    good: ScriptedNode
    records: dict[str, NodeRecord]
    holders: dict[str, Holder]
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def channel(self, listener: Listener, holder: Holder) -> grpc.aio.Channel:
        channel = self.place.channel(listener, holder)
        self.channels.append(channel)
        return channel

    def node(self, name: str, holder: Holder | None = None) -> ScriptedNode:
        """Returns an enrolled node with a connection of its own."""
        return ScriptedNode(self.records[name], self.channel("fleet", holder or self.holders[name]))

    async def ready(self, name: str) -> ScriptedNode:
        """Returns a node that takes part in the run."""
        node = self.node(name)
        await node.connect()
        await node.accept(RUN)
        await self.run.until_ready("good", name)
        return node

    def push(self, node: ScriptedNode, content: bytes = CONTENT) -> Header:
        header = instruction(node.node_id)
        header.bulk.CopyFrom(Manifest.of(content).to_proto())
        self.coordinator.exchange.push(RUN, header, Blob.write([content]), 60.0)
        return header

    async def reply_to(self, header: Header) -> Header:
        """Waits for the one answer that the run gets to a message."""
        while True:
            for reply, _ in self.run.replies:
                if reply.reply_to == header.message_id:
                    return reply
            await self.run.until_replies(len(self.run.replies) + 1)

    def address(self, listener: Listener) -> str:
        port = self.coordinator.listening.addresses[listener].rpartition(":")[2]
        return f"localhost:{port}"

    def anonymous(self, **options: int) -> grpc.aio.Channel:
        """Returns a channel to the enrol listener, as of who has no certificate yet."""
        credentials = anonymous_credentials(self.place.authorities.servers.certificate_pem)
        channel = open_channel(
            self.address("enrol"),
            credentials,
            options=[(name.replace("__", "."), value) for name, value in options.items()],
        )
        self.channels.append(channel)
        return channel

    async def enrol(self, request: EnrolRequest) -> EnrolReply:
        data = await unary(self.anonymous(), ENROL, request.SerializeToString(), 20)
        return EnrolReply.FromString(data)

    async def renew(self, channel: grpc.aio.Channel, csr: bytes) -> RenewReply:
        request = RenewRequest(csr_der=csr).SerializeToString()
        return RenewReply.FromString(await unary(channel, "/fedsec.v1.Fleet/Renew", request, 20))

    async def ask(
        self, method: str, request: Proto, reply: type[Reply], role: Role = Role.ADMIN
    ) -> Reply:
        """Calls the admin listener as a person of that role."""
        channel = self.channel("admin", self.place.issue(Kind.PERSON, "ann", role))
        data = await unary(channel, f"/fedsec.v1.Admin/{method}", request.SerializeToString(), 20)
        return reply.FromString(data)

    async def invite(self, name: str) -> Invite:
        request = admin_pb2.InviteNodeRequest(name=name)
        return Invite.decode(
            (await self.ask("InviteNode", request, admin_pb2.InviteNodeReply)).invite
        )

    async def revoke(self, name: str) -> None:
        request = admin_pb2.RevokeNodeRequest(name=name, reason="a test")
        await self.ask("RevokeNode", request, admin_pb2.RevokeNodeReply)

    async def events(self, kind: str) -> list[Event]:
        found = await asyncio.to_thread(self.store.events)
        return [event for event in found if event.kind == kind]

    async def logged(self, kind: str, **detail: Any) -> Event:
        """Waits until an event of that kind, with that detail, is in the database."""
        async with asyncio.timeout(5):
            while True:
                for event in await self.events(kind):
                    if detail.items() <= event.detail.items():
                        return event
                await asyncio.sleep(0.01)

    async def refused_for(self, code: str, **detail: Any) -> Event:
        """Waits until the log of events has a refusal with that code."""
        return await self.logged("rpc-refused", code=code, **detail)


def brief(place: Place, holder: Holder, seconds: float, begin: timedelta = timedelta(0)) -> Holder:
    """Returns the same node's identity with a certificate that lives `seconds` from `begin` on."""
    key = make_key()
    chain = issue(
        place.authorities.nodes,
        make_request(key),
        kind=Kind.NODE,
        name=holder.name,
        lifetime=timedelta(seconds=seconds),
        now=datetime.now(UTC) + begin,
    )
    return Holder(chain, key_pem(key), holder.name)


def pki_of(place: Place) -> Pki:
    """Returns the federation's authorities, its root too, as the forgers of `tests.pki` want them."""
    root = place.layout.directory.parent / "root"
    (certificate,) = root.glob("*.cert.pem")
    (key,) = root.glob("*.key.pem")
    authorities = place.authorities
    return Pki(
        datetime.now(UTC),
        load_authority(certificate.read_bytes(), key.read_bytes(), PASSPHRASE),
        authorities.servers,
        authorities.nodes,
        authorities.people,
    )


@asynccontextmanager
async def siege(
    directory: Path, *, limits: str = "", clock: Callable[[], datetime] = utc_now
) -> AsyncIterator[Siege]:
    """Starts a coordinator with two enrolled nodes, "good" and "evil".

    The good one is connected all the time. At the end its session must still be the same one, and
    it gets content and has its answer taken.
    """
    place = make_place(directory)
    text = place.layout.settings.read_text()
    place.layout.settings.write_text(text.replace("[limits]\n", f"[limits]\n{limits}"))
    enrolled = {name: place.enrol(name) for name in ("good", "evil")}
    store = Store.open(place.layout.database)
    try:
        async with coordinate(place.layout, os.getpid(), clock=clock) as coordinator:
            run = FakeRun()
            coordinator.exchange.open_run(RUN, PLAN, 3.0, run)
            record, holder = enrolled["good"]
            good = ScriptedNode(record, place.channel("fleet", holder))
            await good.connect()
            await good.accept(RUN)
            await run.until_ready("good")
            here = Siege(
                place,
                coordinator,
                store,
                run,
                good,
                {name: record for name, (record, _) in enrolled.items()},
                {name: holder for name, (_, holder) in enrolled.items()},
            )
            assert Listening.read(place.layout).process == os.getpid()
            yield here
            await _still_works(here)
            for channel in [*here.channels, good.channel]:
                await channel.close()
    finally:
        store.close()


async def _still_works(here: Siege) -> None:
    """The good node, over the session that it had before the attack, does a whole round trip."""
    header = here.push(here.good)
    delivered = await here.good.expect("deliver")
    assert delivered.message_id == header.message_id
    assert await here.good.fetch(delivered) == CONTENT
    manifest = await here.good.store(delivered.message_id, CONTENT[::-1])
    await here.good.reply(delivered, bulk=manifest.to_proto())
    async with asyncio.timeout(10):
        reply = await here.reply_to(header)
    assert not reply.HasField("failure")
    assert (await here.good.expect("ack")).refused == ""
