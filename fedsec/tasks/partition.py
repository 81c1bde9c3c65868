"""Dividing examples among nodes: disjoint, covering, the same for the same seed.

Source of `dirichlet`: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution
for Federated Visual Classification", 2019, arXiv:1909.06335, in the per-class form of Yurochkin et
al., ICML 2019. Source of `shards`: McMahan et al., AISTATS 2017, section 3.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsec.data.records import Records
from fedsec.data.settings import Connector
from fedsec.errors import ConfigError

Indices = NDArray[np.int64]

SPLITS = ("dirichlet", "shards", "iid")


def part_of(settings: Connector, records: Records) -> Indices:
    """Returns the rows of the part of `records` that `settings` name, in ascending order."""
    parts, seed = settings.partitions, settings.seed
    if parts == 1:
        return np.arange(len(records), dtype=np.int64)
    labels = np.unique(records.targets, return_inverse=True)[1].astype(np.int64)
    if settings.split == "dirichlet":
        made = dirichlet(labels, parts, alpha=settings.alpha, minimum=2, seed=seed)
    elif settings.split == "shards":
        made = shards(labels, parts, per_node=settings.shards_per_node, seed=seed)
    else:
        made = iid(len(records), parts, seed=seed)
    return made[settings.partition]


def iid(examples: int, nodes: int, *, seed: int) -> list[Indices]:
    """Returns `nodes` random parts whose sizes differ by at most one."""
    _check(examples, nodes, 1)
    order = _generator(seed, nodes, "iid").permutation(examples)
    return [np.sort(part) for part in np.array_split(order, nodes)]


def shards(labels: Indices, nodes: int, *, per_node: int = 2, seed: int) -> list[Indices]:
    """Returns `nodes` parts of `per_node` shards each, a shard being a run of sorted labels.

    So a node sees few classes: at most about ``2 * per_node``.

    Raises:
        ConfigError: There are fewer examples than shards.
    """
    _check(len(labels), nodes, per_node)
    rng = _generator(seed, nodes, "shards")
    # Random within a class, so that which examples form a shard depends on the seed.
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    pieces = np.array_split(order, nodes * per_node)
    dealt = rng.permutation(len(pieces)).reshape(nodes, per_node)
    return [np.sort(np.concatenate([pieces[i] for i in row])) for row in dealt]


def dirichlet(
    labels: Indices, nodes: int, *, alpha: float, minimum: int = 1, seed: int
) -> list[Indices]:
    """Returns `nodes` parts; each class is divided in proportions drawn from Dirichlet(alpha).

    Nodes that got fewer than `minimum` take examples, drawn at random, from the largest part.

    Args:
        labels: Class of each example (n,).
        nodes: Number of parts.
        alpha: Small: few classes per node; large: all nodes alike. > 0.
        minimum: Examples that each part has at least.
        seed: The parts follow from it.

    Raises:
        ConfigError: alpha is not positive, or there are not enough examples.
    """
    if not alpha > 0:
        raise ConfigError(f"alpha must be > 0, got {alpha}")
    _check(len(labels), nodes, minimum)
    rng = _generator(seed, nodes, "dirichlet")
    parts: list[list[Indices]] = [[] for _ in range(nodes)]
    for label in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        shares = np.cumsum(rng.dirichlet(np.full(nodes, alpha)))[:-1]
        cuts = np.clip((shares * len(of_class)).astype(np.int64), 0, len(of_class))
        for part, piece in zip(parts, np.split(of_class, cuts), strict=True):
            part.append(piece)
    return _level([np.concatenate(part) for part in parts], minimum, rng)


def _level(parts: list[Indices], minimum: int, rng: np.random.Generator) -> list[Indices]:
    while True:
        sizes = [len(part) for part in parts]
        small, large = int(np.argmin(sizes)), int(np.argmax(sizes))
        if sizes[small] >= minimum:
            return [np.sort(part) for part in parts]
        order = rng.permutation(parts[large])
        taken = minimum - sizes[small]
        taken = min(taken, max(1, sizes[large] - minimum))
        parts[small] = np.concatenate([parts[small], order[:taken]])
        parts[large] = order[taken:]


def _check(examples: int, nodes: int, minimum: int) -> None:
    if nodes < 1:
        raise ConfigError(f"nodes must be >= 1, got {nodes}")
    if examples < nodes * minimum:
        raise ConfigError(
            f"{examples} examples are too few for {nodes} nodes with at least {minimum} each"
        )


def _generator(seed: int, nodes: int, purpose: str) -> np.random.Generator:
    words: Sequence[int] = (seed, nodes, *purpose.encode())
    return np.random.default_rng(np.random.SeedSequence(words))
