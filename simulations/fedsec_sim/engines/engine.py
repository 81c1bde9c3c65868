"""What an engine is: it trains some nodes from one model and writes an update per row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fedsec.flower.strategy import Matrix
from fedsec.flower.table import local_training
from fedsec.plan import FederationPlan
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.task import Task
from fedsec.tasks.training import LocalTraining
from fedsec.vectors import Layout, Vector
from fedsec_sim.population import Population
from fedsec_sim.seeds import training_seeds

Losses: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bench:
    """What every engine needs: the task, its data, how a node trains, and a model to work on.

    Args:
        task: What is learned.
        population: Who learns.
        training: How a node trains.
        seed: The plan's.
        model: Worked on; whoever uses it leaves anything in it.
    """

    task: Task
    population: Population
    training: LocalTraining
    seed: int
    model: torch.nn.Module

    @classmethod
    def of(cls, plan: FederationPlan, task: Task, population: Population) -> "Bench":
        """Returns a bench for a plan of the built-in app."""
        wanted, training = plan.learning
        model = task.make_model(wanted.options, training.seed)
        return cls(task, population, local_training(training), training.seed, model)

    @property
    def layout(self) -> Layout:
        """Of the model."""
        return Layout.of(get_arrays(self.model))

    def seeds_of(self, nodes: Sequence[int], round_number: int) -> list[int]:
        """Returns the seeds of nodes by position, as they would have them when deployed."""
        ids = self.population.ids
        return training_seeds(self.seed, round_number, [ids[node] for node in nodes])


@dataclass(frozen=True, eq=False)
class Job:
    """Work of one round.

    Args:
        round: From 1.
        sent: The model's vector (d,), from which each node trains.
        nodes: Positions in the population (n,).
    """

    round: int
    sent: Vector
    nodes: Sequence[int]


class Engine(Protocol):
    """Trains nodes. A node's row depends on the model, the round and the node, on nothing else.

    Where it is not `independent`, the last bits depend also on which nodes are trained with it in
    one `step`: counted from the first node of a job.
    """

    @property
    def name(self) -> str:
        """For people, e.g. ``"loop"``."""
        ...

    @property
    def step(self) -> int:
        """How many nodes it trains at once."""
        ...

    @property
    def independent(self) -> bool:
        """Whether a node's bits are the same whichever nodes are trained beside it."""
        ...

    def rows(self, count: int) -> Matrix:
        """Returns memory for `count` updates (count, d), the same at every call."""
        ...

    def train(self, job: Job, out: Matrix) -> Losses:
        """Writes the update of each node to its row of `out` (n, d); returns mean losses (n,).

        A row is not finite where training diverged.

        Args:
            job: Which nodes, and from which model.
            out: Part of what `rows` returned.
        """
        ...

    def close(self) -> None:
        """Ends what the engine started."""
        ...


class OwnRows:
    """Rows in this process's memory, for engines to inherit from nothing else.

    Args:
        size: d.
    """

    def __init__(self, size: int) -> None:
        self._kept: Matrix = np.empty((0, size), np.float32)

    def __call__(self, count: int) -> Matrix:
        """See `Engine.rows`."""
        if len(self._kept) < count:
            self._kept = np.empty((count, self._kept.shape[1]), np.float32)
        return self._kept[:count]


class Slots:
    """The model's floating-point tensors in the order of its vector, to load and to read.

    Each lies in memory of its own, which torch aligns to 64 bytes. As views of one packed row they
    would not: kernels treat the ends of unaligned arrays otherwise, and what a node learns would
    depend on the row that it gets.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        layout = Layout.of(get_arrays(model))
        state = model.state_dict()
        self._tensors = [state[slot.name] for slot, _ in layout.pieces()]
        self._plain = all(tensor.dtype == torch.float32 for tensor in self._tensors)
        self._sizes = [slot.size for slot, _ in layout.pieces()]
        self._fixed = [state[slot.name] for slot in layout.slots if not slot.averaged]
        self._first = [tensor.clone() for tensor in self._fixed]
        self._sent: list[torch.Tensor] = []
        self._row = torch.empty(layout.size)

    @torch.no_grad()
    def send(self, vector: Vector) -> None:
        """Takes the model that nodes are to start from (d,)."""
        pieces = torch.split(torch.from_numpy(vector), self._sizes)
        # Rounded to the tensors' own dtypes, as the arrays that travel are.
        self._sent = [
            piece.reshape(tensor.shape).to(tensor.dtype, copy=True)
            for piece, tensor in zip(pieces, self._tensors, strict=True)
        ]
        torch.cat([sent.flatten().float() for sent in self._sent], out=self._row)

    @torch.no_grad()
    def reset(self) -> None:
        """Puts the model that was sent into the module."""
        torch._foreach_copy_(self._tensors, self._sent)
        for tensor, first in zip(self._fixed, self._first, strict=True):
            tensor.copy_(first)

    @torch.no_grad()
    def update(self, out: Vector) -> None:
        """Writes the module's model minus the one that was sent to `out` (d,)."""
        row = torch.from_numpy(out)
        flat: list[Any] = [tensor.flatten() for tensor in self._tensors]
        torch.cat(flat if self._plain else [each.float() for each in flat], out=row)
        row.sub_(self._row)

    @property
    def sent_row(self) -> torch.Tensor:
        """The model that was sent, as a vector (d,)."""
        return self._row
