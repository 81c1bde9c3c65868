"""Accounting against a table, against brute force, and against what must never be reported."""

import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation
from dp_accounting.pld import PLDAccountant
from scipy.stats import skellam

from fedsec.errors import ConfigError
from fedsec.privacy.accounting import ORDERS, method, renyi, skellam_curve, spent
from fedsec.privacy.calibration import calibrate
from fedsec.privacy.events import Gaussian, Price, Skellam

# q, sigma, T, delta, Renyi (dp-accounting), privacy loss distribution; add-or-remove
TABLE = [
    (1.0, 1.0, 1, 1e-5, 4.7285, 4.3772),
    (1.0, 5.0, 1, 1e-5, 0.7945, 0.7255),
    (1.0, 5.0, 50, 1e-5, 7.0774, 6.5730),
    (1.0, 20.0, 500, 1e-6, 5.9268, 5.5509),
    (0.01, 1.0, 1000, 1e-5, 2.1014, 1.8282),
    (0.1, 2.0, 500, 1e-5, 6.0346, 5.5555),
    (0.004, 1.1, 15000, 1e-5, 2.5029, 2.2955),
    (0.05, 3.0, 200, 1e-3, 0.6896, 0.5868),
    (0.01, 4.0, 100, 1e-5, 0.0897, 0.0795),
]
HEAVY = [
    (0.0001, 0.8, 2000, 1e-8, 1.4738, 0.1112),
    (0.5, 4.0, 100, 1e-5, 6.3708, 5.8687),
    (0.02, 1.0, 1500, 1e-5, 5.2960, 4.8137),
    (0.1, 1.0, 100, 1e-5, 7.9039, 7.0466),
    (0.01, 1.0, 10000, 1e-5, 6.7128, 6.1877),
    (0.01, 0.7, 1000, 1e-5, 5.4233, 4.6183),
    (0.001, 0.6, 2000, 1e-6, 3.3133, 2.3549),
    (0.001, 0.4, 100, 1e-6, 7.9026, 6.3803),
    (0.3, 0.5, 10, 1e-5, 25.9424, 23.0887),
]


@pytest.mark.parametrize(
    "row", [*TABLE, *(pytest.param(row, marks=pytest.mark.slow) for row in HEAVY)]
)
def test_the_reference_table(row: tuple[float, float, int, float, float, float]) -> None:
    q, sigma, steps, delta, loose, tight = row
    prices = [Price(Gaussian(sigma, q), steps)]
    assert spent(prices, delta) == pytest.approx(tight, abs=2e-4)
    assert renyi(prices, delta) == pytest.approx(loose, abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("q", "sigma", "steps", "gdp"),
    [(0.001, 0.4, 100, 0.9576), (0.001, 0.6, 2000, 0.7168), (0.01, 1.0, 1000, 1.6177)],
)
def test_the_gaussian_approximation_of_opacus_is_no_bound_and_is_not_ours(
    q: float, sigma: float, steps: int, gdp: float
) -> None:
    """Opacus' GDP accountant says `gdp`; the truth, from below too, is more."""
    delta = 1e-6 if q == 0.001 else 1e-5
    optimistic = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    assert spent([Price(Gaussian(sigma, q), steps)], delta) > 1.1 * gdp
    assert optimistic.supports(GaussianDpEvent(1.0))


def test_a_change_is_doubled_once_at_most() -> None:
    """dp-accounting's replace-one doubles by itself: with a replace-one sensitivity it is twice."""
    std, zero_out, replaced = 0.5, 0.25, 0.5
    theirs = PLDAccountant(NeighboringRelation.REPLACE_ONE)
    theirs.compose(GaussianDpEvent(std / zero_out))
    ours = spent([Price(Gaussian(std / replaced))], 1e-5)
    assert theirs.get_epsilon(1e-5) == pytest.approx(ours, abs=1e-3)
    mixed = PLDAccountant(NeighboringRelation.REPLACE_ONE)
    mixed.compose(GaussianDpEvent(std / replaced))
    assert mixed.get_epsilon(1e-5) > 1.9 * ours


def test_the_curve_of_skellam_bounds_the_exact_divergence() -> None:
    """Renyi divergence of a shift by one, summed exactly."""
    for variance, alpha in ((100.0, 8), (25.0, 4), (4.0, 2)):
        z = np.arange(-int(14 * variance**0.5) - 20, int(14 * variance**0.5) + 20)
        here = skellam.pmf(z, variance / 2, variance / 2)
        there = skellam.pmf(z - 1, variance / 2, variance / 2)
        kept = (here > 1e-200) & (there > 1e-200)
        logs = alpha * np.log(here[kept]) + (1 - alpha) * np.log(there[kept])
        exact = math.log(np.exp(logs).sum()) / (alpha - 1)
        bound = float(skellam_curve(Skellam(1, 1, variance), [alpha])[0])
        assert exact <= bound <= exact * (1 + 4 / variance)


def test_the_field_notes_divergence() -> None:
    curve = skellam_curve(Skellam(l1=1, l2=1, variance=100), [8])
    assert curve[0] == pytest.approx(0.040525)
    assert curve[0] > 0.039946  # the exact divergence


def test_fine_skellam_costs_what_a_gaussian_does_by_renyi() -> None:
    fine = renyi([Price(Skellam(l1=1e8, l2=1e4, variance=1e8))], 1e-5)
    assert fine == pytest.approx(4.7525, abs=1e-3)  # whole orders only: 4.7285 with all
    assert fine < spent([Price(Skellam(l1=65536, l2=256, variance=65536))], 1e-5) < fine * 1.001


def test_mixed_releases_compose() -> None:
    whole, drawn = Price(Gaussian(2.0), 3), Price(Gaussian(1.0, 0.1), 5)
    integers = Price(Skellam(65536, 256, 4 * 65536))
    both = spent([whole, drawn], 1e-5, interval=1e-3)
    assert spent([whole], 1e-5) < both < renyi([whole, drawn], 1e-5)
    assert spent([whole, drawn, integers], 1e-5) > renyi([whole, drawn], 1e-5)
    assert [method(x) for x in ([whole], [whole, drawn], [whole, drawn, integers])] == [
        "analytic Gaussian",
        "privacy loss distribution",
        "Renyi differential privacy",
    ]


def test_order_and_grouping_do_not_matter() -> None:
    one, two = Price(Gaussian(1.5)), Price(Gaussian(3.0))
    assert spent([one, two, one], 1e-6) == pytest.approx(spent([two, one.times(2)], 1e-6))


def test_nothing_costs_nothing_and_little_noise_costs_much() -> None:
    assert spent([], 1e-5) == 0
    assert renyi([], 1e-5) == 0
    assert spent([Price(Gaussian(1000.0))], 0.5) == 0
    assert spent([Price(Gaussian(0.05, 0.5), 1000)], 1e-5) > 1e4


def test_what_samplers_lack_is_taken_off_delta() -> None:
    exact, near = Price(Gaussian(1.0)), Price(Gaussian(1.0), delta=9e-6)
    assert spent([near], 1e-5) == pytest.approx(spent([exact], 1e-6))
    assert spent([Price(Gaussian(1.0), delta=1e-5)], 1e-5) == math.inf
    assert renyi([Price(Gaussian(1.0), delta=1e-5)], 1e-5) == math.inf


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_out_of_range(delta: float) -> None:
    with pytest.raises(ConfigError, match=r"delta must be in \(0, 1\)"):
        spent([Price(Gaussian(1.0))], delta)


def test_orders_are_whole() -> None:
    assert all(isinstance(order, int) and order >= 2 for order in ORDERS)


class TestCalibration:
    @pytest.mark.parametrize("epsilon", [0.5, 3.0, 10.0])
    def test_the_multiplier_is_enough_and_a_little_less_is_not(self, epsilon: float) -> None:
        def price(z: float) -> Price:
            return Price(Gaussian(z), 20)

        found = calibrate(price, epsilon=epsilon, delta=1e-5)
        assert spent([price(found)], 1e-5) <= epsilon < spent([price(found * 0.999)], 1e-5)

    @pytest.mark.slow
    def test_with_sampling_as_the_literature_has_it(self) -> None:
        """q = 0.05, T = 200, epsilon 4: 1.0944 by losses, 1.1632 by Renyi."""
        found = calibrate(lambda z: Price(Gaussian(z, 0.05), 200), epsilon=4.0, delta=1e-5)
        assert found == pytest.approx(1.0944, rel=2e-3)

    def test_with_skellam(self) -> None:
        def price(z: float) -> Price:
            return Price(Skellam(65536, 256, (256 * z) ** 2), 10)

        found = calibrate(price, epsilon=8.0, delta=1e-5)
        assert spent([price(found)], 1e-5) <= 8.0 < spent([price(found * 0.999)], 1e-5)

    def test_the_classic_formula_is_not_used_where_it_is_wrong(self) -> None:
        """sqrt(2 ln(1.25/delta)) / epsilon holds below 1 only: at 50 the truth is 96."""
        classic = math.sqrt(2 * math.log(1.25 / 1e-5)) / 50
        assert spent([Price(Gaussian(classic))], 1e-5) == pytest.approx(96.4, abs=0.1)
        ours = calibrate(lambda z: Price(Gaussian(z)), epsilon=50, delta=1e-5)
        assert spent([Price(Gaussian(ours))], 1e-5) <= 50
        assert ours > classic

    def test_a_budget_that_no_noise_meets(self) -> None:
        with pytest.raises(ConfigError, match="no noise multiplier up to 1000"):
            calibrate(lambda z: Price(Gaussian(z), 10**9), epsilon=0.01, delta=1e-9)
        with pytest.raises(ConfigError, match="epsilon must be > 0"):
            calibrate(lambda z: Price(Gaussian(z)), epsilon=0, delta=1e-9)
