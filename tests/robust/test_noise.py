"""The bias of rules under noise: as the formula says, against hostile rows that are far away."""

import math

import numpy as np
import pytest

from fedsec.robust import (
    CenteredClipping,
    GeometricMedian,
    Krum,
    Mean,
    Median,
    MultiKrum,
    Pipeline,
    TrimmedMean,
)
from fedsec.robust.noise import noise_bias
from fedsec.robust.premixing import Arc, Bucketing, Nnm
from fedsec.robust.rule import Rule

STD = 0.7


def moved(pipeline: Pipeline, rows: int, byzantine: int, size: int, away: float) -> float:
    """Returns by how much hostile rows, all `away` in every coordinate, move the noised zero."""
    rng = np.random.default_rng(7)
    found = rng.normal(0, STD, (rows, size))
    with_them = found.copy()
    with_them[:byzantine] = away
    vector = pipeline(with_them, rng=np.random.default_rng(1)).vector
    return float(vector.mean()) * math.sqrt(size)  # the part along the attack: noise averages out


@pytest.mark.parametrize(
    ("rule", "rows", "byzantine"),
    [
        (Median(), 101, 10),
        (Median(), 100, 30),
        (TrimmedMean(byzantine=10), 100, 10),
        (TrimmedMean(byzantine=2), 25, 2),
        (GeometricMedian(byzantine=10), 100, 10),
        (GeometricMedian(byzantine=6), 25, 6),
    ],
)
def test_far_hostile_rows_move_a_rule_as_far_as_it_says(
    rule: Rule, rows: int, byzantine: int
) -> None:
    size = 4000
    bound = noise_bias(Pipeline(rule), rows, byzantine, STD, size)
    assert bound is not None
    seen = moved(Pipeline(rule), rows, byzantine, size, 1e6)
    assert seen == pytest.approx(bound, rel=0.06)
    assert abs(seen - 1.1 * bound) > 0.06 * bound  # the test sees a tenth


def test_buckets_have_less_noise_and_are_fewer() -> None:
    pipeline = Pipeline(Median(), (Bucketing(4, 5),))
    bound = noise_bias(pipeline, 100, 5, STD, 4000)
    assert bound == noise_bias(Pipeline(Median()), 25, 5, STD / 2, 4000)
    assert bound is not None
    assert moved(pipeline, 100, 5, 4000, 1e6) <= bound * 1.05


@pytest.mark.parametrize("before", [(), (Nnm(5),)])
@pytest.mark.parametrize("rule", [Krum(5), TrimmedMean(5), Median(), GeometricMedian(5)])
def test_a_bound_by_kappa_is_one(rule: Rule, before: tuple[Nnm, ...]) -> None:
    pipeline = Pipeline(rule, before)
    bound = noise_bias(pipeline, 50, 5, STD, 500)
    assert bound is not None
    for away in (0.3, 1.0, 3.0, 1e3):
        assert moved(pipeline, 50, 5, 500, away) <= bound * 1.03


def test_a_step_of_centred_clipping_bounds_what_a_row_asks_for() -> None:
    rule = CenteredClipping(byzantine=5, radius=0.5, iterations=2)
    assert noise_bias(Pipeline(rule), 50, 5, STD, 500) == pytest.approx(2 * 0.5 * 5 / 50)
    assert moved(Pipeline(rule), 50, 5, 500, 1e3) <= 2 * 0.5 * 5 / 50 + 0.05


def test_nobody_hostile_is_no_bias_and_a_mean_or_a_majority_is_any() -> None:
    assert noise_bias(Pipeline(Median()), 50, 0, STD, 500) == 0
    assert noise_bias(Pipeline(Mean()), 50, 1, STD, 500) == math.inf
    assert noise_bias(Pipeline(Median(), (Bucketing(5, 5),)), 50, 5, STD, 500) == math.inf


def test_where_no_bound_is_known_none_is_given() -> None:
    assert noise_bias(Pipeline(MultiKrum(5)), 50, 5, STD, 500) is None
    assert noise_bias(Pipeline(MultiKrum(5), (Nnm(5),)), 50, 5, STD, 500) is None
    assert noise_bias(Pipeline(Median(), (Arc(5),)), 50, 5, STD, 500) is None


def test_mixing_has_the_factor_of_its_paper() -> None:
    """Allouah et al., AISTATS 2023, lemma 1: kappa becomes 8 f / (n - f) (kappa + 1)."""
    ratio = 5 / 40
    kappa = 8 * 5 / 45 * (6 * ratio * (1 + ratio) + 1)
    found = noise_bias(Pipeline(TrimmedMean(5), (Nnm(5),)), 50, 5, 2.0, 100)
    assert found == pytest.approx(2.0 * (100 * kappa) ** 0.5)
