"""Flower's simulation engine, Ray, as an engine: one message per worker, with a block of nodes.

A message for each node would cost more than training a small model does. Ray may be a cluster:
where the variable RAY_ADDRESS names one, its processors are used.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedsec.errors import StateError
from fedsec.flower.arrays import pack, unpack
from fedsec.flower.strategy import Matrix
from fedsec.plan import FederationPlan
from fedsec.tasks.task import Task
from fedsec_sim.engines.engine import Bench, Job, Losses, OwnRows
from fedsec_sim.engines.loop import Loop
from fedsec_sim.lab import Lab

SENT, ROWS, LOSSES, WORK = "sent", "rows", "losses", "work"
ROUND, NODES = "round", "nodes"
ANSWER_S = 3600.0  # for a block of nodes
_ENGINES: dict[str, Loop] = {}
"""Of this process: an actor of Ray keeps model and data from round to round."""


@dataclass(frozen=True)
class Recipe:
    """What an actor needs to make the nodes by itself.

    Args:
        plan: As TOML or JSON would say it, a value.
        lab: The surroundings.
        task: What is learned.
        name: Of this simulation, for the actor's memory.
    """

    plan: FederationPlan
    lab: Lab
    task: Task
    name: str = field(default_factory=lambda: uuid4().hex)

    def engine(self) -> Loop:
        """Returns this process's engine, made at the first call."""
        if self.name not in _ENGINES:
            _ENGINES.clear()  # of simulations that are over
            torch.set_num_threads(1)
            population = self.lab.populate(self.plan, self.task)
            _ENGINES[self.name] = Loop(Bench.of(self.plan, self.task, population))
        return _ENGINES[self.name]


def block_app(recipe: Recipe) -> ClientApp:
    """Returns the ClientApp that trains a block of nodes per message."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        del context
        engine, content = recipe.engine(), message.content
        work = content.config_records[WORK]
        nodes = [int(node) for node in _numbers(work, NODES)]
        sent = np.array(unpack(content.array_records[SENT][SENT]))
        rows = engine.rows(len(nodes))
        losses = engine.train(Job(int(str(work[ROUND])), sent, nodes), rows)
        reply = RecordDict({ROWS: ArrayRecord({ROWS: pack(rows), LOSSES: pack(losses)})})
        return Message(reply, reply_to=message)

    return app


class RayBlocks:
    """See `Engine`. Used inside a ServerApp.

    Args:
        grid: Reaches the workers.
        workers: Their node ids.
        size: d.
    """

    step = 1
    independent = True

    def __init__(self, grid: Grid, workers: Sequence[int], size: int) -> None:
        self._grid = grid
        self._workers = list(workers)
        self.name = f"ray, {len(workers)} workers"
        self.rows = OwnRows(size)

    def train(self, job: Job, out: Matrix) -> Losses:
        """See `Engine`.

        Raises:
            StateError: A worker failed or did not answer.
        """
        losses = np.empty(len(job.nodes))
        blocks = dict(self._blocks(len(job.nodes)))
        messages = [
            Message(_content(job, part), worker, MessageType.TRAIN, ttl=ANSWER_S)
            for worker, part in blocks.items()
        ]
        missing = set(blocks)
        for reply in self._grid.send_and_receive(messages, timeout=ANSWER_S):
            worker = reply.metadata.src_node_id
            if reply.has_error():
                raise StateError(f"round {job.round}: a worker failed: {reply.error.reason}")
            arrays, part = reply.content.array_records[ROWS], blocks[worker]
            out[part], losses[part] = unpack(arrays[ROWS]), unpack(arrays[LOSSES])
            missing.discard(worker)
        if missing:
            raise StateError(f"round {job.round}: {len(missing)} workers did not answer")
        return losses

    def close(self) -> None:
        """Ray ends with Flower's simulation."""

    def _blocks(self, count: int) -> Iterator[tuple[int, slice]]:
        """Yields each worker with its places, as equal as can be."""
        ends = np.linspace(0, count, len(self._workers) + 1).astype(int).tolist()
        for worker, begin, end in zip(self._workers, ends, ends[1:], strict=False):
            if begin < end:
                yield worker, slice(begin, end)


def _content(job: Job, part: slice) -> RecordDict:
    work = ConfigRecord({ROUND: job.round, NODES: [int(node) for node in job.nodes[part]]})
    return RecordDict({SENT: ArrayRecord({SENT: pack(job.sent)}), WORK: work})


def _numbers(record: Mapping[str, object], name: str) -> list[int]:
    value = record[name]
    return value if isinstance(value, list) else []
