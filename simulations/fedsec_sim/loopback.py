"""A whole federation of real processes on this machine: root, coordinator, nodes, mutual TLS.

    with LoopbackFederation(directory) as federation:
        federation.add_nodes(3)
        run_id = federation.submit(plan)
        federation.wait_for_run(run_id, seconds=60)

What an operator does by commands is done here by the functions behind them. Everything listens on
127.0.0.1, on ports that the system chose; everything ends with the block.
"""

import json
import secrets
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from fedsec.errors import StateError
from fedsec.files import make_private_directory, write_public
from fedsec.identity.authorities import federation_of_root
from fedsec.identity.roster import Member, Roster, sign
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_client.join import join
from fedsec_client.settings import FILE_NAME
from fedsec_server.commands.reach import Reach, reach
from fedsec_server.init import create_root, create_server
from fedsec_server.layout import Layout, Listening
from fedsec_sim import forkserver, other_programs
from fedsec_sim.processes import Family, Process, wait_until

START_S = 60.0  # for one program to be ready; two cores start ten of them at once
ROSTER_LIFETIME = timedelta(days=1)
_STEP_S = 0.1  # between two questions to the coordinator
FEDSEC: tuple[str, ...] = (sys.executable, "-P", "-c", "from fedsec.cli import main; main()")

NodeSettings = Callable[[int, int], str]


@dataclass(frozen=True, slots=True)
class LoopbackNode:
    """A node of the federation: its directory and its agent's process."""

    name: str
    directory: Path
    process: Process


class LoopbackFederation:
    """A federation under `directory`: ``root/``, ``coordinator/``, ``nodes/NAME/``, ``logs/``.

    Args:
        directory: Made if need be; must not hold a federation.
        apps: Directories of Flower apps by the name that plans use; known to all.
        environment: Added to every program's.
        forked: Whether workers and run processes are forked from one process that has torch loaded
            (`fedsec_sim.forkserver`): they start at once and share its memory. Else, and where the
            system cannot, agents and coordinator start them, as on machines of their own.
        forked_runs: The same of run processes only, if it is to be otherwise.
        run_module: What the coordinator's run processes run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        apps: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
        forked: bool = False,
        forked_runs: bool | None = None,
        run_module: str = other_programs.RUN,
    ) -> None:
        self.directory = directory
        self.layout = Layout(directory / "coordinator")
        self.nodes: dict[str, LoopbackNode] = {}
        self._apps = dict(apps or {})
        self._environment = dict(environment or {})
        self._forked = forked and forkserver.available()
        self._agents = Family()
        self._family = Family()
        self.logs = directory / "logs"
        program, address = FEDSEC, None
        if forkserver.available() and (forked if forked_runs is None else forked_runs):
            address = forkserver.shared().address
        if address is not None or run_module != other_programs.RUN:
            program = other_programs.command("run", run_module, address)
        command = [*program, "server", "start", str(self.layout.directory)]
        log = self.logs / "coordinator.log"
        self.coordinator = self._family.add(Process("coordinator", command, log, self._environment))

    def __enter__(self) -> Self:
        try:
            self.make()
            self.start_coordinator()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends every program: the nodes first, for the coordinator waits for open connections."""
        self._agents.end()
        self._family.end()

    def make(self) -> None:
        """Makes the root and the coordinator's directory.

        The root's passphrase is forgotten; its key stays in this process, to sign rosters.
        """
        make_private_directory(self.directory)
        make_private_directory(self.logs)
        root, now = self.directory / "root", datetime.now(UTC)
        passphrase = secrets.token_urlsafe(32).encode()
        self._root = create_root(
            root, federation="loopback.example", passphrase=passphrase, now=now
        )
        create_server(
            self.layout.directory,
            root_directory=root,
            passphrase=passphrase,
            host="127.0.0.1",
            now=now,
            listen="127.0.0.1",
            port=0,
        )
        tables = [
            f"\n[apps.{name}]\ndirectory = {json.dumps(str(path))}\n"
            for name, path in self._apps.items()
        ]
        self.change_settings(self.layout.settings.read_text("utf-8") + "".join(tables))

    def change_settings(self, text: str) -> None:
        """Writes `server.toml` anew; the coordinator reads it at its next start."""
        write_public(self.layout.settings, text.encode())

    def start_coordinator(self) -> None:
        """Starts the coordinator and waits until it answers.

        After the first start its ports stay the same, for the nodes know them.
        """
        self.coordinator.start()
        watched = [self.coordinator]
        listening = wait_until(self._listening, START_S, "the coordinator to listen", watched)
        text = self.layout.settings.read_text("utf-8")
        for listener, address in listening.addresses.items():
            text = text.replace(f'{listener} = "127.0.0.1:0"', f'{listener} = "{address}"')
        self.change_settings(text)

    @property
    def admin(self) -> Reach:
        """The way to give commands, as an admin on the coordinator's machine."""
        return reach(self.layout.directory, None)

    def add_nodes(self, count: int, settings: NodeSettings | None = None) -> list[LoopbackNode]:
        """Invites, joins and starts further nodes, and waits until all are connected.

        Args:
            count: How many.
            settings: Gets the node's number and `count`, returns its `node.toml`. By default nodes
                have a part of `digits`, split by Dirichlet(0.5), and every app.
        """
        added = []
        for index in range(count):
            text = (settings or self.default_settings)(index, count)
            added.append(self.join(f"node-{len(self.nodes)}", text))
        for node in added:
            node.process.start()
        self.wait_for_nodes(node.name for node in added)
        return added

    def join(self, name: str, settings: str, worker: str = other_programs.WORKER) -> LoopbackNode:
        """Invites and joins one node, which is not started.

        Args:
            name: Of the node.
            settings: Its `node.toml`.
            worker: The module that its workers run.
        """
        directory = self.directory / "nodes" / name
        make_private_directory(directory)
        write_public(directory / FILE_NAME, settings.encode())
        request = pb.InviteNodeRequest(name=name)
        invite = self.admin.ask("InviteNode", request, pb.InviteNodeReply).invite
        join(invite, directory, root_fingerprint=self._root.fingerprint)
        program = FEDSEC
        if self._forked or worker != other_programs.WORKER:
            address = forkserver.shared().address if self._forked else None
            program = other_programs.command("worker", worker, address)
        command = [*program, "node", "start", str(directory)]
        process = Process(name, command, self.logs / f"{name}.log", self._environment)
        self.nodes[name] = LoopbackNode(name, directory, self._agents.add(process))
        return self.nodes[name]

    def default_settings(self, index: int, count: int) -> str:
        """Returns a `node.toml` for small machines: one thread each, every app, `digits`."""
        allowed = json.dumps(["fedsec", *self._apps])
        apps = "".join(
            f"[apps.{name}]\ndirectory = {json.dumps(str(path))}\n"
            for name, path in self._apps.items()
        )
        return (
            f"schema = 1\n[limits]\nthreads = 1\n[policy]\nallowed_apps = {allowed}\n"
            f'[data.digits]\nconnector = "digits"\nsplit = "dirichlet"\nalpha = 0.5\nseed = 1\n'
            f"partition = {index}\npartitions = {count}\n{apps}"
            f"[node_config]\npartition-id = {index}\nnum-partitions = {count}\n"
        )

    def check(self) -> None:
        """Raises StateError, with the end of its log, if a program ended that nobody killed."""
        for process in (self.coordinator, *(node.process for node in self.nodes.values())):
            if process.exit_code != -signal.SIGKILL:
                process.check()

    def connected(self) -> set[str]:
        """Returns the names of the nodes that the coordinator sees connected."""
        reply = self.admin.ask("ListNodes", pb.ListNodesRequest(), pb.ListNodesReply)
        return {node.name for node in reply.node if node.connected}

    def node_ids(self) -> dict[str, int]:
        """Returns the ids of all nodes by name."""
        reply = self.admin.ask("ListNodes", pb.ListNodesRequest(), pb.ListNodesReply)
        return {node.name: node.node_id for node in reply.node}

    def wait_for_nodes(self, names: Iterable[str], seconds: float = START_S) -> None:
        """Waits until all of `names` are connected."""
        wanted = set(names)
        watched = [self.coordinator, *(self.nodes[name].process for name in wanted)]
        what = f"{', '.join(sorted(wanted))} to connect"
        wait_until(lambda: wanted <= self.connected(), seconds, what, watched, step=_STEP_S)

    def publish_roster(self, leave_out: Collection[str] = ()) -> Roster:
        """Signs a roster of all enrolled nodes with the root, publishes it and returns it.

        Args:
            leave_out: Names of nodes that it is to be without.
        """
        reply = self.admin.ask("ListNodes", pb.ListNodesRequest(), pb.ListNodesReply)
        members = [
            Member(node.node_id, node.spiffe_id, node.signing_key)
            for node in sorted(reply.node, key=lambda node: node.node_id)
            if node.state == "enrolled" and node.name not in leave_out
        ]
        now = datetime.now(UTC).replace(microsecond=0)
        federation = federation_of_root(self._root.certificate)
        roster = Roster(federation, time.time_ns(), now + ROSTER_LIFETIME, tuple(members))
        request = pb.PublishRosterRequest(roster=sign(roster, self._root))
        self.admin.ask("PublishRoster", request, pb.PublishRosterReply)
        return roster

    def submit(self, plan: str) -> int:
        """Submits a plan and returns the run's id."""
        request = pb.SubmitRunRequest(plan=plan)
        return self.admin.ask("SubmitRun", request, pb.SubmitRunReply).run_id

    def show_run(self, run_id: int) -> pb.ShowRunReply:
        """Returns a run with what happened in it so far."""
        return self.admin.ask("ShowRun", pb.ShowRunRequest(run_id=run_id), pb.ShowRunReply)

    def events(self, run_id: int, kind: str) -> list[dict[str, object]]:
        """Returns the details of a run's events of one kind, the newest last."""
        events = [each.event for each in self.show_run(run_id).event]
        return [json.loads(event.detail_json) for event in events if event.kind == kind]

    def wait_for_run(self, run_id: int, seconds: float, state: str = "finished") -> pb.Run:
        """Waits until a run has ended and returns it.

        Raises:
            StateError: It did not end, or not in `state`; with the reason and the run's log.
        """

        def ended() -> pb.Run | None:
            run = self.show_run(run_id).run
            return run if run.state in {"finished", "failed", "stopped"} else None

        what, watched = f"the end of run {run_id}", [self.coordinator]
        run = wait_until(ended, seconds, what, watched, step=_STEP_S)
        if run.state != state:
            raise StateError(
                f"run {run_id} is {run.state}, not {state}: {run.reason}\n{self._run_log(run_id)}"
            )
        return run

    def _run_log(self, run_id: int) -> str:
        log = self.layout.run(run_id) / "run.log"
        return log.read_text("utf-8", "replace")[-4000:] if log.exists() else ""

    def _listening(self) -> Listening | None:
        """Returns where the present coordinator listens, once it answers there."""
        with suppress(StateError):
            found = Listening.read(self.layout)
            if found.process == self.coordinator.pid:
                self.admin.ask("Status", pb.StatusRequest(), pb.StatusReply)
                return found
        return None
