"""Handwritten digits: scikit-learn's 1,797 real images of 8 x 8 pixels, 10 classes.

A fifth of them, the same for everyone, is the central test set that no node holds. The rest is
divided among the nodes, and each node keeps a fifth of its part for its own tests.

Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
"""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from fedsec.errors import ConfigError
from fedsec.tasks.partition import SPLITS, Indices, dirichlet, iid, shards
from fedsec.tasks.seeds import seeded
from fedsec.tasks.settings import Settings
from fedsec.tasks.task import Examples, NodeData, Options

CLASSES = 10
TEST_SHARE = 0.2
SPLIT_SEED = 88  # of the central test set: no setting, so that nodes cannot disagree on it
MINIMUM = 2  # one example to train on and one to test on


@dataclass(frozen=True, slots=True)
class DigitsSettings:
    """The table ``[data.NAME]`` with ``connector = "digits"``.

    Args:
        partition: Which part this node has, 0..partitions-1.
        partitions: Number of parts.
        split: How parts are made.
        alpha: Of ``"dirichlet"``; small: few classes per node.
        shards_per_node: Of ``"shards"``.
        seed: Of the division; all nodes of a federation have the same.
    """

    partition: int = 0
    partitions: int = 1
    split: str = "dirichlet"
    alpha: float = 0.5
    shards_per_node: int = 2
    seed: int = 1

    @classmethod
    def read(cls, given: Mapping[str, object]) -> "DigitsSettings":
        """Returns the settings in `given`, defaults filled in.

        Raises:
            ConfigError: A key is unknown or its value out of range.
        """
        settings = Settings(given)
        settings.choice("connector", ("digits",), default="digits")
        parts = settings.integer("partitions", low=1, high=len(_pool()[1]) // MINIMUM, default=1)
        split = settings.choice("split", SPLITS, default="dirichlet")
        most = len(_pool()[1]) // (parts * MINIMUM)
        read = cls(
            partition=settings.integer(
                "partition", low=0, high=parts - 1, default=0 if parts == 1 else None
            ),
            partitions=parts,
            split=split,
            alpha=settings.number("alpha", above=0, most=1e6, default=0.5),
            shards_per_node=settings.integer(
                "shards_per_node", low=1, high=most, default=min(2, most)
            ),
            seed=settings.integer("seed", low=0, high=2**63 - 1, default=1),
        )
        settings.end()
        return read

    def indices(self) -> Indices:
        """Returns this node's rows of the pool of training examples."""
        _, targets = _pool()
        if self.split == "iid":
            parts = iid(len(targets), self.partitions, seed=self.seed)
        elif self.split == "shards":
            parts = shards(targets, self.partitions, per_node=self.shards_per_node, seed=self.seed)
        else:
            parts = dirichlet(
                targets, self.partitions, alpha=self.alpha, minimum=MINIMUM, seed=self.seed
            )
        return parts[self.partition]


@dataclass(frozen=True, slots=True)
class Digits:
    """The task ``"digits"``. Options: ``model = "cnn"`` (default), ``"mlp"`` or ``"logistic"``."""

    name: str = "digits"

    def make_model(self, options: Options, seed: int) -> nn.Module:
        """Returns a CNN with group normalisation (10,026 parameters), or another of the options.

        An MLP has 4,810, logistic regression 650; this, whose loss is convex, starts at zero.
        """
        settings = Settings(options, "task.options.")
        kind = settings.choice("model", tuple(_MODELS), default="cnn")
        settings.end()
        with seeded(seed):
            return _MODELS[kind]()

    def load(self, settings: Mapping[str, object]) -> NodeData:
        """Returns the part of the images that `settings` name, a fifth of it for tests."""
        read = DigitsSettings.read(settings)
        rows = np.random.default_rng((read.seed, read.partition)).permutation(read.indices())
        kept = max(1, round(TEST_SHARE * len(rows)))
        return NodeData(train=_examples(rows[kept:]), test=_examples(rows[:kept]))

    def central_test(self) -> Examples | None:
        """Returns the 359 images that no node holds."""
        inputs, targets = _split()[1]
        return Examples(torch.from_numpy(inputs), torch.from_numpy(targets))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross entropy."""
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Returns the share of images whose most likely class is the right one."""
        return {"accuracy": float((outputs.argmax(dim=1) == targets).double().mean())}


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, CLASSES),
    )


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))


class Standard(nn.Module):
    """Takes a constant off every pixel and multiplies: public numbers, nothing is learned.

    Args:
        mean: What is taken off.
        scale: What the rest is multiplied with.
    """

    def __init__(self, mean: float, scale: float) -> None:
        super().__init__()
        self.mean, self.scale = mean, scale

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the pixels, moved and scaled."""
        return (pixels - self.mean) * self.scale


def logistic(pixels: int, mean: float, scale: float) -> nn.Module:
    """Returns logistic regression on that many pixels, ten classes, all weights zero."""
    line = nn.Linear(pixels, CLASSES)
    nn.init.zeros_(line.weight)
    nn.init.zeros_(line.bias)
    return nn.Sequential(nn.Flatten(), Standard(mean, scale), line)


def _logistic() -> nn.Module:
    return logistic(64, mean=0.3, scale=2.0)


_MODELS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {"cnn": _cnn, "mlp": _mlp, "logistic": _logistic}
)


def _examples(rows: Indices) -> Examples:
    inputs, targets = _pool()
    return Examples(torch.from_numpy(inputs[rows]), torch.from_numpy(targets[rows]))


Images = tuple[np.typing.NDArray[np.float32], Indices]


def _pool() -> Images:
    """Returns what the nodes share among them."""
    return _split()[0]


@cache
def _split() -> tuple[Images, Images]:
    """Returns the nodes' pool and the central test set; pixels in 0..1."""
    rows = _read()
    inputs = (rows[:, :64].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    targets = rows[:, 64].astype(np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(targets))
    cut = round(TEST_SHARE * len(order))
    test, pool = np.sort(order[:cut]), np.sort(order[cut:])
    return (inputs[pool], targets[pool]), (inputs[test], targets[test])


def _read() -> np.typing.NDArray[np.float64]:
    """Returns scikit-learn's table (1797, 65): 64 pixels in 0..16 and the class.

    Read from its file: to import `sklearn.datasets` takes longer than a round, in every worker.
    """
    spec = find_spec("sklearn")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise ConfigError('the task "digits" needs scikit-learn: pip install scikit-learn')
    path = Path(folders[0], "datasets", "data", "digits.csv.gz")
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            return np.loadtxt(file, delimiter=",")
    except OSError as error:
        raise ConfigError(f"scikit-learn's digits cannot be read: {error}") from error
