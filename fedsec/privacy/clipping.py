"""Bounding what one node adds: clipping in the L2 norm, at a fixed or at an adaptive length.

Source: Andrew, Thakkar, McMahan, Ramaswamy, "Differentially Private Learning with Adaptive
Clipping", NeurIPS 2021, algorithm 1 and theorem 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.privacy.gaussian import GaussianMechanism
from fedsec.privacy.keystream import Keystream

Doubles = NDArray[np.float64]

SMALLEST, LARGEST = 1e-12, 1e12
"""An adaptive clip stays between them."""

_STEEPEST = 0.5
"""A noised share of short updates counts as at most so far beyond 0 and 1."""


def clip_factors(norms: Doubles, clip: float) -> Doubles:
    """Returns by what to multiply vectors of these L2 norms so that none is longer than `clip`.

    A norm of zero is left alone; one that is not finite gives 0: such a vector counts as absent.

    Args:
        norms: Of the vectors (n,), >= 0.
        clip: > 0.

    >>> clip_factors(np.array([0.0, 0.5, 4.0, np.inf, np.nan]), 1.0)
    array([1.  , 1.  , 0.25, 0.  , 0.  ])
    """
    if not 0 < clip < math.inf:
        raise ConfigError(f"clip must be > 0 and finite, got {clip}")
    long = norms > clip
    factors = np.where(np.isfinite(norms), 1.0, 0.0)
    np.divide(clip, norms, out=factors, where=long & np.isfinite(norms))
    return factors


def clip_factor(norm: float, clip: float) -> float:
    """Returns `clip_factors` of one vector."""
    return float(clip_factors(np.array([norm]), clip)[0])


@dataclass(frozen=True)
class AdaptiveClip:
    """Moves the clip until a share of updates is no longer than it.

    The number of short updates is released with noise of its own; its cost comes out of the
    multiplier of the whole round, so that the pair of releases costs what was planned.

    Args:
        quantile: gamma, the share of updates that the clip is to leave alone, in (0, 1).
        learning_rate: eta, of the logarithm of the clip per round, > 0.
        count_noise: sigma_b, standard deviation of the noise on the count, > 0.

    Raises:
        ConfigError: A parameter is out of range.
    """

    quantile: float
    learning_rate: float
    count_noise: float

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ConfigError(f"quantile must be in (0, 1), got {self.quantile}")
        for name in ("learning_rate", "count_noise"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be > 0 and finite, got {getattr(self, name)}")

    @property
    def multiplier(self) -> float:
        """Of the noise on the count, of which a node changes 1/2: 2 sigma_b."""
        return 2 * self.count_noise

    def count(self, norms: Doubles, clip: float, source: Keystream) -> float:
        """Returns the noised sum of ``1 - 1/2`` per short and ``0 - 1/2`` per long update.

        One node changes it by 1/2 at most when its update becomes zero or is absent: both count 0.

        Args:
            norms: Of the updates that are there (m,).
            clip: At present.
            source: Of the noise.
        """
        bits = np.where(norms <= clip, 0.5, -0.5)  # NaN and infinity are long
        bits[norms == 0] = 0.0
        mechanism = GaussianMechanism(0.5, self.multiplier)
        return float(mechanism.release(np.array([bits.sum()]), source)[0])

    def step(self, clip: float, count: float, nodes: float) -> float:
        """Returns the next clip: longer where too few updates were short.

        ``C exp(eta (gamma - b))`` with b the share of updates that were not clipped.

        Args:
            clip: C, at present.
            count: What `count` returned.
            nodes: How many nodes take part on average, public.
        """
        share = min(max(count / nodes + 0.5, -_STEEPEST), 1 + _STEEPEST)
        moved = clip * math.exp(self.learning_rate * (self.quantile - share))
        return float(min(max(moved, SMALLEST), LARGEST))
