"""Figures of nodes, e.g. their losses, as a release under noise: each is kept to a stated range.

    value --> clamped to [low, high] --> (value - middle) / (high - low), in [-1/2, 1/2]

A figure that is missing counts as the middle of its range, and so, in a sum, does a node that is
absent. So the k figures of a node are a vector of L2 norm sqrt(k) / 2 at most, whatever it claims,
and a sum over nodes changes by no more when one of them becomes zero. What the noised sum is then
divided by costs nothing where it is no secret, as the number that answered. The noise is the
Gaussian mechanism's; its cost comes out of the noise multiplier of the round
(`fedsec.privacy.gaussian.remaining`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.privacy.gaussian import GaussianMechanism
from fedsec.privacy.keystream import Keystream
from fedsec.vectors import Vector

Doubles: TypeAlias = NDArray[np.float64]

_HALF = 0.5  # of a range


@dataclass(frozen=True)
class Figures:
    """Which figures are told, in which ranges, under how much noise.

    Args:
        ranges: Name, low and high of each (k,), low < high.
        noise_multiplier: Standard deviation of the noise over what a node can change, > 0.

    Raises:
        ConfigError: There is none, or a range is none.

    >>> figures = Figures((("train-loss", 0.0, 4.0), ("accuracy", 0.0, 1.0)), 2.0)
    >>> figures.encode({"train-loss": 99.0})
    array([0.5, 0. ], dtype=float32)
    >>> figures.decode(np.array([-0.25, 0.5]))
    {'train-loss': 1.0, 'accuracy': 1.0}
    """

    ranges: tuple[tuple[str, float, float], ...]
    noise_multiplier: float

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ConfigError("there is no figure to tell")
        for name, low, high in self.ranges:
            if not -math.inf < low < high < math.inf:
                raise ConfigError(f"{name}: [{low:g}, {high:g}] is no range")

    @property
    def count(self) -> int:
        """How many there are, k."""
        return len(self.ranges)

    def encode(self, values: Mapping[str, float]) -> Vector:
        """Returns a node's figures (k,), each in [-1/2, 1/2]."""
        shares = [_share(values.get(name, math.nan), low, high) for name, low, high in self.ranges]
        return np.array(shares, np.float32)

    def clamp(self, rows: NDArray[np.float32]) -> Doubles:
        """Returns figures (n, k) that nodes claim to have encoded; finite ones."""
        return np.clip(rows.astype(np.float64), -_HALF, _HALF)

    def decode(self, shares: Doubles) -> dict[str, float]:
        """Returns means by name, from means of encoded figures (k,) and their noise."""
        return {
            name: (low + high) / 2 + float(share) * (high - low)
            for (name, low, high), share in zip(self.ranges, shares, strict=True)
        }

    def mechanism(self, nodes: float, *, replaces: bool = False) -> GaussianMechanism:
        """Returns the noise on a sum of encoded figures over a public number of nodes.

        Args:
            nodes: What the sum is divided by.
            replaces: Whether neighbours differ by other figures, rather than by absent ones.
        """
        reach = math.sqrt(self.count) * (1.0 if replaces else _HALF)
        return GaussianMechanism(reach / nodes, self.noise_multiplier)

    def release(
        self, shares: Doubles, nodes: float, source: Keystream, *, replaces: bool = False
    ) -> Vector:
        """Returns means of encoded figures (k,), noised; arguments as of `mechanism`."""
        return self.mechanism(nodes, replaces=replaces).release(shares, source)


def _share(value: float, low: float, high: float) -> float:
    if math.isnan(value):
        return 0.0
    return (min(max(value, low), high) - (low + high) / 2) / (high - low)
