"""Figures of a model's answers, by scikit-learn. Importing it takes a second: import this late."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
)
from torch import Tensor

POSITIVE = 1  # the class that recall and precision of two classes are about


def of_classes(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Returns accuracy, F1 and, where every class occurs, the area under the ROC curve.

    Args:
        outputs: Logits (n, classes).
        targets: Classes (n,), int64.

    Of two classes F1 and area are those of class 1; of more they are means over the classes, the
    area one class against the rest.
    """
    logits = outputs.double().numpy()
    truth, guess = targets.numpy(), logits.argmax(axis=1)
    count = logits.shape[1]
    average = "binary" if count == POSITIVE + 1 else "macro"
    figures = {
        "accuracy": float(accuracy_score(truth, guess)),
        "f1": float(f1_score(truth, guess, average=average, zero_division=0.0)),
    }
    if len(np.unique(truth)) == count:
        figures["auc"] = _area(truth, logits)
    return figures


def _area(truth: NDArray[np.int64], logits: NDArray[np.float64]) -> float:
    if logits.shape[1] == POSITIVE + 1:
        return float(roc_auc_score(truth, logits[:, POSITIVE] - logits[:, 1 - POSITIVE]))
    return float(roc_auc_score(truth, softmax(logits, axis=1), multi_class="ovr"))


def of_numbers(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Returns the mean absolute error and, of two records and more, R squared.

    Args:
        outputs: Predictions (n,), in the target's unit.
        targets: Numbers (n,).
    """
    guess, truth = outputs.double().numpy(), targets.double().numpy()
    figures = {"mae": float(mean_absolute_error(truth, guess))}
    if len(truth) > 1:
        figures["r2"] = float(r2_score(truth, guess))
    return figures
