"""The coordinator, put together: its state, its three listeners, its runs.

    enrol   anyone, server-authenticated TLS    one small RPC
    fleet   nodes' CA only                      control streams and content
    admin   people's CA only                    commands

Made and ended by `fedsec_server.program`, which adds what belongs to a process: lock and signals.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import grpc.aio

from fedsec.errors import ConfigError
from fedsec.files import check_private_directory
from fedsec.identity.names import Kind
from fedsec.wire.call import Method
from fedsec.wire.channels import MAX_CONNECTIONS, listen
from fedsec.wire.denylist import Denylist
from fedsec.wire.gate import Gate, utc_now
from fedsec.wire.options import MAX_MESSAGE_BYTES, SERVER_OPTIONS
from fedsec.wire.rates import RateLimiter
from fedsec.wire.streams import UploadLimits, Uploads
from fedsec_server.admin import AdminService
from fedsec_server.authorities import Authorities
from fedsec_server.ca_keeper import AuthorityKeeper
from fedsec_server.enrol import MAX_MESSAGE, EnrolmentService
from fedsec_server.events import Recorder
from fedsec_server.exchange import Exchange
from fedsec_server.fleet import FleetService
from fedsec_server.generations import Generations, load_generations
from fedsec_server.handshakes import Watch
from fedsec_server.journal import Journal
from fedsec_server.layout import Layout, Listening, load_settings
from fedsec_server.own_certificate import OwnCertificate
from fedsec_server.people_desk import PeopleDesk
from fedsec_server.renewals import Renewals
from fedsec_server.root_keys import refuse_root_key
from fedsec_server.runs import RunManager
from fedsec_server.settings import Limits, Listener, ServerSettings, bare_host
from fedsec_server.state.store import Store

STOP_GRACE_S = 0.5  # for answers that are on their way when the coordinator ends
_MIB = 1 << 20


@dataclass(slots=True)
class Coordinator:
    """A coordinator that runs. Made by `coordinate`.

    Args:
        settings: What it was started with.
        listening: Where it really listens.
        told: What others are told to connect to, ``host:port`` by listener.
        runs: Starts and stops runs.
        exchange: Knows who is connected.
        certificate: Its own.
        denylist: The live one.
        recorder: Records events.
    """

    settings: ServerSettings
    listening: Listening
    told: dict[Listener, str]
    runs: RunManager
    exchange: Exchange
    certificate: OwnCertificate
    denylist: Denylist
    recorder: Recorder


@dataclass(frozen=True, slots=True)
class _Port:
    """One listener before it listens."""

    name: Listener
    address: str
    clients: Kind | None
    methods: list[Method]
    limiter: RateLimiter
    max_message: int = MAX_MESSAGE_BYTES

    @property
    def options(self) -> tuple[tuple[str, int], ...]:
        received = {"grpc.max_receive_message_length": self.max_message}
        return tuple({**dict(SERVER_OPTIONS), **received}.items())


@asynccontextmanager
async def coordinate(
    layout: Layout,
    process: int,
    *,
    watch: Watch | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> AsyncIterator[Coordinator]:
    """Runs the coordinator of a directory until the end of the block.

    Args:
        layout: Of the directory, which belongs to this process alone.
        process: Id of this process, for those who look for it.
        watch: Knows whom TLS refuses; they are recorded as long as anything listens.
        clock: Aware UTC.

    Raises:
        ConfigError: A setting or a file is wrong, the directory is open to others, a root key lies
            in it, or an address cannot be listened on.
        IdentityError: An authority cannot be used.
        StateError: The database is of a newer version.
    """
    for directory in (layout.directory, layout.authorities):
        check_private_directory(directory.resolve())
    refuse_root_key(layout.directory)
    settings = load_settings(layout)
    generations = load_generations(layout, now=clock())
    authorities = generations.at(clock(), settings.certificate_lifetimes)
    if authorities.federation != settings.federation:
        raise ConfigError(
            f"{layout.settings}: federation is {settings.federation!r}, the authorities are of "
            f"{authorities.federation!r}"
        )
    async with AsyncExitStack() as stack:
        store = await asyncio.to_thread(Store.open, layout.database)
        stack.callback(store.close)
        recorder = Recorder(store)
        stack.push_async_callback(recorder.settle)
        journal = Journal(recorder)
        stack.push_async_callback(journal.close)
        if watch is not None:
            await stack.enter_async_context(watch.telling(recorder.refused))
        parts = _Parts(layout, settings, generations, authorities, store, recorder, journal, clock)
        yield await parts.start(stack, process)


@dataclass
class _Parts:
    """What the coordinator is made of, and how it starts."""

    layout: Layout
    settings: ServerSettings
    generations: Generations
    authorities: Authorities
    store: Store
    recorder: Recorder
    journal: Journal
    clock: Callable[[], datetime]

    def __post_init__(self) -> None:
        limits = self.settings.limits
        self.denylist = Denylist()
        self.told: dict[Listener, str] = {}
        self.gates: dict[Kind, Gate] = {}
        self.exchange = Exchange(
            self.journal, max_content=limits.max_content_mb * _MIB, max_stored=limits.max_uploads
        )
        self.runs = RunManager(
            self.exchange,
            store=self.store,
            journal=self.journal,
            settings=self.settings,
            layout=self.layout,
        )
        self.certificate = OwnCertificate(
            self.authorities,
            hosts=self.settings.certificate_hosts,
            lifetimes=self.settings.certificate_lifetimes,
            journal=self.journal,
            clock=self.clock,
        )
        self.keeper = AuthorityKeeper(
            self.layout,
            self.generations,
            self.authorities,
            lifetimes=self.settings.certificate_lifetimes,
            apply=self._authorities_changed,
            journal=self.journal,
            clock=self.clock,
        )

    def _authorities_changed(self) -> None:
        """Lets listeners show and gates ask for what counts now; ends whom nobody trusts."""
        self.certificate.renew()
        for kind, gate in self.gates.items():
            gate.replace_issuers(self.authorities.anchors(kind))

    async def start(self, stack: AsyncExitStack, process: int) -> Coordinator:
        denied = await asyncio.to_thread(self.store.denied, self.clock().timestamp())
        for serial in denied.serials:
            self.denylist.deny_serial(serial)
        for identity, name in denied.identities.items():
            self.denylist.deny_identity(identity, name)
        listening = Listening(process, await self._listen(stack))
        stack.push_async_callback(self.runs.close)
        for work in (self.certificate.keep_fresh(), self.keeper.keep()):
            stack.push_async_callback(_cancelled, asyncio.create_task(work))
        await self.runs.start()
        listening.write(self.layout)
        stack.callback(self.layout.listening.unlink, missing_ok=True)
        return Coordinator(
            self.settings,
            listening,
            self.told,
            self.runs,
            self.exchange,
            self.certificate,
            self.denylist,
            self.recorder,
        )

    async def _listen(self, stack: AsyncExitStack) -> dict[Listener, str]:
        """Opens the three listeners; returns where they really listen."""
        addresses: dict[Listener, str] = {}
        servers: list[grpc.aio.Server] = []
        stack.push_async_callback(_stop, servers)
        for port in self._ports():
            gate = Gate(
                self.authorities.anchors(port.clients) if port.clients else None,
                port.clients,
                self.denylist,
                port.limiter,
                self.recorder.refused,
                clock=self.clock,
            )
            if port.clients:
                self.gates[port.clients] = gate
            credentials = self.certificate.listener(port.clients).credentials
            handler = gate.generic_handler(port.methods)
            listener = await listen(
                port.address,
                credentials,
                handler,
                # one for each node, and a second one while it moves to a new certificate
                max_connections=max(MAX_CONNECTIONS, 2 * self.settings.limits.max_nodes),
                options=port.options,
            )
            servers.append(listener.server)
            host = bare_host(port.address)
            addresses[port.name] = (
                f"[{host}]:{listener.port}" if ":" in host else (f"{host}:{listener.port}")
            )
            self.told[port.name] = self.settings.advertised(port.name, listener.port)
        return addresses

    def _ports(self) -> list[_Port]:
        limits, where = self.settings.limits, self.settings.listen
        enrolment = EnrolmentService(
            self.store, self.authorities, self.settings, self.recorder, self.told, clock=self.clock
        )
        calls = RateLimiter(limits.calls_per_s, limits.calls_burst)
        attempts = RateLimiter(limits.enrolments_per_s, limits.enrolments_burst)
        return [
            _Port("enrol", where.enrol, None, enrolment.methods(), attempts, MAX_MESSAGE),
            _Port("fleet", where.fleet, Kind.NODE, self._fleet().methods(), calls),
            _Port("admin", where.admin, Kind.PERSON, self._admin().methods(), calls),
        ]

    def _fleet(self) -> FleetService:
        renewals = Renewals(
            self.authorities,
            self.store,
            self.journal,
            self.settings.certificate_lifetimes,
            self.clock,
        )
        return FleetService(
            self.exchange,
            store=self.store,
            journal=self.journal,
            denylist=self.denylist,
            uploads=Uploads(
                _upload_limits(self.settings.limits), elsewhere=self.exchange.stored_bytes
            ),
            renew=renewals.renew,
        )

    def _admin(self) -> AdminService:
        return AdminService(
            store=self.store,
            authorities=self.authorities,
            people=PeopleDesk(
                self.store,
                self.authorities,
                self.settings,
                self.recorder,
                self.denylist,
                self.told,
                self.clock,
            ),
            settings=self.settings,
            layout=self.layout,
            recorder=self.recorder,
            denylist=self.denylist,
            runs=self.runs,
            presence=self.exchange,
            addresses=self.told,
            certificate_expires_at=self.certificate.expires_at,
            reload_authorities=self.keeper.reload,
            started_at=time.time(),
            clock=self.clock,
        )


def _upload_limits(limits: Limits) -> UploadLimits:
    total = limits.max_all_uploads_mb * _MIB
    if not total:  # half of what the machine has
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return UploadLimits(
        max_content=limits.max_content_mb * _MIB,
        max_partial=limits.max_uploads_mb * _MIB,
        max_total=total,
        max_uploads=limits.max_uploads,
    )


async def _stop(servers: list[grpc.aio.Server]) -> None:
    await asyncio.gather(*(server.stop(STOP_GRACE_S) for server in servers))


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
