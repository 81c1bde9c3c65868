"""Mimic: adversaries all copy one honest node, so that it counts for more than its share.

Source: Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing",
ICLR 2022, section 3.2 and appendix B (the direction of largest variance, by Oja's rule).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec_sim.attacks.view import View


@dataclass(frozen=True, slots=True)
class Mimic:
    """Copies the honest node that lies furthest along the direction of largest variance.

    Nothing that is sent is unlike an honest update: no rule can tell, and the harm is done by
    heterogeneity. In the first `warmup` rounds the direction z and the mean mu are learnt,

        mu <- t/(1+t) mu + 1/(1+t) mean_i x_i
        z  <- t/(1+t) z  + 1/(1+t) sum_i ((x_i - mu) . z) (x_i - mu),  then scaled to length 1,

    and the node with the largest ``|z . x_i|`` is copied; after them, the node of the last of
    these rounds. Knows everyone's updates.

    Args:
        warmup: Rounds in which the direction is learnt, >= 1.
    """

    warmup: int = 10

    def __post_init__(self) -> None:
        if self.warmup < 1:
            raise ConfigError(f"warmup must be >= 1, got {self.warmup}")

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        memory = view.memory
        seen = int(memory["seen"][0]) if "seen" in memory else 0
        if seen < self.warmup:
            memory["chosen"] = np.array([_learn(view, seen)])
            memory["seen"] = np.array([seen + 1])
        chosen = min(int(memory["chosen"][0]), len(view.honest) - 1)
        view.write(view.honest[chosen].copy())


def _learn(view: View, seen: int) -> int:
    """Brings direction and mean up to date; returns which of the honest rows to copy."""
    rows, memory = view.honest.astype(np.float64), view.memory
    old = seen / (1 + seen)
    mean = old * memory.get("mean", np.zeros(rows.shape[1])) + (1 - old) * rows.mean(axis=0)
    z = memory.get("z")
    if z is None:
        z = _unit(view.rng.standard_normal(rows.shape[1]))
    away = rows - mean
    z = _unit(old * z + (1 - old) * ((away @ z) @ away))
    memory["mean"], memory["z"] = mean, z
    return int(np.abs(rows @ z).argmax())


def _unit(vector: Any) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    scaled: NDArray[np.float64] = vector / length if length else vector
    return scaled
