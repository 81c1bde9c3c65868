"""Sums of integers with noise shares: what is decided before, and what comes out."""

import math

import numpy as np
import pytest
import scipy.stats

from fedsec.encoding import Rotated, padded, word_type
from fedsec.errors import ConfigError
from fedsec.privacy.accounting import renyi, spent
from fedsec.privacy.distributed import MAX_SHARE, MIN_NORM, NoisySum, rounded_norm, set_up
from fedsec.privacy.events import Gaussian, Price, Skellam
from fedsec.privacy.keystream import Keystream
from fedsec.privacy.skellam import Skellam as SkellamNoise

SEED = bytes(range(32))


def made(size: int = 5130, nodes: int = 20, honest: int = 15, bits: int = 16, z: float = 1.0) -> NoisySum:  # fmt: skip
    return set_up(
        length=padded(size), clip=1.0, nodes=nodes, honest=honest, noise_multiplier=z, bits=bits
    )


@pytest.mark.parametrize("bits", [14, 16, 20, 32])
@pytest.mark.parametrize("size", [1, 100, 5130, 1 << 20])
def test_every_set_up_keeps_its_promises(size: int, bits: int) -> None:
    found, length = made(size, bits=bits), padded(size)
    assert found.l2 == pytest.approx(rounded_norm(found.scale, length))
    assert found.l2 >= MIN_NORM
    assert found.share * found.honest == pytest.approx(found.l2**2)
    assert math.sqrt(found.share) <= MAX_SHARE


def test_with_enough_bits_rounding_costs_half_a_percent() -> None:
    for nodes, size, bits, worst in ((100, 1 << 20, 16, 1.006), (100, 1 << 20, 14, 1.10)):
        found = set_up(
            length=padded(size),
            clip=1.0,
            nodes=nodes,
            honest=nodes,
            noise_multiplier=1.0,
            bits=bits,
        )
        assert found.l2 / found.scale < worst


def test_words_that_are_too_short_are_refused_with_the_number_that_is_enough() -> None:
    with pytest.raises(ConfigError, match=r"bits = 9 cannot hold the sum of 20 .*; 10 bits can"):
        made(bits=9)
    assert made(bits=10).bits == 10


def test_noise_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ConfigError, match="beyond what can be drawn"):
        made(z=1000.0, honest=3)


@pytest.mark.parametrize("bits", [12, 16, 20])
def test_the_sum_comes_out_with_the_noise_of_all_who_answered(bits: int) -> None:
    """Chi-square of the noise of the decoded sum; a share left out would be noticed."""
    size, nodes = 5130, 20
    found = made(size, nodes=nodes, honest=15, bits=bits)
    code = Rotated(size, 1.0, found.scale, bits, SEED, SkellamNoise(found.share))
    rows = np.random.default_rng(1).normal(size=(nodes, size)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    stream = Keystream(SEED)
    for answered in (nodes, 15):
        total = np.zeros(code.length, word_type(bits))
        for row in rows[:answered]:
            total += code.encode(row, stream)
        noise = code.decode(total) - rows[:answered].sum(axis=0, dtype=np.float64)
        # rounding adds at most 1/4 grid step squared for each row
        rounding = answered / 4 / found.scale**2
        low = float((noise**2).sum()) / (found.std(answered) ** 2 + rounding)
        high = float((noise**2).sum()) / found.std(answered) ** 2
        assert scipy.stats.chi2.cdf(high, size) > 1e-5
        assert scipy.stats.chi2.sf(low, size) > 1e-5
        fewer = float((noise**2).sum()) / found.std(answered - 2) ** 2
        assert scipy.stats.chi2.sf(fewer, size) < 1e-5


def test_the_fewest_shares_carry_the_whole_guarantee() -> None:
    found = made(nodes=20, honest=15)
    assert found.std(15) * found.scale == pytest.approx(found.l2)
    assert found.std(20) > found.std(15)


def test_the_stated_price_is_an_upper_bound_and_a_tight_one() -> None:
    stated = spent([Price(Skellam(MIN_NORM**2, MIN_NORM, MIN_NORM**2), 10)], 1e-5)
    for size in (10, 5130, 1 << 20):
        found = made(size, bits=20)
        variance = found.share * found.honest
        l1 = min(math.sqrt(padded(size)) * found.l2, found.l2**2)
        real = spent([Price(Skellam(l1, found.l2, variance), 10)], 1e-5)
        assert real <= stated <= 1.005 * real
    whole_orders = spent([Price(Skellam(1e12, 1e6, 1e12), 10)], 1e-5)  # a Gaussian's, in effect
    assert renyi([Price(Gaussian(1.0), 10)], 1e-5) < whole_orders < stated < 1.005 * whole_orders


def test_the_field_notes_figures_at_sixteen_bits() -> None:
    """n = 100, d = 2^20, z = 1 over the un-inflated clip: 4.763 at 16 bits, 4.753 continuous."""
    found = set_up(length=1 << 20, clip=1.0, nodes=100, honest=100, noise_multiplier=1.0, bits=16)
    ratio = found.scale / found.l2  # their noise is measured before rounding lengthens
    price = Price(Skellam(1024 * found.l2, found.l2, (ratio * found.l2) ** 2))
    assert spent([price], 1e-5) == pytest.approx(4.77, abs=0.02)
