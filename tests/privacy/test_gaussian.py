"""The Gaussian mechanism: how much noise, on which grid, and that neighbours stay near on it."""

import math

import numpy as np
import pytest
import scipy.stats

from fedsec.errors import ConfigError
from fedsec.privacy.accounting import spent
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.gaussian import FINENESS, GaussianMechanism
from fedsec.privacy.keystream import Keystream

KEY = bytes(range(2, 34))
SIZE = 200_000


def variance_test(noise: np.ndarray, std: float) -> float:
    """Two-sided p-value of the sum of squares under Gaussian noise of this `std`."""
    statistic = float((noise.astype(np.float64) ** 2).sum()) / std**2
    return 2 * min(
        float(scipy.stats.chi2.sf(statistic, noise.size)),
        float(scipy.stats.chi2.cdf(statistic, noise.size)),
    )


@pytest.mark.parametrize("multiplier", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("sensitivity", [1e-6, 0.1, 1e4])
def test_the_noise_is_as_large_as_stated(sensitivity: float, multiplier: float) -> None:
    mechanism = GaussianMechanism(sensitivity, multiplier)
    noise = mechanism.release(np.zeros(SIZE), Keystream(KEY))
    std = mechanism.std(SIZE)
    assert sensitivity * multiplier < std < 1.003 * sensitivity * multiplier
    assert variance_test(noise, std) > 1e-4
    assert scipy.stats.kstest(noise / std, "norm").pvalue > 1e-4
    # the statistic's power: 1 % less would be noticed
    assert variance_test(noise * 0.99, std) < 1e-4


def test_the_event_is_what_the_accountant_reckons_with() -> None:
    mechanism = GaussianMechanism(0.2, 1.0)
    assert mechanism.event == Gaussian(1.0)
    assert spent([Price(mechanism.event)], 1e-5) == pytest.approx(4.3772, abs=1e-4)


def test_what_is_released_lies_on_the_grid() -> None:
    """No value tells more than its integer: the same integers come out for near inputs."""
    size = 1000
    mechanism = GaussianMechanism(1.0, 1.0)
    step = 1.0 / (FINENESS * math.sqrt(size))
    released = mechanism.release(np.full(size, 0.123456789), Keystream(KEY))
    integers = released.astype(np.float64) / step
    # float32 keeps 24 bits; the integers here have up to 18
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-2)
    nudged = mechanism.release(np.full(size, 0.123456789 + step * 1e-6), Keystream(KEY))
    assert np.array_equal(released, nudged)


def test_neighbours_stay_within_the_distance_that_the_noise_covers() -> None:
    """Rounding moves each neighbour by half a step per entry at most, adversarially chosen."""
    size = 4096
    mechanism = GaussianMechanism(1.0, 2.0)
    step = 1.0 / (FINENESS * math.sqrt(size))
    here = np.full(size, 0.499 * step)
    there = here + 1.0 / math.sqrt(size) + 0.002 * step
    distance = np.linalg.norm(np.rint(there / step) - np.rint(here / step))
    assert distance <= FINENESS * math.sqrt(size) + math.sqrt(size)
    assert mechanism._noise(size).variance >= (2.0 * distance) ** 2 + 16


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_what_was_not_clipped_is_not_released(bad: float) -> None:
    with pytest.raises(ConfigError, match="not finite, or too large"):
        GaussianMechanism(1.0, 1.0).release(np.array([0.0, bad]), Keystream(KEY))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_parameters_out_of_range(bad: float) -> None:
    with pytest.raises(ConfigError, match="sensitivity must be > 0"):
        GaussianMechanism(bad, 1.0)
    with pytest.raises(ConfigError, match="noise_multiplier must be > 0"):
        GaussianMechanism(1.0, bad)
