"""What a rule's own parameters do, and what it tells of its choice, against the naive formula."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.robust import (
    Bucketing,
    Bulyan,
    Caf,
    CenteredClipping,
    Clip,
    Dnc,
    FlTrust,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    Median,
    MinimumDiameter,
    Monna,
    MultiKrum,
    Nnm,
    Pipeline,
    Rule,
    TooManyFaults,
    TrimmedMean,
)
from fedsec.robust.engine import premix
from tests.robust import oracles
from tests.robust.cases import rows_of

Doubles = NDArray[np.float64]


UNUSABLE: list[tuple[Rule, Rule]] = [
    (TrimmedMean(3), TrimmedMean(1)),
    (Meamed(3), Meamed(1)),
    (MultiKrum(3), MultiKrum(1)),
    (Bulyan(3), Bulyan(1)),
    (Dnc(3), Dnc(1)),
]


@pytest.mark.parametrize(("rule", "left"), UNUSABLE, ids=str)
def test_an_unusable_row_uses_up_one_of_f(rule: Rule, left: Rule) -> None:
    rows = rows_of(n=17)
    rows[[2, 9]] = np.nan
    rest = np.delete(rows, [2, 9], axis=0)
    np.testing.assert_allclose(rule(rows).vector, left(rest).vector, atol=1e-12)
    mixed = Pipeline(rule, (Nnm(3),))(rows).vector
    np.testing.assert_allclose(mixed, Pipeline(left, (Nnm(1),))(rest).vector, atol=1e-12)


@pytest.mark.parametrize("rule", [Mean(2), TrimmedMean(2), GeometricMedian(2)], ids=str)
def test_weights_stay_with_their_rows_when_others_are_unusable(rule: Rule) -> None:
    rows, weights = rows_of(), np.linspace(1, 2, 11)
    rows[[0, 4]] = np.nan
    found = rule(rows, weights=weights)
    left = [row for row in range(11) if row not in {0, 4}]
    alone = type(rule)(0)(rows[left], weights=weights[left])  # type: ignore[call-arg]  # f
    np.testing.assert_allclose(found.vector, alone.vector, atol=1e-9)


def dnc(rows: Doubles, rule: Dnc, f: int, samples: list[NDArray[np.intp]]) -> Doubles:
    """Algorithm 2, one sample after another."""
    good = set(range(len(rows)))
    for columns in samples:
        part = rows[:, columns] - rows[:, columns].mean(axis=0)
        direction = np.linalg.svd(part)[2][0]
        scores = [float(row @ direction) ** 2 for row in part]
        ranked = sorted(range(len(rows)), key=lambda i: scores[i])
        good &= set(ranked[: len(rows) - math.ceil(rule.filter_factor * f)])
    return oracles.doubles(rows[sorted(good)].mean(axis=0))


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
@pytest.mark.parametrize("iterations", [1, 3])
def test_dnc_keeps_what_passes_every_sample(iterations: int, factor: float) -> None:
    f, sample = 3, 8
    rule = Dnc(f, iterations=iterations, filter_factor=factor, sample=sample)
    for seed in range(8):
        rows = rows_of(seed, n=19, d=30)
        rng = np.random.default_rng(seed)
        samples = [np.sort(rng.choice(30, sample, replace=False)) for _ in range(iterations)]
        found = rule(rows, rng=np.random.default_rng(seed))
        np.testing.assert_allclose(found.vector, dnc(rows, rule, f, samples), atol=1e-9)
        assert found.weights is not None
        assert np.count_nonzero(found.weights) >= 19 - iterations * math.ceil(factor * f)


def test_dnc_scores_are_the_worst_squared_projections() -> None:
    rows = rows_of(n=9, d=5)
    scores = Dnc(2)(rows).diagnostics.scores
    centred = rows - rows.mean(axis=0)
    direction = np.linalg.svd(centred)[2][0]
    assert scores is not None
    np.testing.assert_allclose(scores, (centred @ direction) ** 2, atol=1e-9)


def test_dnc_scores_are_the_worst_of_all_samples() -> None:
    rows = rows_of(n=11, d=40)
    rng, worst = np.random.default_rng(3), np.zeros(11)
    for _ in range(3):
        columns = np.sort(rng.choice(40, 6, replace=False))
        part = rows[:, columns] - rows[:, columns].mean(axis=0)
        worst = np.maximum(worst, (part @ np.linalg.svd(part)[2][0]) ** 2)
    rule = Dnc(2, iterations=3, sample=6)
    scores = rule(rows, rng=np.random.default_rng(3)).diagnostics.scores
    assert scores is not None
    np.testing.assert_allclose(scores, worst, atol=1e-9)


def test_minimum_diameter_scores_are_how_far_the_farthest_kept_row_is() -> None:
    rows = rows_of()
    rows[:2] *= 5
    found = MinimumDiameter(2)(rows)
    assert found.weights is not None
    kept = rows[found.weights > 0]
    expected = [max(float(np.sum((row - other) ** 2)) for other in kept) for row in rows]
    np.testing.assert_allclose(found.diagnostics.scores, expected, atol=1e-9)


def test_where_minimum_diameter_may_drop_anybody_it_drops_who_is_far() -> None:
    corners = np.vstack([np.full((1, 4), 0.25), np.eye(4)])
    weights = MinimumDiameter(1)(corners).weights
    assert weights is not None
    assert weights[0] == 0.25
    assert sorted(weights) == [0, 0.25, 0.25, 0.25, 0.25]


def test_a_small_share_counts_for_what_it_is() -> None:
    rows = np.array([[1.0], [1.0], [1.0], [1e6]])
    found = TrimmedMean(0)(rows, weights=np.array([1, 1, 1, 3e-4]))
    np.testing.assert_allclose(found.vector, [(3 + 300) / 3.0003])


def test_a_row_that_counts_as_zeros_is_named_for_what_it_was() -> None:
    rows = np.full((7, 3), 100.0) + rows_of(n=7, d=3)
    rows[2] = np.nan
    (suspect,) = Median()(rows, unusable="zero").suspects
    assert (suspect.row, suspect.reason) == (2, "is not finite")


@pytest.mark.parametrize("seed", [4, 8, 10, 13])
def test_caf_keeps_the_narrowest_mean_though_it_goes_on(seed: int) -> None:
    """Sets of rows whose spread along its widest direction grows again at the end."""
    rows = np.random.default_rng(seed).integers(-3, 4, (7, 5)).astype(np.float64)
    found = Caf(3)(rows)
    np.testing.assert_allclose(found.vector, oracles.caf(rows, 3), atol=1e-9)
    assert found.diagnostics.scores is not None
    assert found.weights is not None
    lost = found.diagnostics.scores
    np.testing.assert_allclose(found.weights, (1 - lost) / (1 - lost).sum(), atol=1e-9)


def test_meamed_takes_the_smaller_of_two_values_equally_far() -> None:
    for n, f in [(4, 1), (7, 2), (8, 3), (60, 9)]:
        rows = np.random.default_rng(n).integers(-3, 4, (n, 200)).astype(np.float64)
        np.testing.assert_allclose(Meamed(f)(rows).vector, oracles.meamed(rows, f), atol=1e-12)
    assert Meamed(1)(np.array([[1.0], [3.0]] * 2 + [[2.0]])).vector == pytest.approx([1.75])


@pytest.mark.parametrize("rule", [TrimmedMean(2), GeometricMedian(2)], ids=str)
def test_the_heaviest_rows_may_hold_just_less_than_half(rule: Rule) -> None:
    rows = rows_of(n=8)
    rule(rows, weights=np.array([2.95, 2.95, 1, 1, 1, 1, 1, 1]))  # 0.4958 of all
    for heavy in (3.0, 3.4):  # 0.5 and 0.53
        weights = np.array([heavy, 1, 1, 1, heavy, 1, 1, 1])
        with pytest.raises(ConfigError, match=r"the 2 heaviest rows hold 0\.5"):
            rule(rows, weights=weights)


def test_weighted_trimming_cuts_through_rows() -> None:
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    weights = np.array([1.0, 1.0, 1.0, 1.0, 1.5])
    # Each end loses 1.5 of 5.5: the row at 0 and half of that at 1, and all of that at 4.
    found = TrimmedMean(1)(rows, weights=weights)
    np.testing.assert_allclose(found.vector, [(0.5 * 1 + 2 + 3) / 2.5])


@pytest.mark.parametrize("diagnose", [True, False])
@pytest.mark.parametrize("rule", [Mean(1), Median(), TrimmedMean(1), Krum(1)], ids=str)
def test_entries_beyond_1e140_count_as_not_finite(rule: Rule, diagnose: bool) -> None:
    for entry, usable in [(1e139, True), (-1e141, False), (1e150, False), (1e200, False)]:
        rows = rows_of(n=7)
        rows[2, 1] = entry
        found = rule(rows, diagnose=diagnose)
        assert np.isfinite(found.vector).all()
        assert list(found.diagnostics.excluded) == ([] if usable else [2])
    rows[2, 1], rows[3, 1] = 1e150, -1e150
    with pytest.raises(TooManyFaults):
        TrimmedMean(1)(rows)


def test_a_row_that_points_the_other_way_has_cosine_minus_one() -> None:
    rows = np.ones((5, 3))
    rows[1], rows[2] = -2, [1, -1, 0]
    told = Median()(rows).diagnostics
    np.testing.assert_allclose(told.cosines, [1, -1, 0, 1, 1], atol=1e-12)
    np.testing.assert_allclose(told.distances[1], 3 * math.sqrt(3))


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_fltrust_takes_rows_of_any_length(size: float) -> None:
    rows, root = rows_of(), np.ones(7)
    found = FlTrust(0)(rows * size, reference=root)
    np.testing.assert_allclose(found.vector, FlTrust(0)(rows, reference=root).vector, rtol=1e-9)


@pytest.mark.parametrize(("far", "suspect"), [(2.1, True), (1.9, False)])
def test_who_is_more_than_twice_as_far_as_the_median_row_is_suspect(
    far: float, suspect: bool
) -> None:
    rows = np.array([[0.0], [-1.0], [1.0], [-1.0], [1.0], [-1.0], [far]])
    assert [s.row for s in Median()(rows).suspects] == ([6] if suspect else [])


def test_rounding_makes_nobody_suspect() -> None:
    rows = np.ones((9, 3000), np.float32)
    rows += np.float32(1e-7) * np.random.default_rng(0).integers(-2, 3, (9, 3000))
    rows[4, 5:9] += np.float32(3e-4)
    found = Median()(rows)
    assert found.diagnostics.distances.max() > 2 * np.median(found.diagnostics.distances)
    assert not found.suspects


def test_fltrust_does_not_ask_a_row_of_rounding_where_it_points() -> None:
    rows = rows_of()
    rows[0] = 1e-40
    weights = FlTrust(0)(rows, reference=np.ones(7)).weights
    assert weights is not None
    assert weights[0] == 0


def test_rules_that_start_at_a_reference_measure_in_float64() -> None:
    """A reference amid near rows: products in float32 would not tell who is near to it."""
    root = np.random.default_rng(1).standard_normal(3000)
    rows = (root + 1e-4 * np.random.default_rng(2).standard_normal((12, 3000))).astype(np.float32)
    rows[:2] += np.float32(1e-3)
    reference = root.astype(np.float32)
    for rule in (CenteredClipping(2, radius=4e-3, iterations=3), Monna(2)):
        for before in ((), (Nnm(2),)):
            pipeline = Pipeline(rule, before)
            found = pipeline(rows, reference=reference)
            exact = pipeline(rows.astype(np.float64), reference=reference)
            np.testing.assert_allclose(found.vector, exact.vector, atol=1e-6)
            assert found.weights is not None
            assert exact.weights is not None
            np.testing.assert_allclose(found.weights, exact.weights, atol=1e-6)
    assert CenteredClipping(2, radius=1.0)(rows, reference=reference).diagnostics.gram == "float64"


def test_a_reference_next_to_a_row_is_measured_in_float64() -> None:
    """Rows far from each other, of which float32 tells the distances, but not that to the reference."""
    rows = np.random.default_rng(0).standard_normal((12, 3000)).astype(np.float32)
    near = 1e-4 * np.random.default_rng(1).standard_normal(3000)
    reference = rows[4] + near
    rule = CenteredClipping(2, radius=float(np.linalg.norm(near)) / 2)
    assert Krum(2)(rows).diagnostics.gram == "float32"
    weights = rule(rows, reference=reference).weights
    assert weights is not None
    assert weights[4] == pytest.approx(0.5 / 12, rel=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_geometric_median_takes_smoothed_steps_from_the_origin(steps: int) -> None:
    rows = rows_of()
    rows[0] = 0.01
    point = np.zeros(7)
    for _ in range(steps):
        gaps = [max(0.5, float(np.linalg.norm(row - point))) for row in rows]
        point = np.average(rows, axis=0, weights=1 / np.array(gaps))
    found = GeometricMedian(2, smoothing=0.5, iterations=steps)(rows)
    np.testing.assert_allclose(found.vector, point, atol=1e-9)


def test_rows_left_out_of_cheap_products_stay_left_out_of_accurate_ones() -> None:
    rows = (1 + 1e-4 * rows_of(n=9, d=4000)).astype(np.float32)
    rows[3, 7] = np.nan
    found = Krum(2)(rows)
    assert found.diagnostics.gram == "float64"
    assert found.diagnostics.excluded == {3: "is not finite"}


def test_monna_measures_mixed_rows_from_the_reference() -> None:
    rows = rows_of(n=15)
    rows[:2] *= -1
    root = rows_of(1, n=1)[0]
    mixed = premix((Nnm(2),), rows).rows
    gaps = ((mixed - root) ** 2).sum(axis=1)
    near = mixed[np.argsort(gaps)[:13]]
    found = Pipeline(Monna(2), (Nnm(2),))(rows, reference=root)
    np.testing.assert_allclose(found.vector, (near.sum(axis=0) + root) / 14, atol=1e-12)
    assert found.diagnostics.scores is not None
    np.testing.assert_allclose(found.diagnostics.scores, gaps, atol=1e-9)


def test_monna_refuses_a_trusted_row_that_counts_as_zeros() -> None:
    rows = rows_of()
    rows[4, 0] = np.nan
    with pytest.raises(ConfigError, match="Monna trusts row 4, which is not finite"):
        Monna(2, trusted=4)(rows, unusable="zero")


def test_scores_are_told_where_mixed_rows_stand_for_rows() -> None:
    rows = rows_of(n=30)
    rows[3] *= 9
    for rule in (MultiKrum(2), GeometricMedian(2), Dnc(2), Caf(2)):
        mixed = Pipeline(rule, (Nnm(2),))(rows).diagnostics.scores
        alone = rule(premix((Nnm(2),), rows).rows).diagnostics.scores
        assert mixed is not None
        assert alone is not None
        np.testing.assert_allclose(mixed, alone, atol=1e-6)
        buckets = Pipeline(rule, (Bucketing(2),))(rows, rng=np.random.default_rng(0))
        assert buckets.diagnostics.scores is None


def test_a_clip_in_front_is_no_worse_than_the_clip_of_the_rows() -> None:
    for norm, expected in [(5.0, 0.2), (0.5, 0.1)]:
        chain = Pipeline(Mean(), (Clip(norm),))
        assert chain.sensitivity(1.0, 10, "replace-one") == pytest.approx(expected)


def test_bulyan_tells_in_which_turn_it_picked_each_row() -> None:
    rows = rows_of(n=13)
    rows[:2] *= 6
    found = Bulyan(2)(rows)
    left, picked = list(range(13)), []
    for _ in range(9):
        order = oracles.krum_order(rows[left], max(1, len(left) - 4))
        picked.append(left.pop(order[0]))
    expected = np.full(13, 9.0)
    expected[picked] = np.arange(9)
    scores = found.diagnostics.scores
    assert scores is not None
    assert scores.tolist() == expected.tolist()
    assert scores[:2].tolist() == [9, 9]
    assert found.weights is None


def test_bulyan_tells_nothing_of_rows_that_buckets_mixed() -> None:
    rows = rows_of(n=30)
    mixed = Pipeline(Bulyan(2), (Nnm(2),))(rows).diagnostics.scores
    assert mixed is not None
    assert sorted(set(mixed)) == list(range(27))
    buckets = Pipeline(Bulyan(2), (Bucketing(2),))(rows, rng=np.random.default_rng(0))
    assert buckets.diagnostics.scores is None
