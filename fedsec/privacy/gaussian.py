"""The Gaussian mechanism without floating-point leaks: values and noise lie on a grid of integers.

    step    = sensitivity / (1024 sqrt(d))
    integers = round(vector / step) + discrete Gaussian
    released = integers * step

Rounding moves each of two neighbours by at most half a step per entry, so their distance grows by
at most ``sqrt(d)`` steps: a thousandth of the sensitivity, which the noise covers. A double-
precision noise instead would have gaps that tell values apart (Mironov, CCS 2012).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.privacy.discrete_gaussian import DiscreteGaussian
from fedsec.privacy.events import Gaussian
from fedsec.privacy.keystream import Keystream
from fedsec.vectors import Vector

Doubles = NDArray[np.float64]

FINENESS = 1024
"""Sensitivity in grid steps, over sqrt(d)."""

ROUNDING = 2.0**-20
"""Relative slack for the rounding errors of double-precision sums over up to a million rows."""

_LARGEST = 2.0**62  # of an integer before noise


@dataclass(frozen=True)
class GaussianMechanism:
    """Adds noise of standard deviation ``noise_multiplier * sensitivity`` to a vector.

    It is at least as private as a continuous Gaussian of exactly that standard deviation; what is
    added has 0.1 % more, for the grid.

    Args:
        sensitivity: Largest L2 distance of the vectors of two neighbours, > 0.
        noise_multiplier: > 0.

    Raises:
        ConfigError: A parameter is out of range.

    >>> mechanism = GaussianMechanism(sensitivity=0.1, noise_multiplier=2.0)
    >>> mechanism.event
    Gaussian(noise_multiplier=2.0, sampling=1.0)
    >>> mechanism.release(np.ones(3), Keystream(bytes(32))).round(3)
    array([1.044, 0.982, 0.858], dtype=float32)
    """

    sensitivity: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        for name in ("sensitivity", "noise_multiplier"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be > 0 and finite, got {getattr(self, name)}")

    @property
    def event(self) -> Gaussian:
        """The cost of one release on the whole input."""
        return Gaussian(self.noise_multiplier)

    def std(self, size: int) -> float:
        """Returns the standard deviation of what is added to each of `size` entries."""
        return self._noise(size).std * self._step(size)

    def release(self, vector: Doubles, source: Keystream) -> Vector:
        """Returns `vector` (d,) plus independent noise per entry, as float32.

        Args:
            vector: Finite.
            source: A new `Keystream()`; one with a key only in tests and simulations.

        Raises:
            ConfigError: An entry is not finite, or more than 2^62 steps: it was not clipped.
        """
        step = self._step(vector.size)
        scaled = np.rint(vector / step)
        if not np.abs(scaled).max(initial=0.0) < _LARGEST:  # nor for NaN
            raise ConfigError("the vector to release has entries that are not finite, or too large")
        integers = scaled.astype(np.int64)
        integers += self._noise(vector.size).sample(vector.size, source)
        return (integers * step).astype(np.float32)

    def _step(self, size: int) -> float:
        return self.sensitivity / (FINENESS * math.sqrt(max(size, 1)))

    def _noise(self, size: int) -> DiscreteGaussian:
        """Returns the noise in steps; it depends on `size` and the multiplier alone."""
        root = math.sqrt(max(size, 1))
        distance = FINENESS * root * (1 + ROUNDING) + root
        return DiscreteGaussian.covering(self.noise_multiplier * distance)


def remaining(whole: float, *parts: float) -> float:
    """Returns the noise multiplier that is left when other releases come out of `whole`.

    Gaussian releases with multipliers z_1, z_2, ... about the same units cost together what one
    with ``(z_1^-2 + z_2^-2 + ...)^(-1/2)`` costs, sampled or not: they are one release of a longer
    vector.

    Raises:
        ConfigError: The parts alone cost as much as the whole.

    >>> round(remaining(1.0, 3.0), 4)
    1.0607
    """
    room = whole**-2 - sum(part**-2 for part in parts)
    if room <= 0:
        told = ", ".join(f"{part:g}" for part in parts)
        raise ConfigError(
            f"multipliers of {told} cost as much as noise_multiplier = {whole:g} allows in all; "
            "nothing is left for the updates"
        )
    return 1 / math.sqrt(room)
