"""Clipping, fixed and adaptive. What another framework gets wrong stands here as a test."""

import math

import numpy as np
import pytest

from fedsec.errors import ConfigError
from fedsec.privacy.clipping import AdaptiveClip, clip_factors
from fedsec.privacy.gaussian import GaussianMechanism, remaining
from fedsec.privacy.keystream import Keystream

KEY = bytes(range(3, 35))
UPDATES = np.exp(np.random.default_rng(5).normal(size=(100, 100)))  # norms: lognormal, median 1


def run(clip: float, quantile: float, *, count_noise: float = 5.0, rounds: int = 300) -> float:
    """Returns the mean clip of the last 20 rounds."""
    adapt = AdaptiveClip(quantile, learning_rate=0.2, count_noise=count_noise)
    source = Keystream(KEY)
    clips = []
    for number in range(rounds):
        norms = UPDATES[number % 100]
        clip = adapt.step(clip, adapt.count(norms, clip, source), norms.size)
        clips.append(clip)
    return float(np.mean(clips[-20:]))


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("start", [0.01, 1.0, 100.0])
def test_the_clip_converges_to_the_quantile(start: float, quantile: float) -> None:
    """From 100 times too low and 100 times too high. With the sign turned round it runs away."""
    wanted = float(np.quantile(UPDATES, quantile))
    assert run(start * wanted, quantile) == pytest.approx(wanted, rel=0.2)


def test_the_wrong_sign_would_be_noticed() -> None:
    """As in a framework that counts the clipped: C exp(-eta (clipped - quantile))."""

    class Turned(AdaptiveClip):
        def step(self, clip: float, count: float, nodes: float) -> float:
            return super().step(clip, -count, nodes)

    adapt, clip, source = Turned(0.5, 0.2, 5.0), 2.0, Keystream(KEY)
    for number in range(100):
        clip = adapt.step(clip, adapt.count(UPDATES[number], clip, source), 100)
    assert clip > 1000


def test_the_two_releases_cost_what_one_would() -> None:
    """1/z_delta^2 + 1/(2 sigma_b)^2 = 1/z^2: two Gaussians come to one."""
    adapt = AdaptiveClip(0.5, 0.2, count_noise=5.0)
    left = remaining(1.0, adapt.multiplier)
    assert left == pytest.approx((1 - 1 / 100) ** -0.5)
    assert left**-2 + 10.0**-2 == pytest.approx(1.0)


def test_a_count_that_costs_too_much_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is left for the updates"):
        remaining(2.0, AdaptiveClip(0.5, 0.2, count_noise=1.0).multiplier)


def test_one_node_changes_the_count_by_a_half() -> None:
    """Zero or absent, against short or long: the sensitivity for which the noise is made."""
    others, adapt = [0.3, 2.0], AdaptiveClip(0.5, 0.2, 3.0)

    def counted(*mine: float) -> float:
        return adapt.count(np.array([*others, *mine]), 1.0, Keystream(KEY))  # the same noise

    assert counted(0.0) == counted()
    changes = [counted(mine) - counted(0.0) for mine in (1e-9, 0.9, 1.0, 7.0, math.inf, math.nan)]
    assert [abs(change) for change in changes] == pytest.approx([0.5] * 6, abs=1e-3)
    source = Keystream(KEY)
    drawn = [adapt.count(np.array(others), 1.0, source) for _ in range(2000)]
    std = GaussianMechanism(0.5, 6.0).std(1)
    assert np.std(drawn) == pytest.approx(std, rel=0.06)
    assert std == pytest.approx(3.0, rel=3e-3)
    assert abs(np.mean(drawn)) < 5 * std / math.sqrt(2000)


def test_a_wild_count_moves_the_clip_by_a_bounded_factor() -> None:
    adapt = AdaptiveClip(0.5, 0.2, 5.0)
    assert adapt.step(1.0, 1e9, 10) == pytest.approx(math.exp(0.2 * -1.0))
    assert adapt.step(1.0, -1e9, 10) == pytest.approx(math.exp(0.2 * 1.0))
    assert adapt.step(1e-12, 5.0, 10) == 1e-12
    assert adapt.step(1e12, -5.0, 10) == 1e12


def test_factors_never_divide_by_zero_and_drop_what_is_not_finite() -> None:
    """Zero updates crash another framework's round; NaN passes its clip unchanged."""
    norms = np.array([0.0, 1e-300, 0.5, 1.0, 3.0, 1e300, math.inf, math.nan])
    factors = clip_factors(norms, 1.0)
    assert factors.tolist() == [1, 1, 1, 1, 1 / 3, 1e-300, 0, 0]
    with np.errstate(invalid="ignore"):
        assert np.nanmax(factors[:6] * norms[:6]) <= 1.0


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan, math.inf])
def test_a_clip_out_of_range(clip: float) -> None:
    with pytest.raises(ConfigError, match="clip must be > 0"):
        clip_factors(np.ones(2), clip)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1.0, 0.2, 5.0), "quantile must be in"),
        ((0.5, 0.0, 5.0), "learning_rate must be > 0"),
        ((0.5, 0.2, math.inf), "count_noise must be > 0"),
    ],
)
def test_parameters_out_of_range(given: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdaptiveClip(*given)
