"""Real run processes with everything before the fleet port, and nodes that live in the test.

The nodes' frames go through real sessions, but over no network: that part is `fleetrig`'s.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fedsec.wire.blobs import Blob
from fedsec.wire.content import Manifest
from fedsec.wire.generated.fleet_pb2 import CoordinatorFrame
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import new_message_id
from fedsec_server.events import Recorder
from fedsec_server.exchange import Exchange
from fedsec_server.journal import Journal
from fedsec_server.layout import Layout
from fedsec_server.runner import Patience
from fedsec_server.runs import RunManager
from fedsec_server.sessions import Member, Session
from fedsec_server.settings import AppSettings, Limits, ServerSettings
from fedsec_server.state.store import Store
from fedsec_server.state.values import FINAL, RunRecord, RunState
from tests.wire.gated import until

APPS = Path(__file__).parent / "apps"
ANN = "spiffe://fed.example/person/operator/ann"
HASTY = Patience(stop_s=0.5, term_s=0.5, exit_s=0.5)


def plan(mode: str = "echo", nodes: int = 1, wait_s: float = 20.0, **config: object) -> str:
    """Returns a plan for the app in tests/server/apps/tiny."""
    settings = {"mode": f'"{mode}"', **config}
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    return f"""
schema = 1
name = "tiny {mode}"
[app]
name = "tiny"
[app.config]
{lines}
[nodes]
min_available = {nodes}
wait_s = {wait_s}
[round]
deadline_s = 20.0
reconnect_s = 0.2
"""


class LocalNode:
    """A node inside the test. It accepts runs and answers as `respond` says; None: not at all."""

    def __init__(
        self,
        exchange: Exchange,
        node_id: int,
        respond: Callable[["LocalNode", Header], None] | None,
        refusal: str = "",
    ) -> None:
        self.member = Member(node_id, f"node-{node_id}", f"spiffe://fed.example/node/{node_id}")
        self.exchange = exchange
        self.frames: list[CoordinatorFrame] = []
        self._respond = respond
        self._refusal = refusal
        self._session = Session(self.member)
        exchange.join(self._session, ())
        self._writer = asyncio.create_task(self._session.write_all(self._on_frame))

    def leave(self) -> None:
        self._writer.cancel()
        self.exchange.leave(self._session)

    def kinds(self) -> list[str]:
        return [str(frame.WhichOneof("kind")) for frame in self.frames]

    async def _on_frame(self, data: bytes) -> None:
        frame = CoordinatorFrame.FromString(data)
        self.frames.append(frame)
        match frame.WhichOneof("kind"):
            case "run_offer" if self._refusal:
                self.exchange.refuse(self.member, frame.run_offer.run_id, self._refusal)
            case "run_offer":
                self.exchange.accept(self.member, frame.run_offer.run_id)
            case "deliver" if self._respond:
                self._respond(self, frame.deliver)

    def reply(self, to: Header, content: bytes | None, **changes: object) -> None:
        header = Header(
            message_id=new_message_id(),
            reply_to=to.message_id,
            run_id=to.run_id,
            src_node_id=to.dst_node_id,
            dst_node_id=to.src_node_id,
            group_id=to.group_id,
            created_at=to.created_at,
            ttl=to.ttl,
            message_type=to.message_type,
            skeleton=to.skeleton,
        )
        if content is not None:
            manifest = Manifest.from_proto(to.bulk, 1 << 30)
            self.exchange.store(self.member, to.message_id, manifest, Blob.write([content]))
            header.bulk.CopyFrom(to.bulk)
        self.exchange.reply(self.member, header)


def content_of(node: LocalNode, header: Header) -> bytes:
    digest = Manifest.from_proto(header.bulk, 1 << 30).digest
    with node.exchange.content(node.member, header.run_id, digest) as (_, view):
        return bytes(view)


def echo(node: LocalNode, header: Header) -> None:
    """Sends the content back as it came."""
    node.reply(header, content_of(node, header))


def spoil(node: LocalNode, header: Header) -> None:
    """Sends other bytes under the name of the content that came."""
    data = bytearray(content_of(node, header))
    data[1000] ^= 1
    node.reply(header, bytes(data))


@dataclass
class Rig:
    """What runs need of a coordinator."""

    layout: Layout
    store: Store
    journal: Journal
    exchange: Exchange
    runs: RunManager

    def node(
        self,
        node_id: int = 11,
        respond: Callable[[LocalNode, Header], None] | None = echo,
        refusal: str = "",
    ) -> LocalNode:
        return LocalNode(self.exchange, node_id, respond, refusal)

    async def until(self, run_id: int, *states: RunState, seconds: float = 30.0) -> RunRecord:
        """Waits until the run is in one of these states; any final one unless told."""
        async with asyncio.timeout(seconds):
            while True:
                run = await asyncio.to_thread(self.store.run, run_id)
                if run.state in (states or FINAL):
                    await self.journal.write(lambda: None)  # the event of it comes after it
                    return run
                await asyncio.sleep(0.02)

    def log(self, run_id: int) -> str:
        return (self.layout.run(run_id) / "run.log").read_text()

    def kinds(self, run_id: int) -> list[str]:
        return [event.kind for event in self.store.events(run_id=run_id)]


def settings(max_runs: int = 8) -> ServerSettings:
    return ServerSettings(
        federation="fed.example",
        host="localhost",
        limits=Limits(max_runs=max_runs),
        apps={"tiny": AppSettings(directory=str(APPS / "tiny"))},
    )


@asynccontextmanager
async def coordinator(
    directory: Path,
    *,
    max_runs: int = 8,
    max_content: int = 1 << 30,
    patience: Patience = HASTY,
    start: bool = True,
) -> AsyncIterator[Rig]:
    """Starts all but the listeners, with the database of the directory, if there is one."""
    layout = Layout(directory)
    layout.runs.mkdir(mode=0o700, exist_ok=True)
    store = Store.open(layout.database)
    journal = Journal(Recorder(store))
    exchange = Exchange(journal, max_content=max_content)
    runs = RunManager(
        exchange,
        store=store,
        journal=journal,
        settings=settings(max_runs),
        layout=layout,
        patience=patience,
    )
    if start:
        await runs.start()
    try:
        yield Rig(layout, store, journal, exchange, runs)
    finally:
        await runs.close()
        await journal.close()
        store.close()


def process_is_gone(pid: int) -> bool:
    """A process that ended, or that only its parent has not yet noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until_gone(pid: int) -> None:
    await until(lambda: process_is_gone(pid), 10)


def processes_of(rig: Rig) -> list[int]:
    """Process ids of run processes whose working directory is one of the rig's."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            where = (entry / "cwd").readlink()
        except OSError:
            continue
        if b"fedsec_server.run_process" in command and where.is_relative_to(rig.layout.runs):
            found.append(int(entry.name))
    return found
