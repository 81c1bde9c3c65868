"""The admin and the enrol listener on loopback, behind real gates, with fakes where runs would be."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message

from fedsec.errors import StateError
from fedsec.identity.invites import Invite, token_hash
from fedsec.identity.leaves import make_key, make_request
from fedsec.identity.names import Kind, Role
from fedsec.identity.signing import enrolment_transcript, make_signing_key, prove, public_bytes
from fedsec.wire.denylist import Denylist
from fedsec.wire.generated import admin_pb2 as pb
from fedsec.wire.generated.enrol_pb2 import EnrolReply, EnrolRequest
from fedsec.wire.generated.fleet_pb2 import Version
from fedsec.wire.rates import RateLimiter
from fedsec_server.admin import AdminService
from fedsec_server.authorities import Authorities
from fedsec_server.enrol import EnrolmentService
from fedsec_server.events import Recorder
from fedsec_server.layout import Layout
from fedsec_server.people_desk import PeopleDesk
from fedsec_server.settings import Listener, ServerSettings
from fedsec_server.state.store import Store
from fedsec_server.state.values import RunState
from tests.pki import Leaf, Pki, make_pki
from tests.wire.gated import World, gated, unary

Reply = TypeVar("Reply", bound=Message)

ANN = "spiffe://fed.example/person/admin/ann"
ENROL = "/fedsec.v1.Enrolment/Enrol"
SETTINGS = ServerSettings(federation="fed.example", host="localhost")


@dataclass
class FakeRuns:
    """Takes plans and remembers who asked; keeps one run of the store's."""

    store: Store
    directory: Path
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def submit(self, plan_toml: str, by: str) -> int:
        self.asked.append(("submit", by))
        run = self.store.create_run(
            name="digits", plan=plan_toml, plan_digest="d", rounds=3, submitted_by=by, now=1.0
        )
        return run.run_id

    async def stop(self, run_id: int, by: str) -> RunState:
        self.asked.append(("stop", by))
        return self.store.set_run_state(run_id, RunState.STOPPED, now=2.0, reason="asked to").state

    async def model_path(self, run_id: int, round_number: int = 0) -> Path:
        path = self.directory / f"{run_id}-{round_number}.safetensors"
        if not path.exists():
            raise StateError(f"run {run_id} has stored no model yet")
        return path


@dataclass
class FakePresence:
    nodes: set[int] = field(default_factory=set)

    def connected(self) -> set[int]:
        return set(self.nodes)


class Clock:
    """The time of a test: the real one, plus what the test adds."""

    def __init__(self, pki: Pki) -> None:
        self.now = pki.now + timedelta(seconds=1)

    def __call__(self) -> datetime:
        return self.now

    @property
    def unix(self) -> float:
        return self.now.timestamp()


@dataclass
class Desk:
    """Everything that a test looks at."""

    pki: Pki
    store: Store
    recorder: Recorder
    runs: FakeRuns
    presence: FakePresence
    denylist: Denylist
    clock: Clock
    admin: World
    enrolment: World
    layout: Layout
    authorities: Authorities

    async def ask(
        self,
        method: str,
        request: Message,
        kind: type[Reply],
        *,
        role: Role = Role.ADMIN,
        leaf: Leaf | None = None,
    ) -> Reply:
        """Calls an RPC of the admin service as a person of that role, on a connection of its own."""
        leaf = leaf or self.pki.person("ann", role)
        path = f"/fedsec.v1.Admin/{method}"
        async with self.admin.channel(leaf) as channel:
            return kind.FromString(await unary(channel, path, request.SerializeToString()))

    async def stream(
        self, method: str, request: Message, kind: type[Reply], *, role: Role = Role.ADMIN
    ) -> AsyncIterator[Reply]:
        leaf = self.pki.person("ann", role)
        async with self.admin.channel(leaf) as channel:
            call = channel.unary_stream(
                f"/fedsec.v1.Admin/{method}",
                type(request).SerializeToString,
                kind.FromString,
            )
            async for reply in call(request, timeout=20):
                yield reply

    async def invite(self, name: str = "clinic-1", **changes: float) -> Invite:
        request = pb.InviteNodeRequest(name=name, **changes)
        reply = await self.ask("InviteNode", request, pb.InviteNodeReply)
        return Invite.decode(reply.invite)

    async def submit(self) -> int:
        """Submits a run; returns its number."""
        request = pb.SubmitRunRequest(plan="schema = 1")
        return (await self.ask("SubmitRun", request, pb.SubmitRunReply)).run_id

    async def enrol(self, request: EnrolRequest) -> EnrolReply:
        async with self.enrolment.anonymous() as channel:
            data = await unary(channel, ENROL, request.SerializeToString())
            return EnrolReply.FromString(data)

    async def detail_of(self, kind: str) -> dict[str, object]:
        """Returns the detail of the newest event of that kind."""
        events = await asyncio.to_thread(self.store.events)
        return dict([event for event in events if event.kind == kind][-1].detail)

    async def kinds(self) -> list[str]:
        """Returns the kinds of all events so far."""
        await self.recorder.settle()
        return [event.kind for event in await asyncio.to_thread(self.store.events)]


async def nothing_to_reload() -> None:
    """The authorities of a desk are made in memory."""


def enrolment(token: bytes, /, **changes: object) -> EnrolRequest:
    """Returns a good request, but for `changes`; the proof is over what is sent."""
    key, csr = make_signing_key(), changes.pop("csr_der", None) or make_request(make_key())
    assert isinstance(csr, bytes)
    public = public_bytes(key)
    request = EnrolRequest(
        version=Version(major=1, minor=0),
        token=token,
        csr_der=csr,
        signing_key=public,
        signing_proof=prove(key, enrolment_transcript(token_hash(token), csr, public)),
        root_pinned=True,
    )
    for name, value in changes.items():
        if isinstance(value, Message):
            getattr(request, name).CopyFrom(value)
        else:
            setattr(request, name, value)
    return request


@asynccontextmanager
async def desk(
    directory: Path,
    *,
    settings: ServerSettings = SETTINGS,
    limiter: RateLimiter | None = None,
    clock: Callable[[Pki], Clock] = Clock,
) -> AsyncIterator[Desk]:
    """Starts both listeners; `limiter` is that of the enrol listener."""
    pki = make_pki()
    time = clock(pki)
    authorities = Authorities(pki.servers, pki.nodes, pki.people, pki.root.certificate_pem)
    store = Store.open(directory / "state.sqlite")
    recorder = Recorder(store, lambda: time.unix)
    addresses: dict[Listener, str] = {"fleet": "fed.example:7444"}
    presence, denylist = FakePresence(), Denylist()
    runs = FakeRuns(store, directory)
    service = AdminService(
        store=store,
        authorities=authorities,
        people=PeopleDesk(store, authorities, settings, recorder, denylist, addresses, time),
        settings=settings,
        layout=Layout(directory),
        recorder=recorder,
        denylist=denylist,
        runs=runs,
        presence=presence,
        addresses=addresses,
        certificate_expires_at=lambda: 99.0,
        reload_authorities=nothing_to_reload,
        started_at=time.unix,
        clock=time,
    )
    first_contact = EnrolmentService(store, authorities, settings, recorder, addresses, clock=time)
    async with AsyncExitStack() as stack:
        stack.callback(store.close)
        stack.push_async_callback(recorder.settle)
        enrol_world = await stack.enter_async_context(
            gated(first_contact.methods(), pki=pki, kind=None, limiter=limiter)
        )
        admin_world = await stack.enter_async_context(
            gated(service.methods(), pki=pki, kind=Kind.PERSON, denylist=denylist)
        )
        addresses["enrol"], addresses["admin"] = enrol_world.address, admin_world.address
        yield Desk(
            pki,
            store,
            recorder,
            runs,
            presence,
            denylist,
            time,
            admin_world,
            enrol_world,
            Layout(directory),
            authorities,
        )
