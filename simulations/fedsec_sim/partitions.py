"""How a pool of examples is divided among nodes: the kinds of heterogeneity that papers use.

Each is a frozen value; parts follow from it, the pool, the number of nodes and a seed. Disjoint and
covering, but for `Drawn`.

Sources: `Gamma`: Karimireddy et al., "SCAFFOLD", ICML 2020, section 7 ("similarity"), as in the
library byzfl. `Quantity`: Li, Diao, Chen, He, "Federated Learning on Non-IID Data Silos", ICDE
2022, section 4.3. The others: `fedsec.tasks.partition`, where deployed nodes find them too.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from fedsec.errors import ConfigError
from fedsec.tasks import partition
from fedsec_sim.chance import PARTS, generator
from fedsec_sim.population import Indices, Parts
from fedsec_sim.spec import build
from fedsec_sim.workloads.pool import Pool

MINIMUM = 2  # examples that a part of a Dirichlet division has at least


class Split(Protocol):
    """A way to divide a pool."""

    def __call__(self, pool: Pool, nodes: int, seed: int) -> Parts:
        """Returns the pool divided among `nodes`.

        Raises:
            ConfigError: There are too few examples.
        """
        ...


@dataclass(frozen=True, slots=True)
class Iid:
    """Random parts of equal size."""

    def __call__(self, pool: Pool, nodes: int, seed: int) -> Parts:
        """See `Split`."""
        return Parts.of(pool.train, partition.iid(len(pool.train), nodes, seed=seed))


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Each class is divided in proportions drawn from Dirichlet(alpha).

    Args:
        alpha: Small: few classes in a part; large: all alike. > 0.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)

    def __call__(self, pool: Pool, nodes: int, seed: int) -> Parts:
        """See `Split`."""
        parts = partition.dirichlet(
            pool.labels, nodes, alpha=self.alpha, minimum=MINIMUM, seed=seed
        )
        return Parts.of(pool.train, parts)


@dataclass(frozen=True, slots=True)
class Shards:
    """The pool sorted by class, cut in shards that are dealt out.

    Args:
        per_node: Shards of a node, >= 1.
    """

    per_node: int = 2

    def __post_init__(self) -> None:
        if self.per_node < 1:
            raise ConfigError(f"per_node must be >= 1, got {self.per_node}")

    def __call__(self, pool: Pool, nodes: int, seed: int) -> Parts:
        """See `Split`."""
        parts = partition.shards(pool.labels, nodes, per_node=self.per_node, seed=seed)
        return Parts.of(pool.train, parts)


@dataclass(frozen=True, slots=True)
class Quantity:
    """Classes alike, sizes in proportions drawn from Dirichlet(alpha); each node has at least one.

    Args:
        alpha: Small: a few nodes have nearly all. > 0.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)

    def __call__(self, pool: Pool, nodes: int, seed: int) -> Parts:
        """See `Split`."""
        count = len(pool.train)
        _enough(count, nodes)
        rng = generator(seed, PARTS, nodes)
        shares = np.cumsum(rng.dirichlet(np.full(nodes, self.alpha)))
        # One each, and the rest in proportion.
        ends = np.arange(1, nodes + 1) + np.floor(shares * (count - nodes) + 1e-9).astype(np.int64)
        ends[-1] = count
        return Parts.of(pool.train, np.split(rng.permutation(count), ends[:-1]))


@dataclass(frozen=True, slots=True)
class Gamma:
    """A share `gamma` of the pool is dealt out at random, the rest sorted by class.

    1 is IID; 0 gives each node one run of the sorted pool, the extreme of the papers.

    Args:
        gamma: In [0, 1].
    """

    gamma: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma must be in [0, 1], got {self.gamma}")

    def __call__(self, pool: Pool, nodes: int, seed: int) -> Parts:
        """See `Split`."""
        count = len(pool.train)
        _enough(count, nodes)
        order = generator(seed, PARTS, nodes).permutation(count)
        cut = round(self.gamma * count)
        alike, rest = order[:cut], order[cut:]
        rest = rest[np.argsort(pool.labels[rest], kind="stable")]
        runs = zip(np.array_split(alike, nodes), np.array_split(rest, nodes)[::-1], strict=True)
        return Parts.of(pool.train, [np.concatenate(both) for both in runs])


@dataclass(frozen=True, slots=True)
class Natural:
    """Parts as they arose: one node for each group of the pool, e.g. each speaker of a play.

    Groups are taken from the largest on; those that are left over are not used.

    Args:
        least: Examples that a group must have.
    """

    least: int = 2

    def __call__(self, pool: Pool, nodes: int, seed: int) -> Parts:
        """See `Split`; the seed changes nothing."""
        del seed
        if pool.groups is None:
            raise ConfigError("the data have no natural parts; take another split")
        names, sizes = np.unique(pool.groups, return_counts=True)
        names = names[np.lexsort((names, -sizes))]
        enough = int((sizes >= self.least).sum())
        if nodes > enough:
            raise ConfigError(
                f"{nodes} nodes, but only {enough} groups have {self.least} examples or more"
            )
        return Parts.of(pool.train, [np.flatnonzero(pool.groups == n) for n in names[:nodes]])


@dataclass(frozen=True, slots=True)
class Drawn:
    """Each node draws its examples from the whole pool, with replacement: for any number of nodes.

    Args:
        examples: Of each node, >= 1.
    """

    examples: int = 16

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ConfigError(f"examples must be >= 1, got {self.examples}")

    def __call__(self, pool: Pool, nodes: int, seed: int) -> Parts:
        """See `Split`."""
        rng = generator(seed, PARTS, nodes)
        rows: Indices = rng.integers(0, len(pool.train), nodes * self.examples)
        return Parts(pool.train, rows, np.arange(nodes + 1, dtype=np.int64) * self.examples)


@dataclass(frozen=True, slots=True)
class HonestOnly:
    """Another split among the first nodes; each of the last few has a copy of a first one's part.

    For comparisons with libraries whose adversaries hold no data: as many as there are of them,
    honest nodes have the same parts.

    Args:
        split: Divides the pool.
        byzantine: How many of the nodes, the last ones, are not honest, >= 0.
    """

    split: Split
    byzantine: int

    def __call__(self, pool: Pool, nodes: int, seed: int) -> Parts:
        """See `Split`."""
        honest = nodes - self.byzantine
        made = self.split(pool, honest, seed)
        holders = [*range(honest), *(number % honest for number in range(self.byzantine))]
        return Parts.of(made.pool, [made.part(node).numpy() for node in holders])


SPLITS: Mapping[str, type[Split]] = MappingProxyType(
    {
        "iid": Iid,
        "dirichlet": Dirichlet,
        "shards": Shards,
        "quantity": Quantity,
        "gamma": Gamma,
        "natural": Natural,
        "drawn": Drawn,
    }
)


def make_split(name: str, parameters: Mapping[str, object]) -> Split:
    """Returns the split of this name.

    Raises:
        ConfigError: There is none, or a parameter is unknown or out of range.
    """
    if name not in SPLITS:
        raise ConfigError(f"there is no split {name[:40]!r}; there are: {', '.join(SPLITS)}")
    known = [*inspect.signature(SPLITS[name]).parameters]
    if unknown := sorted(set(parameters) - set(known)):
        allowed = ", ".join(known) or "none"
        raise ConfigError(f"split {name} has no parameter {unknown[0]!r}; allowed: {allowed}")
    return build(f"split {name}", SPLITS[name], parameters)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} must be > 0, got {value}")


def _enough(examples: int, nodes: int) -> None:
    if nodes < 1 or examples < nodes:
        raise ConfigError(f"{examples} examples cannot be divided among {nodes} nodes")
