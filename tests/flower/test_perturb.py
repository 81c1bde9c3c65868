"""Local privacy: clipped, noised for any two updates, and never sent where it is not finite."""

import math

import numpy as np
import pytest
import scipy.stats

from fedsec.errors import ConfigError
from fedsec.flower.perturb import Perturb
from fedsec.plan import Privacy
from fedsec.privacy.events import Gaussian
from fedsec.privacy.keystream import Keystream

KEY = bytes(range(9, 41))


def test_any_two_updates_are_neighbours() -> None:
    """So the noise covers 2C, not C: chi-square with the power to see half of it."""
    size = 20_000
    perturb = Perturb(clip=0.5, noise_multiplier=2.0)
    noise = perturb(np.zeros(size, np.float32), Keystream(KEY)).astype(np.float64)
    statistic = float((noise**2).sum()) / (2.0 * 2 * 0.5) ** 2
    assert scipy.stats.chi2.sf(statistic / 1.002, size) > 1e-5
    assert scipy.stats.chi2.cdf(statistic, size) > 1e-5
    assert scipy.stats.chi2.sf(statistic / 0.97, size) < 1e-3
    assert perturb.mechanism.event == Gaussian(2.0)


@pytest.mark.parametrize("length", [0.0, 0.3, 1.0, 30.0, 3e38])
def test_the_update_is_clipped_first(length: float) -> None:
    update = np.array([length, 0, 0], np.float32)
    perturb = Perturb(clip=1.0, noise_multiplier=0.05)
    sent = perturb(update, Keystream(KEY))
    np.testing.assert_allclose(sent, [min(length, 1.0), 0, 0], atol=6 * 0.1)
    plain = perturb(np.zeros(3, np.float32), Keystream(KEY))  # the same noise
    np.testing.assert_allclose(sent - plain, [min(length, 1.0), 0, 0], atol=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_sent(bad: float) -> None:
    with pytest.raises(ConfigError, match="not finite; nothing is sent"):
        Perturb(1.0, 1.0)(np.array([bad, 0], np.float32), Keystream(KEY))


def test_it_follows_the_plan() -> None:
    privacy = Privacy(model="local", epsilon=8.0, delta=1e-5, noise_multiplier=3.0, clip=0.25)
    assert Perturb.of(privacy) == Perturb(0.25, 3.0)
