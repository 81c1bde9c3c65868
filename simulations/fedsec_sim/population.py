"""Who takes part in a simulation: nodes by id, each with rows of one pool of examples.

A node costs 8 bytes for each of its examples and 16 of its own, so that 100,000 of them fit beside
their pool. Rows may be shared among nodes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.tasks.task import Examples, NodeData, Task

Indices = NDArray[np.int64]

FIRST_ID = 100
"""Of the nodes that `fedsec.flower.local.node_contexts` makes; simulated ones begin there too."""


@dataclass(frozen=True, eq=False)
class Parts:
    """A pool of examples, divided.

    Args:
        pool: Of all nodes together.
        rows: Of the pool (k,), node after node.
        starts: Where each node's rows begin, and k at the end (nodes + 1,).

    Raises:
        ConfigError: They do not fit together.
    """

    pool: Examples
    rows: Indices
    starts: Indices

    def __post_init__(self) -> None:
        if self.starts[0] != 0 or self.starts[-1] != len(self.rows) or (self.sizes < 0).any():
            raise ConfigError("starts must ascend from 0 to the number of rows")
        if len(self.rows) and not 0 <= self.rows.min() <= self.rows.max() < len(self.pool):
            raise ConfigError(f"rows must be in 0..{len(self.pool) - 1}, those of the pool")

    @classmethod
    def of(cls, pool: Examples, parts: Sequence[Indices]) -> "Parts":
        """Returns the pool divided into `parts`, a list of rows for each node."""
        sizes = np.array([0, *map(len, parts)], np.int64)
        rows = np.concatenate(parts) if len(parts) else np.zeros(0, np.int64)
        return cls(pool, rows.astype(np.int64), np.cumsum(sizes))

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> "Parts":
        """Returns one pool of what each node has, in the order of the nodes."""
        starts = np.cumsum([0, *map(len, parts)])
        pool = Examples(
            torch.cat([part.inputs for part in parts]), torch.cat([part.targets for part in parts])
        )
        return cls(pool, np.arange(starts[-1], dtype=np.int64), starts.astype(np.int64))

    @cached_property
    def sizes(self) -> Indices:
        """Examples of each node (nodes,)."""
        return np.diff(self.starts)

    @cached_property
    def index(self) -> torch.Tensor:
        """`rows`, as a tensor on the same memory."""
        return torch.from_numpy(self.rows)

    def part(self, node: int) -> torch.Tensor:
        """Returns the rows of the node at position `node`."""
        return self.index[int(self.starts[node]) : int(self.starts[node + 1])]

    def examples(self, node: int) -> Examples:
        """Returns the examples of the node at position `node`; a copy."""
        return self.pool.take(self.part(node))


@dataclass(frozen=True, eq=False)
class Population:
    """Nodes with their data.

    Args:
        train: What each node trains on, at least one example each.
        test: What each node tests on; None where they keep nothing for tests.
        ids: Flower's ids of the nodes, ascending (n,). None: from 100 on.

    Raises:
        ConfigError: A node has nothing to train on, or ids do not fit.
    """

    train: Parts
    test: Parts | None = None
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.train.sizes)
        if not self.ids:
            object.__setattr__(self, "ids", tuple(range(FIRST_ID, FIRST_ID + count)))
        empty = np.flatnonzero(self.train.sizes == 0)
        if not count or len(empty):
            which = f"node {int(empty[0])} of {count}" if count else "every one of 0 nodes"
            raise ConfigError(f"{which} has nothing to train on; give fewer nodes or more examples")
        if len(self.ids) != count or any(
            a >= b for a, b in zip(self.ids, self.ids[1:], strict=False)
        ):
            raise ConfigError(f"ids must be {count} different numbers, ascending")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def position(self) -> Mapping[int, int]:
        """Where each node stands, by id."""
        return {node: place for place, node in enumerate(self.ids)}

    @classmethod
    def of(cls, nodes: Sequence[NodeData], ids: Sequence[int] = ()) -> "Population":
        """Returns a population of nodes whose data are at hand."""
        test = Parts.joined([node.test for node in nodes])
        return cls(
            Parts.joined([node.train for node in nodes]),
            test if test.sizes.all() else None,
            tuple(ids),
        )


Loader = Callable[[Mapping[str, object]], NodeData]


def load_population(
    task: Task, nodes: int, settings: Mapping[str, object], ids: Sequence[int] = ()
) -> Population:
    """Returns nodes that read their data as deployed ones do, each by its own settings.

    Args:
        task: Reads them.
        nodes: How many, >= 1.
        settings: The table ``[data.NAME]`` of all nodes; each gets its own ``partition``.
        ids: Of the nodes, in the order of their partitions; none: from 100 on.

    Raises:
        ConfigError: The settings are wrong, or there are too few examples.
    """
    if nodes < 1:
        raise ConfigError(f"nodes must be >= 1, got {nodes}")
    if ids and len(ids) != nodes:
        raise ConfigError(f"{len(ids)} ids for {nodes} nodes")
    order = sorted(range(nodes), key=lambda part: ids[part] if ids else part)
    loaded = [task.load({"partition": part, "partitions": nodes, **settings}) for part in order]
    return Population.of(loaded, sorted(ids))
