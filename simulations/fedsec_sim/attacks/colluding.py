"""Attacks that hide among the honest updates: all adversaries send one vector.

Sources: Xie, Koyejo, Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product
Manipulation", UAI 2019, section 4 (IPM). Baruch, Baruch, Goldberg, "A Little Is Enough:
Circumventing Defenses For Distributed Learning", NeurIPS 2019, algorithm 3 (ALIE). Shejwalkar,
Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
Federated Learning", NDSS 2021, sections IV-C and IV-D (Min-Max, Min-Sum).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec_sim.attacks.checks import finite, positive
from fedsec_sim.attacks.view import Knowledge, Matrix, Vector, View

Perturbation: TypeAlias = Literal["unit", "std", "sign"]


@dataclass(frozen=True, slots=True)
class Ipm:
    """``-epsilon`` times the mean of the known updates.

    Args:
        epsilon: > 0; 0.1 stays near, above ``(n - f) / f`` the mean itself is turned round.
        knowledge: Whose updates the mean is of.
    """

    epsilon: float = 0.1
    knowledge: Knowledge = "omniscient"

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        view.write(self.row(view, self.epsilon))

    def row(self, view: View, factor: float) -> Vector:
        """Returns what adversaries send with `factor` in the place of epsilon (d,)."""
        mean: Vector = view.known(self.knowledge).mean(axis=0)
        return np.float32(-factor) * mean


@dataclass(frozen=True, slots=True)
class Alie:
    """``mean - z std`` of the known updates, in each coordinate: too small a shift to stand out.

    z is the largest with which so many honest nodes are expected further from the mean that,
    together with the adversaries, they are a majority: ``Phi(z) = (n - f - s) / (n - f)`` with
    ``s = floor(n / 2 + 1) - f``. The standard deviation is that of the population (ddof 0).

    Args:
        z: Given, or None: by the formula, which needs f < n/2 and n >= 3.
        knowledge: Whose updates mean and deviation are of; ``"colluders"`` in the paper.
    """

    z: float | None = None
    knowledge: Knowledge = "omniscient"

    def __post_init__(self) -> None:
        if self.z is not None:
            finite("z", self.z)

    def __call__(self, view: View) -> None:
        """See `Attack`.

        Raises:
            ConfigError: z is left to the formula, and n or f do not allow it.
        """
        view.write(self.row(view, alie_z(view.n, view.f) if self.z is None else self.z))

    def row(self, view: View, factor: float) -> Vector:
        """Returns what adversaries send with `factor` in the place of z (d,)."""
        known = view.known(self.knowledge)
        mean: Vector = known.mean(axis=0)
        shift: Vector = np.float32(factor) * known.std(axis=0)
        return mean - shift


def alie_z(n: int, f: int) -> float:
    """Returns z of `Alie`.

    Raises:
        ConfigError: n < 3 or f >= n/2.

    >>> round(alie_z(50, 24), 2), round(alie_z(25, 5), 2)
    (1.43, 0.25)
    """
    if n < 3 or 2 * f >= n:  # noqa: PLR2004 - below, nobody but the adversary is needed
        raise ConfigError(f"ALIE's formula needs n >= 3 and f < n/2, got n = {n}, f = {f}; give z")
    needed = n // 2 + 1 - f
    return NormalDist().inv_cdf((n - f - needed) / (n - f))


@dataclass(frozen=True, slots=True)
class MinMax:
    """As far from the mean as the two known updates that are furthest apart are from each other.

    ``mean + gamma p`` with the largest gamma for which no known update is further away than that.
    The paper looks for gamma by bisection; here it is solved for: each known update gives a
    quadratic in gamma, and the smallest of their roots is the answer.

    Args:
        perturbation: p: ``"unit"``, the mean turned round, of length 1; ``"std"``, minus the
            standard deviation of each coordinate; ``"sign"``, minus the sign of the mean.
        knowledge: Whose updates are looked at.
    """

    perturbation: Perturbation = "std"
    knowledge: Knowledge = "omniscient"

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        known = view.known(self.knowledge).astype(np.float64)
        mean, direction = _mean_and_direction(known, self.perturbation)
        away = mean - known  # (m, d)
        slopes, size = away @ direction, float(direction @ direction)
        squares = np.einsum("ij,ij->i", away, away)
        slack = _squared_distances(known).max() - squares
        roots = np.sqrt(np.maximum(slopes**2 + size * slack, 0)) - slopes
        gamma = float(roots.min()) / size if size else 0.0
        view.write((mean + gamma * direction).astype(np.float32))


@dataclass(frozen=True, slots=True)
class MinSum:
    """Like `MinMax`, with sums of squared distances in the place of the largest distance.

    ``mean + gamma p`` with the largest gamma for which its sum of squared distances to the known
    updates is no larger than that of any of them. Solved for, not searched.

    Args:
        perturbation: See `MinMax`.
        knowledge: Whose updates are looked at.
    """

    perturbation: Perturbation = "std"
    knowledge: Knowledge = "omniscient"

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        known = view.known(self.knowledge).astype(np.float64)
        mean, direction = _mean_and_direction(known, self.perturbation)
        largest = float(_squared_distances(known).sum(axis=1).max())
        spread = float(((known - mean) ** 2).sum())
        size = len(known) * float(direction @ direction)
        gamma = math.sqrt(max(largest - spread, 0.0) / size) if size else 0.0
        view.write((mean + gamma * direction).astype(np.float32))


def _mean_and_direction(
    known: NDArray[np.float64], perturbation: Perturbation
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean: NDArray[np.float64] = known.mean(axis=0)
    match perturbation:
        case "unit":
            length = float(np.linalg.norm(mean))
            return mean, -mean / length if length else np.zeros_like(mean)
        case "std":
            return mean, -known.std(axis=0)
        case "sign":
            return mean, -np.sign(mean)


def _squared_distances(known: NDArray[np.float64] | Matrix) -> NDArray[np.float64]:
    """Returns the squared distance of each pair (m, m); about the mean, lest they cancel."""
    centred = known - known.mean(axis=0)
    gram: NDArray[np.float64] = centred @ centred.T
    squares = np.diagonal(gram)
    return np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)
