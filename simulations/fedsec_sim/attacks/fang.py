"""Attacks made for one rule: directed deviation.

Source: Fang, Cao, Jia, Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated
Learning", USENIX Security 2020, sections 4.2 (Krum) and 4.3 (trimmed mean, median). The paper
speaks of models; an update is a model less the one that was sent, so that one is the origin here.
"""

import math
from dataclasses import dataclass

import numpy as np

from fedsec.errors import ConfigError
from fedsec.robust.distance_rules import Krum
from fedsec_sim.attacks.view import Knowledge, Matrix, Vector, View

SMALLEST = 1e-5
SPREAD = 2.0  # b of the paper


@dataclass(frozen=True, slots=True)
class FangKrum:
    """Makes Krum choose ``-lambda s``, s being the sign of the honest mean, lambda large.

    lambda starts at the bound of the paper's theorem 1 and is halved until Krum chooses an
    adversary's row, or until it is below 1e-5. All adversaries send the same vector (the paper's
    distance among them is 0 here). Knows everyone's updates; needs n >= 2f+3, as Krum does.
    """

    def __call__(self, view: View) -> None:
        """See `Attack`.

        Raises:
            ConfigError: n < 2f+3.
        """
        krum = Krum(byzantine=view.f)
        krum.check(view.n)
        against = -_signs(view.honest)
        size = krum_bound(view.honest, view.f)
        while True:
            view.write(np.float32(size) * against)
            weights = krum(view.rows, diagnose=False).weights
            chosen = weights is not None and int(np.argmax(weights)) in view.byzantine
            if chosen or size < SMALLEST:
                return
            size /= 2


def krum_bound(honest: Matrix, f: int) -> float:
    """Returns the paper's upper bound of lambda (theorem 1).

    With m rows in all: ``sqrt(min_i S_i / ((m - 2f - 1) d)) + max_i ||x_i|| / sqrt(d)``, S_i being
    the sum of the squared distances of x_i to its m - f - 2 nearest honest rows.

    Args:
        honest: Rows (m - f, d).
        f: Adversaries.
    """
    m, d = len(honest) + f, honest.shape[1]
    rows = honest.astype(np.float64)
    centred = rows - rows.mean(axis=0)
    gram = centred @ centred.T
    squares = np.diagonal(gram)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)
    nearest = np.sort(distances, axis=1)[:, 1 : m - f - 1]
    reach = float(nearest.sum(axis=1).min()) / ((m - 2 * f - 1) * d)
    return math.sqrt(reach) + float(np.linalg.norm(rows, axis=1).max()) / math.sqrt(d)


@dataclass(frozen=True, slots=True)
class FangTrimmedMean:
    """Values just outside the honest ones, on the side away from where the model would go.

    Against the trimmed mean and the median. In a coordinate whose honest mean is positive, below
    the smallest honest value, down to twice (or half, by its sign) of it; else above the largest.
    With ``"colluders"``, who do not know the extremes, 3 to 4 standard deviations from the mean of
    the adversaries' own updates.

    Args:
        knowledge: ``"omniscient"`` or ``"colluders"``.
    """

    knowledge: Knowledge = "omniscient"

    def __call__(self, view: View) -> None:
        """See `Attack`.

        Raises:
            ConfigError: Adversaries who know one update only cannot tell how updates vary.
        """
        if self.knowledge == "omniscient":
            low, high = self._beyond(view.honest)
        elif view.f > 1:
            low, high = _deviations(view.own)
        else:
            raise ConfigError("colluders need two updates to tell how they vary, got f = 1")
        drawn = view.rng.random((view.f, view.rows.shape[1]), np.float32)
        view.write(low + drawn * (high - low))

    @staticmethod
    def _beyond(honest: Matrix) -> tuple[Vector, Vector]:
        least, most = honest.min(axis=0), honest.max(axis=0)
        b = np.float32(SPREAD)
        below = np.where(least > 0, least / b, least * b)
        above = np.where(most > 0, most * b, most / b)
        rising = _signs(honest) > 0
        return np.where(rising, below, most), np.where(rising, least, above)


def _deviations(own: Matrix) -> tuple[Vector, Vector]:
    mean, deviation = own.mean(axis=0), own.std(axis=0)
    rising = _signs(own) > 0
    near, far = np.float32(3) * deviation, np.float32(4) * deviation
    low = np.where(rising, mean - far, mean + near)
    return low.astype(np.float32), (low + deviation).astype(np.float32)


def _signs(rows: Matrix) -> Vector:
    """Returns 1 where the mean of `rows` is >= 0, else -1 (d,)."""
    return np.where(rows.mean(axis=0) >= 0, np.float32(1), np.float32(-1))
