"""Gaussian noise on the integers: exact, fast, and worth a continuous Gaussian to the accountant.

A large variance is reached as ``k * Z1 + Z2`` of two small ones. Given the sum, Z1 is a discrete
Gaussian of some standard deviation >= 7 about some centre, whose total weight is the same for every
centre up to a factor 1 +- 2^-1000; so the sum is a discrete Gaussian up to that factor.

Likewise adding a discrete Gaussian of variance s^2 to an integer is the same, up to a factor
1 +- 2^-400, as adding a continuous Gaussian of variance s^2 - 16 and then rounding at random with a
discrete Gaussian of variance 16 about what came out. The rounding costs no privacy. Hence
`covering` gives noise that is at least as private as a continuous Gaussian of a given standard
deviation, and accountants of the latter (privacy loss distributions) apply as they are.

Sources: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020
(the distribution). Peikert, "An Efficient and Parallel Gaussian Sampler for Lattices", CRYPTO 2010,
theorem 3.1 (both convolutions). Micciancio, Walter, "Gaussian Sampling over the Integers:
Efficient, Generic, Constant-Time", CRYPTO 2017, section 4 (the recursion).
"""

import decimal
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.privacy.inversion import BITS, Inversion, draw
from fedsec.privacy.keystream import Keystream

Integers = NDArray[np.int64]

MIN_VARIANCE, MAX_VARIANCE = Fraction(1, 4), Fraction(1 << 100)
ROUNDING = 16
"""Variance, in grid steps squared, of the rounding in the second paragraph above."""

_TABLE = 512  # largest standard deviation of one table; above it two draws are faster than one
_RATIO = 8  # standard deviation of Z2 over k
_DIGITS = 100  # of the arithmetic that makes a table: 192 bits are 58


@dataclass(frozen=True)
class DiscreteGaussian:
    """Integers z with probability proportional to ``exp(-z^2 / (2 variance))``.

    Args:
        variance: In grid steps squared, 1/4..2^100. From 1 on the variance of the draws is this
            number to 8 digits; below it is smaller.

    Raises:
        ConfigError: `variance` is out of range.

    >>> DiscreteGaussian(Fraction(100)).sample(5, Keystream(bytes(32)))
    array([ 2, -1, -7,  1, -6])
    """

    variance: Fraction

    def __post_init__(self) -> None:
        if not MIN_VARIANCE <= self.variance <= MAX_VARIANCE:
            raise ConfigError(f"variance must be in 1/4..2^100, got {float(self.variance):g}")

    @classmethod
    def covering(cls, std: float) -> "DiscreteGaussian":
        """Returns noise at least as private as a continuous Gaussian of standard deviation `std`.

        Args:
            std: In grid steps. The noise has ``sqrt(std^2 + 16)``: choose a fine grid.
        """
        return cls(Fraction(std) ** 2 + ROUNDING)

    @property
    def std(self) -> float:
        """Square root of the variance, in grid steps."""
        return math.sqrt(self.variance)

    def sample(self, size: int, source: Keystream) -> Integers:
        """Returns `size` independent draws (size,), int64; 60 to 200 million per second."""
        return draw(self._terms(), size, source)

    def _terms(self) -> list[tuple[int, Inversion]]:
        """Returns the factors and tables of the small draws that make up a draw."""
        if self.variance <= _TABLE**2:
            return [(1, _table(self.variance))]
        factor, coarse, fine = self._split()
        inner = coarse._terms()  # noqa: SLF001 - of its own kind
        return [*((factor * each, table) for each, table in inner), (1, _table(fine.variance))]

    def _split(self) -> tuple[int, "DiscreteGaussian", "DiscreteGaussian"]:
        """Returns k and the distributions of Z1 and Z2."""
        factor = min(math.ceil(self.std / (_TABLE / 2)), _TABLE // _RATIO)
        fine = Fraction(_RATIO * factor) ** 2
        coarse = (self.variance - fine) / factor**2
        return factor, DiscreteGaussian(coarse), DiscreteGaussian(fine)


@lru_cache(maxsize=16)
def _table(variance: Fraction) -> Inversion:
    """Returns the table; weights by recurrence, each the one before times a falling ratio."""
    # Beyond the reach lies less than 2 exp(-reach^2 / (2 variance)) <= 2^-192 of the probability.
    reach = math.ceil(math.sqrt(2 * float(variance) * (BITS + 1) * math.log(2)))
    with decimal.localcontext() as context:
        context.prec = _DIGITS
        exponent = decimal.Decimal(-variance.denominator) / (2 * variance.numerator)
        weight, ratio, fall = decimal.Decimal(1), exponent.exp(), (2 * exponent).exp()
        weights: list[int] = []
        for _ in range(reach + 1):
            weights.append(int(weight.scaleb(_DIGITS)))
            weight *= ratio
            ratio *= fall
    return Inversion(weights)
