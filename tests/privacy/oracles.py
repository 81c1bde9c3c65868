"""Independent ways to the same noise: exact rejection, exact sums, and a statistic with power."""

from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import scipy.stats
from numpy.typing import NDArray

from fedsec.privacy.keystream import Keystream

Pmf = Callable[[NDArray[np.int64]], NDArray[np.float64]]

PRECISION = 900  # bits of mpmath


def gaussian_pmf(variance: float) -> Pmf:
    reach = int(20 * variance**0.5) + 20
    grid = np.arange(-reach, reach + 1)
    weights = np.exp(-(grid.astype(np.float64) ** 2) / (2 * variance))
    return lambda z: np.exp(-(z.astype(np.float64) ** 2) / (2 * variance)) / weights.sum()


def skellam_pmf(variance: float) -> Pmf:
    return lambda z: scipy.stats.skellam.pmf(z, variance / 2, variance / 2)


def p_value(draws: NDArray[np.int64], pmf: Pmf, expected: float = 50.0) -> float:
    """Chi-square of `draws` against `pmf`.

    A bin is a tenth of the standard deviation wide, at least one number; those that expect fewer
    than `expected` draws are one bin together.
    """
    width = max(1, int(draws.std() / 10))
    reach = -(-(int(np.abs(draws).max()) + 1) // width) * width
    grid = np.arange(-reach, reach)
    wanted = pmf(grid).reshape(-1, width).sum(axis=1) * draws.size
    seen = np.bincount((draws + reach) // width, minlength=wanted.size)
    kept = wanted >= expected
    rest = max(draws.size - wanted[kept].sum(), 0.0)
    wanted, seen = np.append(wanted[kept], rest), np.append(seen[kept], seen[~kept].sum())
    if rest < expected:  # too thin for a bin of its own
        wanted, seen = wanted[:-1], seen[:-1]
    statistic = ((seen - wanted) ** 2 / wanted).sum()
    return float(scipy.stats.chi2.sf(statistic, wanted.size - 1))


def same_p_value(left: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """Chi-square of two samples against each other; bins of 50 draws or more together."""
    reach = int(max(np.abs(left).max(), np.abs(right).max()))
    counts = [np.bincount(x + reach, minlength=2 * reach + 1) for x in (left, right)]
    kept = counts[0] + counts[1] >= 50
    table = np.array([np.append(c[kept], c[~kept].sum()) for c in counts])
    return float(scipy.stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue)


def exact_weights(variance: Fraction, reach: int) -> list[mpmath.mpf]:
    """exp(-z^2 / (2 variance)) for z = 0..reach."""
    rate = mpmath.mpf(variance.denominator) / (2 * variance.numerator)
    return [mpmath.exp(-rate * z * z) for z in range(reach + 1)]


def rejection(scale: int, size: int, source: Keystream) -> NDArray[np.int64]:
    """Discrete Gaussian of standard deviation `scale`, by Canonne, Kamath, Steinke, algorithms 1-3.

    Vectorised over candidates; every comparison is between integers. `scale` <= 2^10.
    """
    kept: list[NDArray[np.int64]] = []
    while sum(part.size for part in kept) < size:
        z = _laplace(scale, 2 * size, source)
        # accept with probability exp(-(|z| - scale)^2 / (2 scale^2)): envelope of scale t = sigma
        numerator = (np.abs(z) - scale) ** 2
        kept.append(z[_bernoulli_exp(numerator, 2 * scale * scale, source)])
    return np.concatenate(kept)[:size]


def _laplace(scale: int, size: int, source: Keystream) -> NDArray[np.int64]:
    low = _below(np.full(size, scale), source)
    low = low[_bernoulli_exp(low, scale, source)]
    high = np.zeros(low.size, np.int64)
    going = np.arange(low.size)
    while going.size:
        going = going[_bernoulli_exp(np.ones(going.size, np.int64), 1, source)]
        high[going] += 1
    magnitude = low + scale * high
    negative = source.words(low.size, np.uint8) < 128
    fine = ~(negative & (magnitude == 0))  # else zero would come twice as often
    return np.where(negative, -magnitude, magnitude)[fine]


def _bernoulli_exp(
    numerator: NDArray[np.int64], denominator: int, source: Keystream
) -> NDArray[np.bool_]:
    """True with probability exp(-numerator / denominator)."""
    left, alive = numerator.copy(), np.ones(numerator.size, np.bool_)
    while (still := np.flatnonzero(alive & (left > denominator))).size:
        alive[still] &= _small_exp(np.full(still.size, denominator), denominator, source)
        left[still] -= denominator
    now = np.flatnonzero(alive)
    alive[now] = _small_exp(left[now], denominator, source)
    return alive


def _small_exp(
    numerator: NDArray[np.int64], denominator: int, source: Keystream
) -> NDArray[np.bool_]:
    """As above, for numerator <= denominator: von Neumann's first k at which a coin fails."""
    turns = np.ones(numerator.size, np.int64)
    going = np.arange(numerator.size)
    k = 1
    while going.size:
        heads = _below(np.full(going.size, denominator * k), source) < numerator[going]
        going = going[heads]
        k += 1
        turns[going] = k
    return turns % 2 == 1


def _below(bounds: NDArray[np.int64], source: Keystream) -> NDArray[np.int64]:
    """Uniform in 0..bound-1, exactly: words beyond a multiple of the bound are drawn again."""
    out = np.empty(bounds.size, np.int64)
    open_ = np.arange(bounds.size)
    while open_.size:
        words = source.words(open_.size, np.uint64) >> np.uint64(1)
        bound = bounds[open_].astype(np.uint64)
        limit = np.uint64(1 << 63) - np.uint64(1 << 63) % bound
        good = words < limit
        out[open_[good]] = (words[good] % bound[good]).astype(np.int64)
        open_ = open_[~good]
    return out


def brute_force_epsilon(
    change: float, std: float, delta: float, *, sampling: float = 1.0, steps: int = 1
) -> float:
    """Epsilon of telling two neighbours apart by Gaussian releases, by sums over a fine grid.

    Args:
        change: How far apart the neighbours' releases are, noise aside.
        std: Of the noise.
        delta: At which.
        sampling: Probability that the changing unit is drawn.
        steps: Releases, 1 or 2: the grid has as many dimensions.
    """
    points = 20_000 if steps == 1 else 1_500
    x, width = np.linspace(-10 * std, change + 10 * std, points, retstep=True)
    without = scipy.stats.norm.pdf(x, scale=std) * width
    there = sampling * scipy.stats.norm.pdf(x, change, std) * width + (1 - sampling) * without
    if steps == 2:
        without, there = np.multiply.outer(without, without), np.multiply.outer(there, there)
    least, most = 0.0, 100.0
    while most - least > 1e-4:
        middle = (least + most) / 2
        apart = (
            float(np.maximum(one - np.exp(middle) * other, 0).sum())
            for one, other in ((there, without), (without, there))
        )
        least, most = (middle, most) if max(apart) > delta else (least, middle)
    return most
