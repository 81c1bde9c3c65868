"""The statistics of an audit, against closed forms and simulated mechanisms."""

import numpy as np
import pytest
from scipy import stats

from fedsec.errors import ConfigError
from fedsec.privacy.accounting import spent
from fedsec.privacy.audit import (
    FEW,
    LEVEL,
    MIN_SIZE,
    directions,
    noise_p,
    one_run,
    one_shot,
    shape_p,
    worst_rows,
)
from fedsec.privacy.events import Gaussian, Price

DELTA = 1e-5


def gaussian(multiplier: float) -> float:
    return spent([Price(Gaussian(multiplier))], DELTA)


def normal(seed: int, size: int = MIN_SIZE) -> np.typing.NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(size)


@pytest.mark.parametrize(("size", "less"), [(MIN_SIZE, 0.9), (FEW, 0.85)])
def test_noise_as_claimed_passes_and_less_than_stated_does_not(size: int, less: float) -> None:
    """The stated power: at the stated level, so much less is rejected 999 times of 1,000."""
    assert min(noise_p(normal(seed, size), 1.0) for seed in range(300)) > LEVEL
    assert all(noise_p(less * normal(seed, size), 1.0) < LEVEL for seed in range(300))
    threshold = stats.chi2.ppf(LEVEL, size)
    assert stats.chi2.cdf(threshold / less**2, size) > 0.999


def test_more_noise_than_claimed_is_no_fault() -> None:
    assert noise_p(2 * normal(0), 1.0) == pytest.approx(1.0)


def test_entries_without_noise_have_another_shape() -> None:
    noise = normal(0)
    assert shape_p(noise) > LEVEL
    noise[:500] = 0
    assert shape_p(noise) < LEVEL
    assert shape_p(np.zeros(10)) == 0.0


def released(multiplier: float, size: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    made = directions(count, size, rng)
    return made, made.sum(0) + multiplier * rng.standard_normal(size)


@pytest.mark.parametrize("multiplier", [0.5, 1.0, 2.0])
def test_the_estimate_is_that_of_the_gaussian_mechanism(multiplier: float) -> None:
    made, total = released(multiplier, 20_000, 200, seed=3)
    found = one_shot(made @ total / np.linalg.norm(total), 20_000, gaussian)
    assert found.epsilon == pytest.approx(gaussian(multiplier), rel=0.25)
    assert found.low < gaussian(multiplier)


def test_no_signal_costs_nothing() -> None:
    found = one_shot(np.zeros(100), 1000, gaussian)
    assert (found.epsilon, found.low) == (0.0, 0.0)


def test_the_reach_of_an_adjacency_multiplies_the_signal() -> None:
    cosines = np.full(400, 1 / np.sqrt(1000))
    assert one_shot(cosines, 1000, gaussian, reach=2.0).epsilon == pytest.approx(gaussian(0.5))


def coins(multiplier: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Scores of canaries whose directions are orthogonal."""
    rng = np.random.default_rng(seed)
    return (
        1 + multiplier * rng.standard_normal(count // 2),
        multiplier * rng.standard_normal(count // 2),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("multiplier", "least"), [(0.5, 2.0), (1.0, 0.8)])
def test_the_bound_is_below_the_truth_and_no_trifle(multiplier: float, least: float) -> None:
    found = [one_run(*coins(multiplier, 500, seed), DELTA) for seed in range(20)]
    assert max(found) < gaussian(multiplier)
    assert np.median(found) > least


def test_the_bound_of_a_mechanism_that_hides_all_is_zero_nineteen_times_of_twenty() -> None:
    found = [one_run(normal(seed, 250), normal(seed + 1000, 250), 1e-9) for seed in range(200)]
    assert sum(each > 0 for each in found) <= 20


def test_the_bound_agrees_with_the_binomial_where_delta_is_nothing() -> None:
    """All of 100 guesses right: epsilon with (e^eps / (1 + e^eps))^100 = level, shared by six."""
    bound = one_run(np.ones(50), np.zeros(50), 0.0)
    odds = (0.05 / 6) ** (1 / 100)
    assert bound == pytest.approx(np.log(odds / (1 - odds)), rel=1e-6)


def test_delta_weakens_the_bound() -> None:
    certain = np.ones(50), np.zeros(50)
    assert one_run(*certain, 1e-3) < one_run(*certain, 0.0)


def test_a_bound_needs_canaries() -> None:
    with pytest.raises(ConfigError, match="no canaries"):
        one_run(np.zeros(0), np.zeros(0), DELTA)


def test_worst_rows_have_the_length_that_their_name_says() -> None:
    for name, rows in worst_rows(6, 40, 0.5, np.random.default_rng(0)):
        assert rows.shape == (6, 40)
        length = 500.0 if "1000" in name else 0.5
        assert np.linalg.norm(rows[0]) == pytest.approx(length, rel=1e-5)
