"""A federation small enough for a test: a small MLP on real digits, ten nodes.

Nodes take a few gradient steps on their own part and hand in the difference; no process, no torch,
so that forty rounds take a fraction of a second.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from fedsec_sim.attacks.view import Attack, Matrix, View

NODES, CLASSES, HIDDEN, STEPS, RATE = 10, 10, 32, 5, 0.5
SIZE = 65 * HIDDEN + (HIDDEN + 1) * CLASSES
TRAINING = 1440  # the other 357 are the test set


@cache
def digits() -> tuple[Any, Any]:
    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(7).permutation(len(labels))
    with_bias = np.hstack([inputs[order] / 16, np.ones((len(labels), 1))])
    return with_bias.astype(np.float32), labels[order]


def layers(vector: Any) -> tuple[Any, Any]:
    cut = 65 * HIDDEN
    return vector[:cut].reshape(65, HIDDEN), vector[cut:].reshape(HIDDEN + 1, CLASSES)


def forward(vector: Any, inputs: Any) -> tuple[Any, Any]:
    first, second = layers(vector)
    hidden = np.hstack([np.maximum(inputs @ first, 0), np.ones((len(inputs), 1), np.float32)])
    return hidden, hidden @ second


def gradient(vector: Any, inputs: Any, labels: Any) -> Any:
    hidden, scores = forward(vector, inputs)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    wrong = (scores / scores.sum(axis=1, keepdims=True) - np.eye(CLASSES)[labels]) / len(labels)
    back = (wrong @ layers(vector)[1].T)[:, :-1] * (hidden[:, :-1] > 0)
    return np.concatenate([(inputs.T @ back).ravel(), (hidden.T @ wrong).ravel()])


def local(vector: Any, inputs: Any, labels: Any) -> Any:
    """Returns what a node's training changes (SIZE,)."""
    moved = vector
    for _ in range(STEPS):
        moved = moved - np.float32(RATE) * gradient(moved, inputs, labels).astype(np.float32)
    return moved - vector


def accuracy(
    attack: Attack | None,
    *,
    rule: Callable[[Matrix], Any] = lambda rows: rows.mean(axis=0),
    byzantine: tuple[int, ...] = (7, 8, 9),
    rounds: int = 40,
    sorted_by_label: bool = False,
) -> float:
    """Returns the test accuracy after `rounds` in which `byzantine` attack."""
    inputs, labels = digits()
    training = np.argsort(labels[:TRAINING], kind="stable") if sorted_by_label else range(TRAINING)
    shares = np.array_split(training, NODES)
    vector = np.random.default_rng(1).standard_normal(SIZE).astype(np.float32) / 8
    memory: dict[str, Any] = {}
    for number in range(1, rounds + 1):
        rows = np.stack([local(vector, inputs[share], labels[share]) for share in shares])
        if attack is not None:
            attack(View(rows, byzantine, number, np.random.default_rng(number), rule, memory))
        vector = vector + np.asarray(rule(rows), np.float32)
    scores = forward(vector, inputs[TRAINING:])[1]
    found = np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), -1)
    return float((found == labels[TRAINING:]).mean())
