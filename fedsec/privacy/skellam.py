"""Skellam noise: differences of two Poisson numbers, whose sums are Skellam again.

So the noise of a sum is known exactly for every number of nodes that added a share.

Sources: Agarwal, Kairouz, Liu, "The Skellam Mechanism for Differentially Private Federated
Learning", NeurIPS 2021. Abramowitz, Stegun, "Handbook of Mathematical Functions", 1964, section
9.12 (the recurrence, after Miller).
"""

import decimal
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.privacy.inversion import BITS, Inversion, draw
from fedsec.privacy.keystream import Keystream

Integers = NDArray[np.int64]

MIN_VARIANCE, MAX_VARIANCE = 0.25, 4096.0**2
_DIGITS = 100


@dataclass(frozen=True)
class Skellam:
    """Integers ``X - Y`` with X and Y Poisson of mean ``variance / 2``.

    Args:
        variance: In grid steps squared, 1/4..4096^2: tables beyond are too large to be fast.

    Raises:
        ConfigError: `variance` is out of range.

    >>> Skellam(100.0).sample(5, Keystream(bytes(32)))
    array([ 2, -1, -7,  1, -6])
    """

    variance: float

    def __post_init__(self) -> None:
        if not MIN_VARIANCE <= self.variance <= MAX_VARIANCE:
            raise ConfigError(
                f"variance must be in {MIN_VARIANCE:g}..{MAX_VARIANCE:g}, got {self.variance:g}"
            )

    @property
    def std(self) -> float:
        """Standard deviation, in grid steps."""
        return math.sqrt(self.variance)

    def sample(self, size: int, source: Keystream) -> Integers:
        """Returns `size` independent draws (size,), int64."""
        return draw([(1, _table(self.variance))], size, source)


@lru_cache(maxsize=4)
def _table(variance: float) -> Inversion:
    """Returns the table; p(z) is I_z(variance) up to a factor, by its recurrence downwards."""
    with decimal.localcontext() as context:
        context.prec = _DIGITS
        factor = 2 / decimal.Decimal(variance)
        above, weight = decimal.Decimal(0), decimal.Decimal(1)
        weights = [weight]
        # I_(z-1) = I_(z+1) + (2 z / variance) I_z; what is started wrongly above dies out below.
        for z in range(_reach(variance), 0, -1):
            above, weight = weight, above + factor * z * weight
            weights.append(weight)
        scale = decimal.Decimal(1).scaleb(_DIGITS) / weight
        return Inversion([int(each * scale) for each in reversed(weights)])


def _reach(variance: float) -> int:
    """Returns r such that P(|Z| >= r) < 2^-192, by Chernoff's bound."""

    def enough(reach: int) -> bool:
        root = math.hypot(reach, variance)
        return reach * math.asinh(reach / variance) - root + variance > (BITS + 1) * math.log(2)

    reach = 1
    while not enough(reach):
        reach *= 2
    low = reach // 2
    while reach - low > 1:
        middle = (low + reach) // 2
        low, reach = (low, middle) if enough(middle) else (middle, reach)
    return reach
