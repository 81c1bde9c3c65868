"""Figures under noise: kept to their range, whatever a node claims, and noised for what it changes."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from fedsec.errors import ConfigError
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.figures import Figures
from fedsec.privacy.gaussian import remaining
from fedsec.privacy.keystream import Keystream

KEY = bytes(range(5, 37))
FIGURES = Figures((("train-loss", 0.0, 4.0), ("accuracy", 0.0, 1.0), ("balance", -3.0, 1.0)), 2.0)


@pytest.mark.parametrize("value", [-1e300, -1.0, 0.0, 0.3, 4.0, 1e300, math.inf, -math.inf])
def test_a_value_is_kept_to_its_range(value: float) -> None:
    told = FIGURES.decode(FIGURES.encode({"train-loss": value}).astype(np.float64))
    assert told["train-loss"] == pytest.approx(min(max(value, 0.0), 4.0))


def test_what_is_missing_or_no_number_is_the_middle() -> None:
    assert FIGURES.encode({"accuracy": math.nan, "else": 3.0}).tolist() == [0.0, 0.0, 0.0]
    assert FIGURES.decode(np.zeros(3)) == {"train-loss": 2.0, "accuracy": 0.5, "balance": -1.0}


def test_no_node_changes_a_sum_by_more_than_is_covered() -> None:
    """All corners of what can be claimed, against nothing and against each other."""
    claims = np.array(list(itertools.product((-3e38, -0.5, 0.0, 0.5, 3e38), repeat=3)), np.float32)
    kept = FIGURES.clamp(claims)
    assert np.linalg.norm(kept, axis=1).max() <= FIGURES.mechanism(1).sensitivity
    apart = np.linalg.norm(kept[:, None] - kept[None, :], axis=2).max()
    assert apart == pytest.approx(FIGURES.mechanism(1, replaces=True).sensitivity)
    assert FIGURES.mechanism(10).sensitivity == pytest.approx(math.sqrt(3) / 20)


def test_the_noise_is_the_multiplier_times_the_sensitivity() -> None:
    """Chi-square over 3,000 draws: 10 % less or more of it is noticed."""
    source, zeros = Keystream(KEY), np.zeros(3)
    drawn = np.concatenate([FIGURES.release(zeros, 10, source) for _ in range(1000)])
    statistic = float((drawn.astype(np.float64) ** 2).sum()) / (2.0 * math.sqrt(3) / 20) ** 2
    assert 1e-4 < scipy.stats.chi2.cdf(statistic / 1.002, 3000) < 1 - 1e-4
    for wrong in (0.9, 1.1):
        p = scipy.stats.chi2.cdf(statistic / wrong**2, 3000)
        assert min(p, 1 - p) < 1e-3


def test_updates_and_figures_together_cost_what_the_round_costs() -> None:
    """Two Gaussian releases, sampled or not, are one of the multiplier that was given."""
    from fedsec.privacy.accounting import spent  # noqa: PLC0415 - takes seconds

    left = remaining(1.5, FIGURES.noise_multiplier, 5.0)
    assert left > 1.5
    pair = [Price(Gaussian(z)) for z in (left, FIGURES.noise_multiplier, 5.0)]
    assert spent(pair, 1e-5) == pytest.approx(spent([Price(Gaussian(1.5))], 1e-5), rel=1e-6)
    with pytest.raises(ConfigError, match="nothing is left for the updates"):
        remaining(2.0, 2.0)


def test_bad_ranges_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss: \[1, 1\] is no range"):
        Figures((("loss", 1.0, 1.0),), 1.0)
    with pytest.raises(ConfigError, match="no figure"):
        Figures((), 1.0)
