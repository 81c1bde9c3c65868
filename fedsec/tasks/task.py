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
        """Returns further figures over all the examples, e.g. ``{"accuracy": 0.97}``."""
        ...


def evaluate(
    task: Task, model: torch.nn.Module, data: Examples, *, batch_size: int = 1024
) -> dict[str, float]:
    """Returns ``"loss"`` and the task's metrics over all of `data`; the model is unchanged.

    The model sees `batch_size` examples at a time; loss and metrics see all answers at once, since
    an area under a curve is no mean over batches.

    Raises:
        ConfigError: `data` is empty.
    """
    if len(data) == 0:
        raise ConfigError("there is nothing to evaluate on: 0 examples")
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            outputs = torch.cat([model(batch) for batch in torch.split(data.inputs, batch_size)])
            figures = {"loss": float(task.loss(outputs, data.targets))}
            return figures | dict(task.metrics(outputs, data.targets))
    finally:
        model.train(was_training)
