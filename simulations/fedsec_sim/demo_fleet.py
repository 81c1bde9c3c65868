"""The demo's real fleet: a coordinator and nodes over mutual TLS, some of them poisoned."""

import asyncio
import json
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsec.errors import StateError
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_sim.demo_plans import DATA, Curve, defended
from fedsec_sim.loopback import LoopbackFederation
from fedsec_sim.other_programs import WORKER
from fedsec_sim.screens import Round, Screen

POISONED = "fedsec_sim.hostile_worker"
_LOOK_S = 0.5  # between looks at whether all programs are alive


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a fleet leaves.

    Attributes:
        curve: Accuracy, round by round.
        model: The file of the final model, safetensors.
        logs: Of all programs.
        bytes_down: Of all messages to nodes.
        bytes_up: Of all messages from nodes.
        round_s: Median time of a round, seconds.
        missing: How often a node was not in a sum.
    """

    curve: Curve
    model: str
    logs: str
    bytes_down: int
    bytes_up: int
    round_s: float
    missing: int


def run_fleet(directory: Path, nodes: int, hostile: int, rounds: int, screen: Screen) -> Fleet:
    """Carries out the defended plan.

    Args:
        directory: Made here.
        nodes: How many, a process and a worker each.
        hostile: How many of them are poisoned: the last ones.
        rounds: >= 1.
        screen: Is told what happens.

    Raises:
        StateError: The run failed, or a program did.
    """
    with LoopbackFederation(directory, forked=True) as federation:
        screen.step(f"root, three issuing CAs and a coordinator made in {short(directory)}")
        for index in range(nodes):
            worker = WORKER if index < nodes - hostile else POISONED
            federation.join(f"node-{index}", node_settings(index, nodes), worker)
        screen.step(f"{nodes} nodes enrolled, each by an invite of its own; poisoned: {hostile}")
        federation.publish_roster()
        for node in federation.nodes.values():
            node.process.start()
        run_id = federation.submit(defended(nodes, rounds))
        screen.step(f"roster signed by the root, plan submitted; {nodes} nodes get ready")
        watch = _Watch(federation, run_id, screen)
        asyncio.run(watch.watch())
    return watch.left()


def node_settings(index: int, count: int) -> str:
    """Returns the `node.toml` of a node: one thread, a part of the digits, no weaker protection."""
    data = "\n".join(f"{key} = {json.dumps(value)}" for key, value in DATA.items())
    return (
        'schema = 1\n[limits]\nthreads = 1\n[policy]\nallowed_apps = ["fedsec"]\n'
        'secure_aggregation = "malicious"\n'
        f'[data.digits]\nconnector = "digits"\n{data}\npartition = {index}\npartitions = {count}\n'
    )


@dataclass
class _Watch:
    """A run that is watched."""

    federation: LoopbackFederation
    run_id: int
    screen: Screen
    rounds: list[Round] = field(default_factory=list)
    moved: Counter[str] = field(default_factory=Counter)
    model: str = ""

    def __post_init__(self) -> None:
        self.names = {str(number): name for name, number in self.federation.node_ids().items()}
        self.run = pb.Run(run_id=self.run_id)

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
        """Shows what happened."""
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

    def left(self) -> Fleet:
        """Returns what the fleet leaves."""
        points = tuple((done.number, float(done.accuracy or 0.0)) for done in self.rounds)
        everybody = len(self.federation.nodes)
        return Fleet(
            curve=Curve("defended, poisoned", points),
            model=str(Path(self.run.directory) / self.model),
            logs=str(self.federation.logs),
            bytes_down=self.moved["bytes_down"],
            bytes_up=self.moved["bytes_up"],
            round_s=statistics.median(done.seconds for done in self.rounds),
            missing=sum(everybody - len(done.answered) for done in self.rounds),
        )


def short(path: Path | str) -> str:
    """Returns a path as seen from the current directory, if it lies below."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else str(path)
