"""Membership inference: was this example trained on? A low loss says yes.

Sources: Yeom, Giacomelli, Fredrikson, Jha, "Privacy Risk in Machine Learning: Analyzing the
Connection to Overfitting", CSF 2018, adversary 2 (loss threshold) and definition 4 (advantage).
Carlini, Chien, Nasr, Song, Terzis, Tramer, "Membership Inference Attacks From First Principles",
IEEE S&P 2022, section 3 (true-positive rate at a low false-positive rate).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.tasks.task import Examples, Task

LOW = 0.01


@dataclass(frozen=True, slots=True)
class Inferred:
    """How well losses tell members from others; 0.5, 0 and 0.01 are guessing.

    Attributes:
        auc: Area under the curve of true against false positives, 0..1.
        advantage: Largest difference of the two rates over all thresholds, 0..1.
        at_low: True-positive rate at a false-positive rate of at most 1 %.
    """

    auc: float
    advantage: float
    at_low: float


def losses(task: Task, model: torch.nn.Module, data: Examples) -> NDArray[np.float64]:
    """Returns the loss of each example (n,); the model is left as it is."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            outputs = model(data.inputs)
            return np.array(
                [
                    float(task.loss(outputs[i : i + 1], data.targets[i : i + 1]))
                    for i in range(len(data))
                ]
            )
    finally:
        model.train(was_training)


def infer(members: NDArray[np.float64], others: NDArray[np.float64]) -> Inferred:
    """Returns how well a threshold on the loss tells `members` from `others`.

    Args:
        members: Losses of examples that were trained on (m,).
        others: Losses of examples that were not (k,).

    Raises:
        ConfigError: One of the two is empty or holds NaN.

    >>> infer(np.array([0.1, 0.2]), np.array([0.3, 0.15])).auc
    0.75
    """
    if not len(members) or not len(others):
        raise ConfigError(f"needs members and others, got {len(members)} and {len(others)}")
    if np.isnan(members).any() or np.isnan(others).any():
        raise ConfigError("a loss is NaN: the model is broken, nothing can be told from it")
    thresholds = np.unique(np.concatenate([members, others]))
    hits = np.searchsorted(np.sort(members), thresholds, side="right") / len(members)
    alarms = np.searchsorted(np.sort(others), thresholds, side="right") / len(others)
    ranks = np.searchsorted(np.sort(others), members, side="left")
    ties = np.searchsorted(np.sort(others), members, side="right") - ranks
    auc = 1 - float((ranks + ties / 2).mean()) / len(others)
    low = hits[alarms <= LOW]
    return Inferred(
        auc=auc,
        advantage=max(0.0, float((hits - alarms).max())),
        at_low=float(low.max()) if len(low) else 0.0,
    )
