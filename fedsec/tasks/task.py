"""What a task is: a model, how data becomes tensors, a loss and metrics.

One's own is any object with these members, named in a plan as ``"module:attribute"`` and installed
on the coordinator and on each node. `examples/own_task.py` is a whole one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from fedsec.errors import ConfigError

Options: TypeAlias = Mapping[str, bool | int | float | str]


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs (n, ...) and targets (n, ...), row by row.

    Raises:
        ConfigError: The two differ in length.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ConfigError(f"{len(self.inputs)} inputs but {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Tensor) -> "Examples":
        """Returns the examples at `rows` (k,), int64."""
        return Examples(self.inputs[rows], self.targets[rows])


@dataclass(frozen=True, slots=True)
class NodeData:
    """What one node has: examples to train on, and others to evaluate on."""

    train: Examples
    test: Examples


@runtime_checkable
class Task(Protocol):
    """What is learned. Methods are pure but for reading data in `load` and `central_test`."""

    @property
    def name(self) -> str:
        """Stands in a model's metadata."""
        ...

    def make_model(self, options: Options, seed: int) -> torch.nn.Module:
        """Returns a new model in training mode, its parameters drawn from `seed`.

        Args:
            options: The plan's ``[task.options]``.
            seed: Same seed, same parameters, whatever the global generators hold.

        Raises:
            ConfigError: An option is unknown or out of range.
        """
        ...

    def load(self, settings: Mapping[str, object]) -> NodeData:
        """Returns a node's data, from the table ``[data.NAME]`` of its settings.

        Raises:
            ConfigError: A setting is unknown or out of range.
        """
        ...

    def central_test(self) -> Examples | None:
        """Returns test examples that no node holds, or None: then the nodes evaluate."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean loss (scalar) of a batch, differentiable in `outputs`."""
        ...

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Returns further figures, each a mean over the batch, e.g. ``{"accuracy": 0.97}``."""
        ...


def evaluate(
    task: Task, model: torch.nn.Module, data: Examples, *, batch_size: int = 1024
) -> dict[str, float]:
    """Returns ``"loss"`` and the task's metrics as means over `data`; the model is unchanged.

    Raises:
        ConfigError: `data` is empty.
    """
    if len(data) == 0:
        raise ConfigError("there is nothing to evaluate on: 0 examples")
    was_training = model.training
    model.eval()
    totals: dict[str, float] = {}
    try:
        with torch.inference_mode():
            for start in range(0, len(data), batch_size):
                targets = data.targets[start : start + batch_size]
                outputs = model(data.inputs[start : start + batch_size])
                found = {"loss": float(task.loss(outputs, targets))}
                found |= task.metrics(outputs, targets)
                for name, value in found.items():
                    totals[name] = totals.get(name, 0.0) + value * len(targets)
    finally:
        model.train(was_training)
    return {name: total / len(data) for name, total in totals.items()}
