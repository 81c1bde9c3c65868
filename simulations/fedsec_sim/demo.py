"""`fedsec demo`: a federation on this machine, from nothing to a trained model.

Real processes and mutual TLS, as between machines: a root, a coordinator, nodes that join by
invites. One node is killed while it trains and comes back later; the others do not notice.
"""

import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsec.console import Json, emit_json, format_bytes, format_duration, say, show, table
from fedsec.errors import ConfigError, StateError
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_sim.demo_simulated import show_simulated
from fedsec_sim.loopback import LoopbackFederation
from fedsec_sim.screens import Lines, Round, Screen, Silence, Tables

KILLED_IN, BACK_IN = 5, 10
_LOOK_S = 0.5  # between looks at whether all programs are alive
TOO_LOW = 1  # exit code when the model is not as accurate as it must be

_PLAN = """\
schema = 1
name = "demo"

[task]
name = "digits"
options = {{ model = "cnn" }}

[training]
rounds = {rounds}
algorithm = "fedavg"
local_epochs = 8
batch_size = 32
learning_rate = 0.01
momentum = 0.9
seed = 1

[nodes]
min_available = {nodes}
quorum = {quorum}
wait_s = 120

[round]
deadline_s = 60
reconnect_s = 1
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What a demo ends with.

    Attributes:
        directory: Of everything that it made.
        model: The file of the final model, safetensors.
        logs: Of all programs.
        accuracy: Of the final model on digits that no node has.
        rounds: Completed.
        bytes_down: Of all messages to nodes.
        bytes_up: Of all messages from nodes.
        round_s: Median time of a round, seconds.
        total_s: From the first directory made to the last program ended, seconds.
        killed: The node that was killed and came back, "" if none was.
        rounds_without: In which rounds that node was not in the mean.
        others_missing: How often any other node was missing; 0 says that nothing else happened.
    """

    directory: str
    model: str
    logs: str
    accuracy: float
    rounds: int
    bytes_down: int
    bytes_up: int
    round_s: float
    total_s: float
    killed: str
    rounds_without: list[int]
    others_missing: int


def demo_command(
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            help="Where everything is made; must not exist. [default: demo/TIME]",
            show_default=False,
        ),
    ] = None,
    nodes: Annotated[int, typer.Option(min=3, max=100, help="Nodes, a process each.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Rounds of training.")] = 30,
    minimum_accuracy: Annotated[
        float, typer.Option(min=0, max=1, help="Exit with 1 if the model is worse.")
    ] = 0.93,
    *,
    sim: Annotated[
        bool, typer.Option("--sim", help="The same plan with simulated nodes, in seconds.")
    ] = False,
    json: Json = False,
) -> None:
    """Show a federation on this machine, from nothing to a trained model.

    Makes a root and a coordinator, lets the nodes join by invites, and trains a small network on
    handwritten digits, split unevenly, over mutual TLS. In round 5 one node is killed (SIGKILL);
    in round 10 it is started again.
    """
    if sim:
        show_simulated(_PLAN.format(rounds=rounds, nodes=nodes, quorum=nodes), json=json)
        return
    directory = directory or Path("demo") / datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    if directory.exists():
        raise ConfigError(f"{directory} exists; name a new directory with --directory")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all programs are ended
    names = [f"node-{index}" for index in range(nodes)]
    screen: Screen = Tables(names) if sys.stdout.isatty() else Lines()
    if json:
        screen = Silence()
    report = run_demo(directory.absolute(), nodes, rounds, screen)
    if json:
        emit_json(asdict(report))
    else:
        show_report(report)
    if report.accuracy < minimum_accuracy:
        raise typer.Exit(TOO_LOW)


def run_demo(directory: Path, nodes: int, rounds: int, screen: Screen) -> Report:
    """Carries out a whole demo.

    Args:
        directory: Made here.
        nodes: >= 3: two must go on when one is killed.
        rounds: >= 1.
        screen: Is told what happens.

    Raises:
        StateError: The run failed, or a program did.
    """
    started = time.monotonic()
    with LoopbackFederation(directory) as federation:
        screen.step(f"root, three issuing CAs and a coordinator made in {_short(str(directory))}")
        joined = [
            federation.join(f"node-{index}", federation.default_settings(index, nodes))
            for index in range(nodes)
        ]
        screen.step(f"{nodes} nodes enrolled, each by an invite of its own")
        for node in joined:
            node.process.start()
        plan = _PLAN.format(rounds=rounds, nodes=nodes, quorum=max(2, nodes - 2))
        run_id = federation.submit(plan)
        screen.step(f"nodes started, plan submitted; the run waits until {nodes} are ready")
        demo = _Demo(federation, run_id, screen)
        asyncio.run(demo.watch())
    return demo.report(time.monotonic() - started)


@dataclass
class _Demo:
    """A run that is watched, and one node on whom bad luck falls."""

    federation: LoopbackFederation
    run_id: int
    screen: Screen
    rounds: list[Round] = field(default_factory=list)
    moved: Counter[str] = field(default_factory=Counter)
    model: str = ""
    killed: str = ""
    back_in: int = 0

    def __post_init__(self) -> None:
        self.names = {str(number): name for name, number in self.federation.node_ids().items()}
        self.run = pb.Run(run_id=self.run_id)
        self.processors = (
            sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        )

    async def watch(self) -> None:
        """Follows the run to its end.

        Raises:
            StateError: It did not finish; says why and where its log lies.
        """
        with self.screen.running():
            following = asyncio.create_task(self._follow())
            while not following.done():
                await asyncio.wait({following}, timeout=_LOOK_S)
                self.federation.check()
            await following
        if self.run.state != "finished":
            raise StateError(
                f"the run is {self.run.state}: {self.run.reason}; see {self.run.directory}/run.log "
                f"and {self.federation.logs}"
            )

    async def _follow(self) -> None:
        request = pb.WatchRunRequest(run_id=self.run_id)
        async for each in self.federation.admin.stream("WatchRun", request, pb.RunEvent):
            if each.WhichOneof("kind") == "run":
                self.run = each.run
            else:
                self.on_event(each.event.kind, json.loads(each.event.detail_json))

    def on_event(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Shows what happened, and lets happen what the demo is about."""
        match kind:
            case "run-started":
                self.screen.step("all nodes are ready; training begins")
            case "model":
                self.model = str(detail["path"])
            case "round":
                self.moved.update({way: int(detail[way]) for way in ("bytes_down", "bytes_up")})
                done = self.read_round(detail)
                self.rounds.append(done)
                self.screen.round(done)
                self.notice_return(done)
                self.interfere(done.number + 1)

    def read_round(self, detail: Mapping[str, Any]) -> Round:
        """Returns a round's event with names in place of ids."""
        missing = {**detail["failed"], **detail["rejected"]}
        return Round(
            number=int(detail["round"]),
            rounds=int(detail["rounds"]),
            answered=tuple(sorted(self.names[str(node)] for node in detail["answered"])),
            missing={self.names[node]: str(why) for node, why in missing.items()},
            loss=detail.get("loss"),
            accuracy=detail.get("accuracy"),
            seconds=float(detail["seconds"]),
            moved=int(detail["bytes_down"]) + int(detail["bytes_up"]),
        )

    def interfere(self, round_number: int) -> None:
        """Kills a node, or starts it again, as the round `round_number` begins."""
        names = list(self.federation.nodes)
        victim = self.federation.nodes[names[min(3, len(names) - 1)]]
        if round_number == KILLED_IN and round_number <= self.run.rounds:
            victim.process.kill()
            self.killed = victim.name
            self.screen.node(victim.name, "was killed (SIGKILL)")
        elif round_number == BACK_IN and self.killed:
            self.make_room()
            victim.process.start()
            self.screen.node(victim.name, "was started again")

    def make_room(self) -> None:
        """Leaves one processor to the node that comes back, until it is back.

        Machines of a federation have processors of their own. Here all nodes share a few, and those
        that train would keep the one that loads from coming back for many rounds.
        """
        if len(self.processors) > 1:
            for node in self.federation.nodes.values():
                if node.process.is_running:
                    node.process.keep_to(self.processors[1:])

    def notice_return(self, done: Round) -> None:
        """Shows when the node that was killed takes part again."""
        if done.number >= BACK_IN and self.killed in done.answered and not self.back_in:
            self.back_in = done.number
            for node in self.federation.nodes.values():
                node.process.keep_to(self.processors)
            self.screen.node(self.killed, f"is back, and in the mean of round {done.number}")

    def report(self, total_s: float) -> Report:
        """Returns what the demo ends with."""
        last = self.rounds[-1]
        away = [done.number for done in self.rounds if self.killed not in done.answered]
        others = set(self.federation.nodes) - {self.killed}
        return Report(
            directory=str(self.federation.directory),
            model=str(Path(self.run.directory) / self.model),
            logs=str(self.federation.logs),
            accuracy=float(last.accuracy or 0.0),
            rounds=len(self.rounds),
            bytes_down=self.moved["bytes_down"],
            bytes_up=self.moved["bytes_up"],
            round_s=statistics.median(done.seconds for done in self.rounds),
            total_s=total_s,
            killed=self.killed,
            rounds_without=away if self.killed else [],
            others_missing=sum(len(others - set(done.answered)) for done in self.rounds),
        )


def show_report(report: Report) -> None:
    """Prints what came out, and where it lies."""
    rows = [
        ("accuracy", f"{report.accuracy:.4f} on digits that no node has"),
        ("rounds", f"{report.rounds}, median {format_duration(report.round_s)} each"),
        (
            "moved",
            f"{format_bytes(report.bytes_down)} to nodes, {format_bytes(report.bytes_up)} back",
        ),
        ("time", f"{format_duration(report.total_s)} in all"),
    ]
    if report.killed:
        rows.append((report.killed, _absence(report)))
    rows += [("model", _short(report.model)), ("logs", _short(report.logs))]
    say("")
    show(table(["", ""], rows))
    say("")
    say("To look around, start its coordinator again, and ask it from another shell:")
    say(f"  fedsec server start {_short(report.directory)}/coordinator")
    say(f"  fedsec run show last --dir {_short(report.directory)}/coordinator")


def _short(path: str) -> str:
    """Returns a path as seen from the current directory, if it lies below."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _absence(report: Report) -> str:
    words = f"killed in round {KILLED_IN}"
    if report.rounds >= BACK_IN:
        words += f", started again in round {BACK_IN}"
    if away := report.rounds_without:
        words += f", missing from round {away[0]} to {away[-1]}"
    nothing = "no other node missed a round"
    return (
        f"{words}; {f'others missed {report.others_missing}' if report.others_missing else nothing}"
    )
