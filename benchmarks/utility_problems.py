"""Handwritten digits over nodes, for measures of accuracy: data, and what a node does with them.

Nodes train multinomial regression on MNIST's 10,000 test images or on scikit-learn's digits, of
which a fifth is held out.
"""

import gzip
from dataclasses import dataclass
from functools import cache

import numpy as np
from sklearn.datasets import load_digits

from fedsec_sim.workloads.files import data_file

CLASSES, STEPS = 10, 5


@dataclass(frozen=True, eq=False)
class Problem:
    """A data set over nodes.

    Attributes:
        name: With the number of nodes.
        features: (nodes, m, k).
        labels: One-hot (nodes, m, 10).
        test: Features and labels that no node holds.
        rate: Of the nodes that take part in a round.
        clip: L2 norm of an update.
        learning_rate: Of a local step; there are `STEPS`.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    test: tuple[np.ndarray, np.ndarray]
    rate: float
    clip: float
    learning_rate: float

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self.features)

    @property
    def size(self) -> int:
        """d, entries of the model."""
        return (self.features.shape[2] + 1) * CLASSES

    def updates(self, weights: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Returns what these nodes answer (m, d): `STEPS` full-batch steps from `weights`."""
        inputs, wanted = self.features[nodes], self.labels[nodes]
        local = np.repeat(weights.reshape(1, -1, CLASSES), len(nodes), axis=0)
        for _ in range(STEPS):
            scores = inputs @ local[:, :-1] + local[:, -1:]
            scores -= scores.max(axis=2, keepdims=True)
            likely = np.exp(scores)
            likely /= likely.sum(axis=2, keepdims=True)
            error = (likely - wanted) / inputs.shape[1]
            local[:, :-1] -= self.learning_rate * (inputs.transpose(0, 2, 1) @ error)
            local[:, -1] -= self.learning_rate * error.sum(axis=1)
        return (local.reshape(len(nodes), -1) - weights).astype(np.float32)

    def accuracy(self, weights: np.ndarray) -> float:
        """Returns the share of test images that are recognised, in percent."""
        features, labels = self.test
        matrix = weights.reshape(-1, CLASSES)
        found = (features @ matrix[:-1] + matrix[-1]).argmax(axis=1)
        return float((found == labels).mean()) * 100


def make_problem(name: str, nodes: int, rate: float, clip: float, learning_rate: float) -> Problem:
    """Returns a data set, divided among nodes alike."""
    features, labels = mnist() if name == "mnist" else digits()
    order = np.random.default_rng(88).permutation(len(labels))
    held, rest = order[: len(order) // 5], order[len(order) // 5 :]
    each = len(rest) // nodes
    rest = rest[: each * nodes]
    return Problem(
        f"{name} n={nodes}",
        features[rest].reshape(nodes, each, -1),
        np.eye(CLASSES, dtype=np.float32)[labels[rest]].reshape(nodes, each, CLASSES),
        (features[held], labels[held]),
        rate,
        clip,
        learning_rate,
    )


@cache
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Returns images (10000, 784), of mean length 1, and labels."""
    images, labels = (
        np.frombuffer(gzip.decompress(data_file(f"mnist/t10k-{kind}-ubyte.gz").read_bytes()), "u1")
        for kind in ("images-idx3", "labels-idx1")
    )
    features = images[16:].reshape(-1, 784).astype(np.float32)
    return features / np.linalg.norm(features, axis=1).mean(), labels[8:].astype(np.intp)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images (1797, 64), of mean length 1, and labels."""
    features, labels = load_digits(return_X_y=True)
    features = features.astype(np.float32)
    return features / np.linalg.norm(features, axis=1).mean(), labels
