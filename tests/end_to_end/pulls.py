"""Runs of the task `pulling`: their plans, and what their rounds must come to by numpy alone."""

import asyncio
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsec.artifacts import read_model
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_sim.loopback import LoopbackFederation

SITE = Path(__file__).parent / "site"  # on the path of every program
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(SITE), os.environ.get("PYTHONPATH", "")])}
RATE = np.float32(0.5)
SMALL = 1000

_PLAN = """
schema = 1
name = "pulls"
[task]
name = "pulling:TASK"
data = "pulls"
options = {{ size = {size} }}
[training]
rounds = {rounds}
local_steps = 1
batch_size = 2
learning_rate = 0.5
[nodes]
min_available = {nodes}
quorum = {quorum}
wait_s = 60
[round]
deadline_s = {deadline}
reconnect_s = {reconnect}
attempts = {attempts}
evaluate_every = 0
[model]
save_every = 1
"""


def plan(
    *,
    rounds: int,
    nodes: int = 3,
    quorum: int = 2,
    size: int = SMALL,
    deadline: float = 100,
    reconnect: float = 0.5,
    attempts: int = 3,
) -> str:
    return _PLAN.format(
        rounds=rounds,
        nodes=nodes,
        quorum=quorum,
        size=size,
        deadline=deadline,
        reconnect=reconnect,
        attempts=attempts,
    )


def settings(partition: int, gate: Path) -> str:
    """The `node.toml` of a node with the target `partition`."""
    return (
        "schema = 1\n[limits]\nthreads = 1\n"
        '[policy]\nallowed_tasks = ["pulling:TASK"]\nmin_nodes = 1\n'
        f'[data.pulls]\nconnector = "none"\npartition = {partition}\ngate = "{gate}"\n'
    )


def update(weights: np.ndarray, partition: int) -> np.ndarray:
    """What the node `partition` answers to a model."""
    target = np.float32(partition + 1) * np.linspace(0, 1, len(weights), dtype=np.float32)
    return (weights - RATE * (weights - target)) - weights


class Event(NamedTuple):
    """What happened in a run; `at` in Unix seconds."""

    kind: str
    detail: dict
    at: float


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Attributes:
        run: As the coordinator knows it.
        events: All of them, in order.
        names: Of the nodes by id, as text.
    """

    run: pb.Run
    events: list[Event]
    names: dict[str, str]

    def rounds(self) -> list[dict]:
        return [event.detail for event in self.events if event.kind == "round"]

    def answered(self, round_number: int) -> set[str]:
        return {self.names[str(node)] for node in self.rounds()[round_number - 1]["answered"]}

    def reasons(self, round_number: int) -> dict[str, str]:
        """Why nodes that were asked are not in the mean, by name."""
        detail = self.rounds()[round_number - 1]
        missing = {**detail["failed"], **detail["rejected"]}
        return {self.names[node]: why for node, why in missing.items()}

    def check_means(self, partitions: dict[str, int]) -> None:
        """Asserts of every round that its model is the mean of exactly the reported nodes."""
        details = self.rounds()
        assert [detail["round"] for detail in details] == list(range(1, len(details) + 1))
        models = [self.model(number) for number in range(1, len(details) + 1)]
        before = np.zeros_like(models[0])
        for number, after in enumerate(models, start=1):
            updates = [update(before, partitions[name]) for name in self.answered(number)]
            np.testing.assert_allclose(
                after, before + np.mean(updates, axis=0), rtol=1e-5, atol=1e-6
            )
            before = after

    def model(self, round_number: int) -> np.ndarray:
        path = Path(self.run.directory) / "models" / f"round-{round_number:05d}.safetensors"
        arrays, _ = read_model(path)
        return arrays["weights"]


def outcome(federation: LoopbackFederation, run_id: int) -> Outcome:
    """Returns what became of a run that has ended."""

    async def follow() -> tuple[pb.Run, list[Event]]:
        run, events = pb.Run(), []
        request = pb.WatchRunRequest(run_id=run_id)
        async for each in federation.admin.stream("WatchRun", request, pb.RunEvent):
            if each.WhichOneof("kind") == "run":
                run = each.run
            else:
                detail = json.loads(each.event.detail_json)
                events.append(Event(each.event.kind, detail, each.event.at))
        return run, events

    run, events = asyncio.run(follow())
    names = {str(number): name for name, number in federation.node_ids().items()}
    return Outcome(run, events, names)


def hold(gate: Path, partitions: Iterable[int]) -> None:
    """Lets these nodes wait in training, from their next step on."""
    for partition in partitions:
        (gate / f"held-{partition}").unlink(missing_ok=True)  # of one that was killed there
        (gate / f"hold-{partition}").touch()


def let_go(gate: Path) -> None:
    """Lets all nodes go on."""
    for file in gate.glob("hold-*"):
        file.unlink()


def is_held(gate: Path, partition: int) -> bool:
    return (gate / f"held-{partition}").exists()
