"""Examples that are not divided yet, and a task that has them."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.tasks.digits import Digits
from fedsec.tasks.task import Examples, NodeData, Task


@dataclass(frozen=True, eq=False)
class Pool:
    """Training examples of all nodes together.

    Args:
        train: The examples.
        groups: To which group each belongs by nature (n,), e.g. its speaker; None: to none.
    """

    train: Examples
    groups: NDArray[np.int64] | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each example (n,).

        Raises:
            ConfigError: The targets are no classes.
        """
        targets = self.train.targets
        if targets.ndim != 1 or targets.is_floating_point():
            raise ConfigError("the targets are no classes: take the split iid, quantity or drawn")
        return targets.numpy()


@runtime_checkable
class Pooled(Protocol):
    """A task that can show its training examples undivided."""

    def pool(self) -> Pool:
        """Returns them."""
        ...


def pool_of(task: Task) -> Pool:
    """Returns a task's training examples undivided.

    A task of one's own has them where it has a method ``pool``; of a built-in one they are what a
    federation of a single node has, tests included.

    Raises:
        ConfigError: The task cannot show them.
    """
    if isinstance(task, Pooled):
        return task.pool()
    if isinstance(task, Digits):
        whole = task.load({"partition": 0, "partitions": 1, "split": "iid"})
        return Pool(joined(whole))
    raise ConfigError(
        f"task {task.name!r} cannot be divided here, since it has no method pool(); "
        "leave the split to the settings of its data"
    )


def joined(data: NodeData) -> Examples:
    """Returns all examples of a node."""
    return Examples(
        torch.cat([data.train.inputs, data.test.inputs]),
        torch.cat([data.train.targets, data.test.targets]),
    )
