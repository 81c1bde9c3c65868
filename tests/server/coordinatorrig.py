"""A coordinator's directory, the coordinator as a real process, and people and nodes who call it."""

import asyncio
import hashlib
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc.aio
from google.protobuf.message import Message as Proto

from fedsec.identity.leaves import Lifetimes, key_pem, make_key, make_request
from fedsec.identity.names import Kind, Role, make_spiffe
from fedsec.identity.signing import make_signing_key, public_bytes
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import node_credentials
from fedsec.wire.generated import admin_pb2
from fedsec.wire.generated.fleet_pb2 import NodeFrame, RunAnswer
from fedsec.wire.generated.message_pb2 import Header
from fedsec_server.authorities import Authorities
from fedsec_server.generations import load_authorities
from fedsec_server.init import create_root, create_server
from fedsec_server.layout import Layout, Listening
from fedsec_server.settings import Listener
from fedsec_server.state.store import Store
from fedsec_server.state.values import NodeRecord
from tests.server.fleetrig import ScriptedNode
from tests.server.runrig import APPS

PASSPHRASE = b"correct horse battery"
Reply = TypeVar("Reply", bound=Proto)

# Runs the program as `fedsec server start` does and says, at its end, what it had imported.
_PROGRAM = """
import asyncio, sys
from pathlib import Path
from fedsec_server.program import serve
try:
    asyncio.run(serve(Path(sys.argv[1])))
finally:
    Path(sys.argv[1], "modules.txt").write_text("\\n".join(sorted(sys.modules)))
"""


@dataclass(frozen=True)
class Holder:
    """A certificate that this federation issued, as PEM, with its key."""

    chain_pem: bytes
    key_pem: bytes
    name: str


@dataclass
class Place:
    """A coordinator's directory with its authorities at hand."""

    layout: Layout
    authorities: Authorities

    def issue(self, kind: Kind, name: str, role: Role | None = None) -> Holder:
        key = make_key()
        issued = self.authorities.issue(
            kind,
            make_request(key),
            name=name,
            role=role,
            lifetimes=Lifetimes(),
            now=datetime.now(UTC),
        )
        return Holder(issued.chain_pem, key_pem(key), name)

    def enrol(self, name: str) -> tuple[NodeRecord, Holder]:
        """Puts an enrolled node into the database."""
        holder = self.issue(Kind.NODE, secrets.token_hex(16))
        token = hashlib.sha256(secrets.token_bytes(8)).digest()
        spiffe_id = make_spiffe("fed.example", Kind.NODE, Role.NODE, holder.name)
        store = Store.open(self.layout.database)
        store.add_invite(
            name,
            token,
            spiffe_id=spiffe_id,
            created_by="test",
            now=0.0,
            expires_at=100.0,
            max_nodes=100,
        )
        key = make_key()
        record = store.enrol_node(
            token,
            signing_key=public_bytes(make_signing_key()),
            root_pinned=True,
            now=1.0,
            issue=lambda _: (
                self.authorities.issue(
                    Kind.NODE,
                    make_request(key),
                    name=holder.name,
                    lifetimes=Lifetimes(),
                    now=datetime.now(UTC),
                ).record
            ),
        )
        store.close()
        return record, holder

    def channel(self, listener: Listener, holder: Holder) -> grpc.aio.Channel:
        port = Listening.read(self.layout).addresses[listener].rpartition(":")[2]
        credentials = node_credentials(
            self.authorities.servers.certificate_pem, holder.chain_pem, holder.key_pem
        )
        return open_channel(f"localhost:{port}", credentials)

    async def command(self, method: str, request: Proto, reply: type[Reply]) -> Reply:
        """Makes a call to the admin listener, as an operator."""
        person = self.issue(Kind.PERSON, "olga", Role.OPERATOR)
        async with self.channel("admin", person) as channel:
            call: Any = channel.unary_unary(f"/fedsec.v1.Admin/{method}")
            return reply.FromString(await call(request.SerializeToString(), timeout=60))

    async def submit(self, plan: str) -> int:
        request = admin_pb2.SubmitRunRequest(plan=plan)
        return (await self.command("SubmitRun", request, admin_pb2.SubmitRunReply)).run_id

    async def until(self, run_id: int, *states: str) -> admin_pb2.Run:
        async with asyncio.timeout(120):
            while True:
                request = admin_pb2.ShowRunRequest(run_id=run_id)
                run = (await self.command("ShowRun", request, admin_pb2.ShowRunReply)).run
                if run.state in states:
                    return run
                await asyncio.sleep(0.05)


class Program:
    """The coordinator in a process of its own."""

    def __init__(self, layout: Layout, command: Sequence[str] = ()) -> None:
        self.layout = layout
        self.process = subprocess.Popen(
            list(command) or [sys.executable, "-c", _PROGRAM, str(layout.directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until_listening(self) -> None:
        end = time.monotonic() + 60
        while not (
            self.layout.listening.exists()
            and Listening.read(self.layout).process == self.process.pid
        ):
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Waits for the end; returns status and output."""
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output


class EchoNode(ScriptedNode):
    """A node that accepts every run and sends every content back."""

    async def work(self) -> None:
        await self.connect()
        while True:
            frame = await self.next(60)
            match frame.WhichOneof("kind"):
                case "run_offer":
                    answer = RunAnswer(run_id=frame.run_offer.run_id, accepted=True)
                    await self.send(NodeFrame(run_answer=answer))
                case "deliver":
                    await self._echo(frame.deliver)

    async def _echo(self, header: Header) -> None:
        data = await self.fetch(header, header.run_id)
        manifest = await self.store(header.message_id, data)
        await self.reply(header, bulk=manifest.to_proto(), skeleton=header.skeleton)


def make_place(directory: Path) -> Place:
    """Makes a root and a coordinator that listens on any free ports of loopback."""
    now = datetime.now(UTC)
    directory.mkdir(exist_ok=True)
    directory.chmod(0o700)
    root = directory / "root"
    create_root(root, federation="fed.example", passphrase=PASSPHRASE, now=now)
    layout = create_server(
        directory / "server",
        root_directory=root,
        passphrase=PASSPHRASE,
        host="localhost",
        listen="127.0.0.1",
        port=0,
        now=now,
    )
    with layout.settings.open("a") as settings:
        settings.write(f'\n[apps.tiny]\ndirectory = "{APPS / "tiny"}"\n')
    return Place(layout, load_authorities(layout, Lifetimes(), now=now))
