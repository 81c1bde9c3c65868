"""Pre-aggregations against their papers' formulas, and pipelines."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ConfigError
from fedsec.robust import (
    Arc,
    Bucketing,
    CenteredClipping,
    Clip,
    GeometricMedian,
    Krum,
    Mean,
    Median,
    MultiKrum,
    Nnm,
    Pipeline,
    Premix,
    Rule,
    TooManyFaults,
    TrimmedMean,
)
from fedsec.robust.engine import premix
from tests.robust import oracles
from tests.robust.cases import rows_of


@given(seed=st.integers(0, 2**32 - 1), f=st.integers(0, 4))
def test_premixes_match_their_papers(seed: int, f: int) -> None:
    rows = rows_of(seed)
    rows[0] *= 4
    for stage, expected in [
        (Nnm(f), oracles.nnm(rows, f)),
        (Arc(f), oracles.arc(rows, f)),
        (Clip(2.5), oracles.clip(rows, 2.5)),
    ]:
        mixed = premix((stage,), rows)
        np.testing.assert_allclose(mixed.rows, expected, atol=1e-9)
        np.testing.assert_allclose(mixed.matrix @ rows, expected, atol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 5))
def test_buckets_hold_each_row_once(seed: int, size: int) -> None:
    rows = rows_of()
    mixed = premix((Bucketing(size),), rows, rng=np.random.default_rng(seed))
    assert mixed.rows.shape == (-(-11 // size), 7)
    held = (mixed.matrix > 0).sum(axis=1)
    assert max(held) == size
    np.testing.assert_array_equal((mixed.matrix > 0).sum(axis=0), 1)
    np.testing.assert_allclose(mixed.matrix.sum(axis=1), 1)
    np.testing.assert_allclose(mixed.matrix @ rows, mixed.rows)


STAGES: list[Premix] = [Nnm(2), Arc(2), Clip(2.5), Bucketing(2)]
BEHIND: list[Rule] = [
    Krum(1),
    MultiKrum(1),
    Median(),
    TrimmedMean(1),
    GeometricMedian(1),
    CenteredClipping(1, radius=1.0),
]


@pytest.mark.parametrize("rule", BEHIND, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("pair", list(itertools.permutations(STAGES, 2)), ids=str)
def test_chains_give_what_their_stages_give_one_by_one(
    rule: Rule, pair: tuple[Premix, ...]
) -> None:
    rows = rows_of(n=15, d=30)
    rows[:2] *= -3
    # One generator for the chain is one seed drawn from it: the same in both ways.
    at_once = Pipeline(rule, pair)(rows, rng=np.random.default_rng(1))
    formed = premix(pair, rows, rng=np.random.default_rng(1))
    np.testing.assert_allclose(at_once.vector, rule(formed.rows).vector, atol=1e-5)
    step = premix(pair[:1], rows, rng=np.random.default_rng(1)).rows
    if not any(isinstance(stage, Bucketing) for stage in pair):
        step = premix(pair[1:], step).rows
        np.testing.assert_allclose(formed.rows, step, atol=1e-9)


@pytest.mark.parametrize(("alike", "precision"), [(0.0, "float32"), (0.9, "float64")])
def test_mixed_distances_are_certified_for_themselves(alike: float, precision: str) -> None:
    rows = rows_of(n=30, d=2000, shift=0.0)
    rows = (alike * rows[:1] + (1 - alike) * rows).astype(np.float32)
    found = Pipeline(MultiKrum(3), (Nnm(3),))(rows)
    assert found.diagnostics.gram == precision
    exact = Pipeline(MultiKrum(3), (Nnm(3),))(rows.astype(np.float64))
    assert found.weights is not None
    assert exact.weights is not None
    np.testing.assert_allclose(found.weights, exact.weights, atol=1e-12)


def test_many_mixed_rows_are_measured_accurately_at_once() -> None:
    rows = rows_of(n=300, d=50).astype(np.float32)
    found = Pipeline(MultiKrum(20), (Nnm(20),))(rows)
    assert found.diagnostics.gram == "float64"
    assert Pipeline(Krum(20), (Arc(20),))(rows).diagnostics.gram in {"float32", "float64"}


def test_buckets_nearer_to_each_other_than_certified_are_measured_again() -> None:
    base = rows_of(n=1, d=4000, shift=0.0)
    rows = (base + rows_of(1, n=50, d=4000, shift=0.0)).astype(np.float32)
    chain = Pipeline(Krum(1), (Bucketing(10),))
    found = chain(rows, rng=np.random.default_rng(0))
    exact = chain(rows.astype(np.float64), rng=np.random.default_rng(0))
    assert Krum(1)(rows).diagnostics.gram == "float32"
    assert found.diagnostics.gram == "float64"
    np.testing.assert_allclose(found.vector, exact.vector, atol=1e-6)


def test_premixed_rows_leave_out_what_is_not_finite() -> None:
    rows = rows_of().astype(np.float32)
    rows[3] = np.nan
    mixed = premix((Nnm(2),), rows, byzantine=2)
    assert mixed.rows.shape == (10, 7)
    assert mixed.rows.dtype == np.float32
    assert mixed.excluded == {3: "is not finite"}
    # One of the two hostile rows is gone, so each row has n-f = 9 neighbours still.
    np.testing.assert_allclose(mixed.rows, oracles.nnm(np.delete(rows, 3, axis=0), 1), rtol=1e-5)
    with pytest.raises(TooManyFaults):
        premix((Nnm(2),), rows)


def test_arc_clips_the_number_of_rows_that_its_paper_says() -> None:
    sizes = [(n, f) for n in range(1, 60) for f in range((n - 1) // 2 + 1)]
    for n, f in [*sizes, (242, 33)]:  # there 2 (f/n) (n-f) is a hair less than 57
        factors = np.diag(premix((Arc(f),), np.arange(1.0, n + 1)[:, None]).matrix)
        assert np.count_nonzero(factors < 1) == 2 * f * (n - f) // n, (n, f)


def test_a_row_is_among_its_own_neighbours_though_others_are_the_same() -> None:
    mixed = premix((Nnm(2),), np.ones((6, 3)))
    assert (np.diag(mixed.matrix) == 0.25).all()


def test_half_precision_rows_are_mixed_in_single() -> None:
    rows = rows_of().astype(np.float16)
    mixed = premix((Clip(2.0),), rows).rows
    assert mixed.dtype == np.float16
    np.testing.assert_allclose(mixed, oracles.clip(rows.astype(np.float64), 2.0), atol=2e-3)


def test_buckets_need_chance_and_enough_rows() -> None:
    with pytest.raises(ConfigError, match="bucketing draws"):
        Pipeline(Median(), (Bucketing(2),))(rows_of())
    with pytest.raises(ConfigError, match=r"bucketing: 11 updates are too few for byzantine = 3"):
        Pipeline(Median(), (Bucketing(2, byzantine=3),)).check(11)
    Pipeline(Median(), (Bucketing(2, byzantine=2),)).check(11)


def test_hostile_rows_stay_as_many_when_buckets_make_rows_fewer() -> None:
    with pytest.raises(ConfigError, match="6 updates are too few for byzantine = 3"):
        Pipeline(TrimmedMean(3), (Bucketing(2),)).check(12)
    with pytest.raises(ConfigError, match="give it as a count"):
        Pipeline(TrimmedMean(0.2), (Bucketing(2),)).check(12)


def test_a_pipeline_has_its_own_before() -> None:
    with pytest.raises(ConfigError, match="belongs to the pipeline"):
        Pipeline(Mean())(rows_of(), before=(Clip(1.0),))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Nnm(-1), "byzantine must be >= 0"),
        (lambda: Bucketing(0), "size must be >= 1"),
        (lambda: Clip(0.0), "norm must be finite and > 0"),
        (lambda: Arc(0.7), "share of the rows"),
    ],
)
def test_parameters_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]  # a lambda


@pytest.mark.parametrize("limit", [1e-4, 1e-5])
def test_a_clip_of_bucket_means_holds_where_rows_nearly_cancel(limit: float) -> None:
    """In float32 products the mean of two opposite rows has any norm, and noise relies on the clip."""
    bucketed = Pipeline(Mean(), (Bucketing(2), Clip(limit)))
    bound = bucketed.sensitivity(1.0, 10, "zero-out")
    assert bound is not None
    most = 0.0
    for seed in range(20):
        rows = np.random.default_rng(seed).normal(size=(10, 50))
        rows *= 0.9 / np.linalg.norm(rows, axis=1, keepdims=True)
        matrix = premix((Bucketing(2),), rows, rng=np.random.default_rng(0)).matrix
        first, second = np.flatnonzero(matrix[0])
        for more in (3e-4, 1e-3, 4e-3):
            one = rows.copy()
            one[second] = -rows[first] * (1 + more)
            other = one.copy()
            other[second] = 0
            results = [
                bucketed(
                    each.astype(np.float32), rng=np.random.default_rng(0), unusable="zero"
                ).vector
                for each in (one, other)
            ]
            most = max(most, float(np.linalg.norm(np.subtract(*results, dtype=np.float64))))
    assert 0.5 * bound < most <= bound * (1 + 1e-3)


def test_no_more_rows_are_unusable_than_each_stage_withstands() -> None:
    rows = rows_of()
    rows[:3] = np.nan
    with pytest.raises(TooManyFaults):
        Pipeline(Median(), (Nnm(2),))(rows)
    rows[2] = 0
    assert np.isfinite(Pipeline(Median(), (Nnm(2),))(rows).vector).all()
