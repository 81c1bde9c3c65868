"""Samplers against exact probabilities and two other samplers; each test has power.

All draws come from fixed keys, so that nothing flakes: a p-value below 1e-4 would be a fault of the
sampler, or one unlucky key in 10,000.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import opendp.prelude as dp
import pytest
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.privacy.discrete_gaussian import DiscreteGaussian
from fedsec.privacy.discrete_gaussian import _table as gaussian_table
from fedsec.privacy.exactness import SAMPLER_DISTANCE, residue
from fedsec.privacy.inversion import BITS, Inversion
from fedsec.privacy.keystream import Keystream
from fedsec.privacy.skellam import Skellam
from fedsec.privacy.skellam import _table as skellam_table
from tests.privacy.oracles import (
    PRECISION,
    exact_weights,
    gaussian_pmf,
    p_value,
    rejection,
    same_p_value,
    skellam_pmf,
)

DRAWS = 1 << 21
KEY = bytes(range(1, 33))
UNLIKELY = 1e-4


@pytest.fixture(autouse=True)
def _precise() -> Any:
    with mpmath.workprec(PRECISION):
        yield


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.7, 64.0, 500.0, 700.0, 3000.0])
class TestDiscreteGaussian:
    def test_it_has_the_exact_distribution(self, sigma: float) -> None:
        drawn = DiscreteGaussian(Fraction(sigma) ** 2).sample(DRAWS, Keystream(KEY))
        assert p_value(drawn, gaussian_pmf(sigma**2)) > UNLIKELY

    def test_a_tenth_less_noise_would_be_noticed(self, sigma: float) -> None:
        drawn = DiscreteGaussian((Fraction(sigma) * Fraction(9, 10)) ** 2 + Fraction(1, 20)).sample(
            DRAWS // 10, Keystream(KEY)
        )
        assert p_value(drawn, gaussian_pmf(sigma**2)) < UNLIKELY


@pytest.mark.parametrize("sigma", [0.6, 1.0, 3.7, 64.0, 300.0])
class TestSkellam:
    def test_it_has_the_exact_distribution(self, sigma: float) -> None:
        drawn = Skellam(sigma**2).sample(DRAWS, Keystream(KEY))
        assert p_value(drawn, skellam_pmf(sigma**2)) > UNLIKELY

    def test_a_tenth_less_noise_would_be_noticed(self, sigma: float) -> None:
        drawn = Skellam((0.9 * sigma) ** 2).sample(DRAWS // 10, Keystream(KEY))
        assert p_value(drawn, skellam_pmf(sigma**2)) < UNLIKELY


def test_sums_of_skellam_shares_are_skellam() -> None:
    stream = Keystream(KEY)
    total = sum(Skellam(5.0).sample(DRAWS // 8, stream) for _ in range(7))
    assert isinstance(total, np.ndarray)
    assert p_value(total, skellam_pmf(35.0)) > UNLIKELY


@pytest.mark.parametrize("sigma", [1, 8, 40])
def test_the_rejection_sampler_agrees(sigma: int) -> None:
    theirs = rejection(sigma, 200_000, Keystream(KEY))
    ours = DiscreteGaussian(Fraction(sigma) ** 2).sample(400_000, Keystream(KEY))
    assert p_value(theirs, gaussian_pmf(sigma**2)) > UNLIKELY
    assert same_p_value(theirs, ours) > UNLIKELY
    less = DiscreteGaussian((Fraction(sigma) * Fraction(9, 10)) ** 2 + Fraction(1, 20))
    assert same_p_value(theirs, less.sample(400_000, Keystream(KEY))) < UNLIKELY


def test_opendp_agrees() -> None:
    """A third opinion, by another algorithm in another language. Its chance cannot be seeded."""
    theirs = _opendp(8.0, 30_000)
    ours = DiscreteGaussian(Fraction(64)).sample(200_000, Keystream(KEY))
    assert same_p_value(theirs, ours) > 1e-9
    less = DiscreteGaussian(Fraction(64 * 81, 100)).sample(200_000, Keystream(KEY))
    assert same_p_value(theirs, less) < 1e-9


def _opendp(scale: float, size: int) -> NDArray[np.int64]:
    dp.enable_features("contrib")
    domain, metric = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    noised = dp.m.make_gaussian(domain, metric, scale=scale)
    return np.array(noised([0] * size), np.int64)


@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(1), Fraction(49, 3), Fraction(400)])
def test_the_table_of_the_discrete_gaussian_is_right_to_the_last_bits(variance: Fraction) -> None:
    table = gaussian_table(variance)
    beyond = table.reach + 200
    weights = exact_weights(variance, beyond)
    total = weights[0] + 2 * sum(weights[1:])
    assert _distance(table, [weight / total for weight in weights]) < SAMPLER_DISTANCE / 4


@pytest.mark.parametrize("variance", [0.25, 1.0, 50.5, 200.0])
def test_the_table_of_skellam_is_right_to_the_last_bits(variance: float) -> None:
    table = skellam_table(variance)
    scale = mpmath.exp(-mpmath.mpf(variance))
    exact = [scale * mpmath.besseli(z, mpmath.mpf(variance)) for z in range(table.reach + 60)]
    assert _distance(table, exact) < SAMPLER_DISTANCE / 4


def _distance(table: Inversion, exact: Sequence[mpmath.mpf]) -> mpmath.mpf:
    """Statistical distance of what the table draws from exact P(Z = 0), P(Z = 1), ..."""
    boundaries = [0, *table._boundaries, 1 << BITS]
    total = mpmath.mpf(0)
    for place, (low, high) in enumerate(pairwise(boundaries)):
        total += abs(mpmath.mpf(high - low) / (1 << BITS) - exact[abs(place - table.reach)])
    total += 2 * sum(exact[table.reach + 1 :])
    return total / 2


@pytest.mark.parametrize("sigma", [600, 5000, 40_000])
def test_a_large_variance_is_the_convolution_of_small_ones(sigma: int) -> None:
    """The exact probability of k Z1 + Z2 is that of the discrete Gaussian, to 100 digits."""
    wanted = DiscreteGaussian(Fraction(sigma) ** 2)
    factor, coarse, fine = wanted._split()
    assert factor**2 * coarse.variance + fine.variance == wanted.variance
    inner = [exact_weights(part.variance, 1)[1] for part in (coarse, fine)]
    ratios = []
    for z in (0, 1, factor // 2, 3 * sigma, 9 * sigma + 1):
        centre = round(z * factor * coarse.variance / wanted.variance)
        total = mpmath.mpf(0)
        for first in range(centre - 400, centre + 401):
            total += inner[0] ** (first**2) * inner[1] ** ((z - factor * first) ** 2)
        rate = mpmath.mpf(1) / (2 * sigma**2)
        ratios.append(total / mpmath.exp(-rate * z * z))
    assert all(abs(ratio / ratios[0] - 1) < mpmath.mpf(10) ** -100 for ratio in ratios)


def test_covering_noise_is_a_rounded_continuous_gaussian() -> None:
    """Rounding at random with variance 16 weighs every centre alike, to 100 digits."""
    totals = [
        sum(mpmath.exp(-((k - mpmath.mpf(centre)) ** 2) / 32) for k in range(-200, 201))
        for centre in ("0", "0.25", "0.5", "0.7310585")
    ]
    assert all(abs(total / totals[0] - 1) < mpmath.mpf(10) ** -100 for total in totals)
    assert DiscreteGaussian.covering(100.0).variance == 10_016


@pytest.mark.parametrize(("std", "shift"), [(20.0, 7), (40.0, 30)])
def test_covering_noise_costs_no_more_than_the_continuous_one(std: float, shift: int) -> None:
    """delta(epsilon) on the integers, summed exactly, beside the analytic formula."""
    variance = float(DiscreteGaussian.covering(std).variance)
    reach = int(40 * math.sqrt(variance))
    grid = np.arange(-reach, reach + 1).astype(np.float64)
    here = np.exp(-(grid**2) / (2 * variance))
    there = np.exp(-((grid - shift) ** 2) / (2 * variance))
    total = here.sum()
    for epsilon in (0.1, 0.5, 1.0, 2.0):
        discrete = np.maximum(here - math.exp(epsilon) * there, 0).sum() / total
        ratio = std / shift
        low = 0.5 / ratio - epsilon * ratio
        high = -0.5 / ratio - epsilon * ratio
        analytic = _phi(low) - math.exp(epsilon) * _phi(high)
        assert discrete <= analytic
        assert discrete > 0.2 * analytic


def _phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


class Script(Keystream):
    """A keystream that first says what it is told to."""

    def __init__(self, *parts: Sequence[int]) -> None:
        super().__init__(KEY)
        self._parts = [list(part) for part in parts]

    def words(self, count: int, dtype: Any) -> NDArray[Any]:
        if self._parts and len(self._parts[0]) == count:
            return np.array(self._parts.pop(0), dtype)
        return super().words(count, dtype)


@pytest.mark.parametrize("sigma", [1, 30])
def test_where_64_bits_are_not_enough_192_decide(sigma: int) -> None:
    """Just below a boundary of 192 bits the value is one less than on it."""
    table = gaussian_table(Fraction(sigma) ** 2)
    for place in (table.reach - 1, table.reach, table.reach + 2):
        boundary = table._boundaries[place]
        high, low = boundary >> 128, boundary & ((1 << 128) - 1)
        for number, wanted in ((low - 1, place), (low, place + 1), (low + 1, place + 1)):
            source = Script(
                [high >> 48], [(high & ((1 << 48) - 1)) << 16], [number >> 64, number % (1 << 64)]
            )
            assert int(table.sample(1, source)[0]) == wanted - table.reach


@pytest.mark.parametrize("sigma", [1, 64, 500])
def test_where_16_bits_are_not_enough_the_place_among_all_boundaries_decides(sigma: int) -> None:
    """Whether one boundary begins with these bits, a few do or, at the ends, hundreds."""
    table = gaussian_table(Fraction(sigma) ** 2)
    words = np.flatnonzero(table._guide < -(1 << 30))
    more = np.random.default_rng(sigma).integers(0, 1 << 48, len(words), np.uint64)
    ends = (1 << 64) - 1
    more[0], more[-1] = 0, ends >> 16  # of all draws the least and the greatest: both are ties
    source = Script(words.tolist(), (more << np.uint64(16)).tolist(), [0, 0], [ends, ends])
    drawn = table.sample(len(words), source)
    draws = [(int(w) << 176) + (int(m) << 128) for w, m in zip(words, more, strict=True)]
    draws[-1] = (1 << BITS) - 1
    assert drawn.tolist() == [table._place(draw) - table.reach for draw in draws]
    assert drawn[-1] == table.reach


@pytest.mark.parametrize("sigma", [1, 30, 400])
def test_sixteen_bits_decide_only_where_all_that_follow_agree(sigma: int) -> None:
    table = gaussian_table(Fraction(sigma) ** 2)
    decided = np.flatnonzero(table._guide > -(1 << 30))
    assert 0.9 < decided.size / (1 << 16) < 1
    for word in decided[:: max(1, decided.size // 500)]:
        first, last = int(word) << 176, ((int(word) + 1) << 176) - 1
        assert table._place(first) == table._place(last) == table._guide[word] + table.reach


def test_what_the_samplers_add_to_delta_is_nothing() -> None:
    assert residue(50.0) < 1e-15
    assert residue(1.0) > 0


@pytest.mark.parametrize(
    "variance", [Fraction(1, 5), Fraction(0), Fraction(-1), Fraction(2) ** 101]
)
def test_variances_out_of_range(variance: Fraction) -> None:
    with pytest.raises(ConfigError, match=r"variance must be in 1/4..2\^100"):
        DiscreteGaussian(variance)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, 2e7])
def test_skellam_variances_out_of_range(variance: float) -> None:
    with pytest.raises(ConfigError, match="variance must be in"):
        Skellam(variance)


def test_nothing_can_be_asked_for() -> None:
    assert DiscreteGaussian(Fraction(4)).sample(0, Keystream(KEY)).shape == (0,)
