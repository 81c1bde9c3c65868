"""Figures of nodes behind their updates, in the same vector: ``[update (d,) | figures (k,)]``.

So what a node releases stays one vector, which is stored, charged and sent again as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.combination import Combination, Combined
from fedsec.flower.messages import TRAIN_LOSS
from fedsec.flower.reporting import NOISED, NOISED_OVER, Json
from fedsec.privacy.figures import Figures
from fedsec.vectors import Arrays

Floats = TypeVar("Floats", bound=np.floating[Any])


@dataclass(frozen=True)
class NoisedFigures:
    """Takes figures that nodes have noised off the rows, and tells their mean over who answered.

    Args:
        figures: That are told.
        inner: What is made of the updates.
        weight: What encoded figures were multiplied by.
    """

    figures: Figures
    inner: Combination
    weight: float = 1.0

    def __call__(self, attempt: Attempt, collected: Collected, memory: Arrays) -> Combined:
        """See `Combination`."""
        updates, told = split(collected, self.figures)
        made = self.inner(attempt, updates, memory)
        # a sum is over a public number of nodes, of which those that answered gave figures
        sums = collected.weights @ told.astype(np.float64)
        over = len(collected.nodes)
        told_means = report(self.figures, sums / (self.weight * over), over)
        return replace(made, figures={**made.figures, **told_means})


def split(collected: Collected, figures: Figures | None) -> tuple[Collected, NDArray[np.float32]]:
    """Returns what was collected with rows (m, d), and the figures (m, k) that were behind them."""
    rows = collected.rows
    if figures is None:
        return collected, rows[:, :0]
    size = rows.shape[1] - figures.count
    return replace(collected, rows=np.ascontiguousarray(rows[:, :size])), rows[:, size:]


def cut(
    vector: NDArray[Floats], figures: Figures | None
) -> tuple[NDArray[Floats], NDArray[np.float64]]:
    """Returns a released vector (d,), and the figures (k,) that stood behind it."""
    size = vector.size - (0 if figures is None else figures.count)
    return vector[:size], vector[size:].astype(np.float64)


def report(figures: Figures, shares: NDArray[np.float64], over: float) -> Mapping[str, Json]:
    """Returns what a round's event says of noised means of encoded figures (k,), over so many."""
    told = {name: round(value, 6) for name, value in figures.decode(shares).items()}
    loss = {"train_loss": told[TRAIN_LOSS]} if TRAIN_LOSS in told else {}
    return {NOISED: told, NOISED_OVER: round(over, 6), **loss}
