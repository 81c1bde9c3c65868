"""Each rule against its paper's formula, and what is its own."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ConfigError
from fedsec.robust import (
    Bucketing,
    Bulyan,
    Caf,
    CenteredClipping,
    Cge,
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
    TrimmedMean,
)
from fedsec.robust.engine import premix
from fedsec.robust.shares import cap_shares
from fedsec.robust.weighing import top_eigenpair
from tests.robust import oracles
from tests.robust.cases import rows_of

Oracle = Callable[[oracles.Doubles, int], oracles.Doubles]
PAPERS: dict[str, tuple[Callable[[int], Rule], Oracle]] = {
    "mean": (Mean, oracles.mean),
    "median": (lambda _: Median(), oracles.median),
    "trimmed mean": (TrimmedMean, oracles.trimmed_mean),
    "meamed": (Meamed, oracles.meamed),
    "krum": (Krum, oracles.krum),
    "multi-krum": (MultiKrum, oracles.multi_krum),
    "bulyan": (Bulyan, oracles.bulyan),
    "geometric median": (
        lambda f: GeometricMedian(f, iterations=2000), oracles.geometric_median
    ),
    "monna": (lambda f: Monna(f, trusted=0), oracles.monna),
    "cge": (Cge, oracles.cge),
    "caf": (Caf, oracles.caf),
    "dnc": (Dnc, oracles.dnc),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
@given(seed=st.integers(0, 2**32 - 1), f=st.integers(1, 3), extra=st.integers(0, 4))
def test_rules_match_their_papers(name: str, seed: int, f: int, extra: int) -> None:
    make, paper = PAPERS[name]
    rows = rows_of(seed, n=4 * f + 3 + extra, d=5)
    rows[:f] *= 3
    slack = 1e-5 if name == "geometric median" else 1e-9
    np.testing.assert_allclose(make(f)(rows).vector, paper(rows, f), atol=slack)


@pytest.mark.parametrize("n", [65, 66, 80])
@pytest.mark.parametrize("name", ["median", "trimmed mean", "meamed"])
def test_coordinate_rules_match_their_papers_where_columns_are_sorted(name: str, n: int) -> None:
    make, paper = PAPERS[name]
    rows = rows_of(n, n=n, d=40)
    np.testing.assert_allclose(make(13)(rows).vector, paper(rows, 13), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_are_sorted_a_part_at_a_time(dtype: str) -> None:
    rows = rows_of(n=50, d=5001).astype(dtype)
    ranked = np.sort(rows.astype(np.float64), axis=0)
    slack = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(TrimmedMean(10)(rows).vector, ranked[10:40].mean(axis=0), atol=slack)
    np.testing.assert_allclose(Median()(rows).vector, ranked[24:26].mean(axis=0), atol=slack)
    low = Meamed(10)(rows).vector
    np.testing.assert_allclose(low[4000:4010], oracles.meamed(rows[:, 4000:4010], 10), atol=slack)


@given(seed=st.integers(0, 2**32 - 1), f=st.integers(0, 3), extra=st.integers(1, 4))
def test_minimum_diameter_is_minimal(seed: int, f: int, extra: int) -> None:
    rows = rows_of(seed, n=2 * f + extra, d=3)
    weights = MinimumDiameter(f)(rows).weights
    assert weights is not None
    kept = rows[weights > 0]
    assert len(kept) == len(rows) - f
    assert oracles.diameter(kept) == pytest.approx(oracles.minimum_diameter(rows, f))


@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 4), moved=st.booleans())
def test_centred_clipping_matches_its_paper(seed: int, steps: int, moved: bool) -> None:
    rows = rows_of(seed)
    start = rows_of(seed + 1, n=1)[0] if moved else None
    found = CenteredClipping(2, radius=1.5, iterations=steps)(rows, reference=start)
    expected = oracles.centered_clipping(rows, 1.5, steps, start)
    np.testing.assert_allclose(found.vector, expected, atol=1e-9)
    assert found.weights is not None
    left = 1 - found.weights.sum() if moved else 0.0
    rebuilt = found.weights @ rows + (left * start if start is not None else 0.0)
    np.testing.assert_allclose(found.vector, rebuilt, atol=1e-9)


def test_centred_clipping_is_one_object_for_any_size() -> None:
    rule = CenteredClipping(1, radius=1.0)
    assert rule(rows_of(d=3)).vector.shape == (3,)
    assert rule(rows_of(d=9)).vector.shape == (9,)


@given(seed=st.integers(0, 2**32 - 1))
def test_fltrust_matches_its_paper(seed: int) -> None:
    rows, root = rows_of(seed), rows_of(seed + 1, n=1)[0]
    rows[0] *= -5
    found = FlTrust(2)(rows, reference=root)
    np.testing.assert_allclose(found.vector, oracles.fltrust(rows, root), atol=1e-9)


def test_fltrust_without_a_friend_goes_nowhere() -> None:
    rows = rows_of()
    found = FlTrust(0)(rows, reference=-np.ones(7))
    assert not found.vector.any()
    assert found.weights is not None
    assert not found.weights.any()


def test_krum_with_other_neighbours_is_an_explicit_choice() -> None:
    rows = rows_of(4)
    scores = Krum(2, neighbours=8)(rows).diagnostics.scores
    assert scores is not None
    np.testing.assert_allclose(scores, oracles.krum_scores(rows, 8))
    np.testing.assert_allclose(
        MultiKrum(2, keep=9)(rows).vector, oracles.multi_krum(rows, 2, keep=9)
    )


def test_dnc_draws_from_the_given_source_only() -> None:
    rows = rows_of(d=300)
    rule = Dnc(2, sample=20, iterations=2)
    first = rule(rows, rng=np.random.default_rng(1))
    again = rule(rows, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(first.vector, again.vector)
    with pytest.raises(ConfigError, match="give rng"):
        rule(rows)


@given(seed=st.integers(0, 2**32 - 1), f=st.integers(0, 3))
def test_monna_trusts_a_reference_as_if_it_were_one_of_the_rows(seed: int, f: int) -> None:
    rows, root = rows_of(seed), rows_of(seed + 1, n=1)[0]
    rows[:f] *= -5
    found = Monna(f)(rows, reference=root)
    among = Monna(f, trusted=len(rows))(np.vstack([rows, root]))
    np.testing.assert_allclose(found.vector, among.vector, atol=1e-9)
    assert found.weights is not None
    np.testing.assert_allclose(
        found.weights @ rows + (1 - found.weights.sum()) * root, found.vector, atol=1e-9
    )


@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_monna_goes_by_what_was_mixed_before(spread: float) -> None:
    """Near each other, products in float32 would not tell who is near the reference."""
    rows = 1 + spread * np.random.default_rng(3).standard_normal((12, 200))
    root = 1 + spread * np.random.default_rng(4).standard_normal(200)
    rows[:2] += 10 * spread
    low = rows.astype(np.float32)
    mixed = premix((Nnm(2),), low.astype(np.float64), byzantine=2).rows
    gaps = ((mixed - root) ** 2).sum(axis=1)
    nearest = np.argsort(gaps)[:10]
    found = Pipeline(Monna(2), (Nnm(2),))(low, reference=root)
    wanted = (mixed[nearest].sum(axis=0) + root) / 11
    np.testing.assert_allclose(found.vector, wanted, atol=1e-6 * max(spread, 0.1))


def test_monna_is_told_whom_to_trust() -> None:
    rows, root = rows_of(), rows_of(1, n=1)[0]
    with pytest.raises(ConfigError, match="Monna needs reference: the update of the root data, or"):
        Monna(2)(rows)
    with pytest.raises(ConfigError, match="Monna takes no reference beside a trusted row"):
        Monna(2, trusted=1)(rows, reference=root)
    buckets = Bucketing(size=2, byzantine=1)
    found = Pipeline(Monna(1), (buckets,))(rows, reference=root, rng=np.random.default_rng(0))
    assert np.isfinite(found.vector).all()


def test_monna_refuses_an_unusable_trusted_row() -> None:
    rows = rows_of()
    rows[4, 0] = np.nan
    with pytest.raises(ConfigError, match="Monna trusts row 4, which is not finite"):
        Monna(2, trusted=4)(rows)


def test_byzantine_as_a_share_or_as_numpys_integer() -> None:
    rows = rows_of()
    counted = TrimmedMean(2)(rows).vector
    np.testing.assert_array_equal(TrimmedMean(0.2)(rows).vector, counted)
    np.testing.assert_array_equal(TrimmedMean(np.int64(2))(rows).vector, counted)


WRONG: list[tuple[Callable[[], Rule], str]] = [
    (lambda: TrimmedMean(-1), "byzantine must be >= 0, got -1"),
    (lambda: TrimmedMean(0.5), r"must be in \[0, 0.5\), got 0.5"),
    (lambda: MultiKrum(1, keep=0), "keep must be >= 1, got 0"),
    (lambda: Krum(1, neighbours=0), "neighbours must be >= 1, got 0"),
    (lambda: GeometricMedian(1, smoothing=0.0), "smoothing must be finite and > 0"),
    (lambda: GeometricMedian(1, iterations=0), "iterations must be >= 1"),
    (lambda: Monna(1, trusted=-1), "trusted must be >= 0"),
    (lambda: Dnc(1, sample=0), "sample must be >= 1"),
    (lambda: CenteredClipping(1, radius=float("inf")), "radius must be finite and > 0"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_parameters_out_of_range_are_refused(make: Callable[[], Rule], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_krum_refuses_to_keep_or_compare_too_many() -> None:
    with pytest.raises(ConfigError, match="keep must be <= n-f = 9, got 10"):
        MultiKrum(2, keep=10)(rows_of())
    with pytest.raises(ConfigError, match="neighbours must be <= n-f-1 = 8, got 9"):
        Krum(2, neighbours=9)(rows_of())


def weighted(rows: oracles.Doubles, shares: oracles.Doubles, trim: float) -> oracles.Doubles:
    """Each value as 1000 copies per unit of share; trims copies."""
    out = []
    for column in rows.T:
        copies = sorted(
            value for value, share in zip(column, shares, strict=True)
            for _ in range(round(1000 * share))
        )  # fmt: skip
        cut = round(1000 * trim)
        out.append(float(np.mean(copies[cut : len(copies) - cut])))
    return np.array(out)


def test_weights_count_in_the_three_rules_that_take_them() -> None:
    rows = rows_of(n=5)
    weights = np.array([1.0, 2.0, 3.0, 2.0, 2.0])
    shares = weights / 10
    np.testing.assert_allclose(Mean()(rows, weights=weights).vector, shares @ rows)
    trimmed = TrimmedMean(1)(rows, weights=weights).vector
    np.testing.assert_allclose(trimmed, weighted(rows, shares, 0.3))
    median = GeometricMedian(1, iterations=2000)(rows, weights=weights).vector
    gaps = rows - median
    pull = (shares / np.linalg.norm(gaps, axis=1)) @ gaps
    np.testing.assert_allclose(pull, 0, atol=1e-6)


def test_equal_weights_change_nothing() -> None:
    rows = rows_of()
    for rule in (Mean(), TrimmedMean(2), GeometricMedian(2)):
        alike = rule(rows, weights=np.full(11, 7.0)).vector
        np.testing.assert_allclose(alike, rule(rows).vector, atol=1e-12)


def test_no_claim_buys_more_than_the_cap() -> None:
    weights = np.array([1.0, 1.0, 1.0, 1e12])
    assert cap_shares(weights, 1.5).tolist() == pytest.approx([0.625 / 3] * 3 + [0.375])
    assert cap_shares(np.array([5.0]), 1.0).tolist() == [1.0]
    assert cap_shares(weights, 1.0).tolist() == pytest.approx([0.25] * 4)
    assert cap_shares(np.array([5e-324, 1e308]), 1.0).tolist() == pytest.approx([0.5, 0.5])
    rows = rows_of(n=4)
    found = Mean()(rows, weights=weights, weight_cap=1.5)
    assert found.weights is not None
    assert found.weights.max() == pytest.approx(0.375)


@given(
    claims=st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=12),
    cap=st.floats(1, 5),
)
def test_capped_shares_sum_to_one_and_keep_their_order(claims: list[float], cap: float) -> None:
    weights = np.array(claims)
    shares = cap_shares(weights, cap)
    assert shares.sum() == pytest.approx(1)
    assert shares.max() <= cap / len(claims) * (1 + 1e-9)
    assert (np.diff(shares[np.argsort(weights)]) >= -1e-12).all()


BAD_WEIGHTS = [
    (np.ones(10), "one for each of 11 rows"),
    (np.zeros(11), "finite number > 0"),
    (np.full(11, np.nan), "finite number > 0"),
]


@pytest.mark.parametrize(("weights", "message"), BAD_WEIGHTS)
def test_bad_weights_are_refused(weights: oracles.Doubles, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mean()(rows_of(), weights=weights)
    with pytest.raises(ConfigError, match="weight_cap must be >= 1"):
        Mean()(rows_of(), weights=np.ones(11), weight_cap=0.5)


def test_options_that_do_not_go_with_a_rule_are_refused_by_name() -> None:
    rows = rows_of()
    for rule, options, message in [
        (Krum(2), {"weights": np.ones(11)}, "Krum takes no weights"),
        (Mean(2), {"weights": np.ones(11), "unusable": "zero"}, "neither with before"),
        (Mean(2), {"reference": np.ones(7)}, "Mean takes no reference"),
        (FlTrust(2), {}, "FlTrust needs reference"),
        (FlTrust(2), {"reference": np.ones(8)}, r"one vector \(7,\) .*got shape \(8,\)"),
        (FlTrust(2), {"reference": np.full(7, np.inf)}, "one vector"),
        (FlTrust(2), {"reference": np.full(7, 1e160)}, r"entries below 1e\+140"),
        (Mean(2), {"unusable": "keep"}, "unusable must be 'drop' or 'zero'"),
        (Mean(2), {"threads": 0}, "threads must be >= 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            rule(rows, **options)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("scale", [1.0, 1e5, 1e9])
@pytest.mark.parametrize("n", [11, 50])
def test_one_row_at_the_start_does_not_hold_the_geometric_median(n: int, scale: float) -> None:
    """Its weight is nearly 1 at first, and those of the others must grow by ten powers of ten."""
    rows = np.random.default_rng(0).normal(1.0, 1.0, size=(n, 5))
    rows[0] = 0
    found = GeometricMedian(2)(rows * scale)
    assert found.weights is not None
    assert found.weights[0] < 0.2
    honest = rows[1:].mean(axis=0)
    assert np.linalg.norm(found.vector / scale - honest) < 0.5 * np.linalg.norm(honest)


def test_heaviest_rows_may_not_hold_half_of_the_weight() -> None:
    weights = np.array([50.0, 50.0, 1.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match="the 2 heaviest rows hold"):
        GeometricMedian(2)(rows_of(n=5), weights=weights)
    with pytest.raises(ConfigError, match="the 2 heaviest rows hold"):
        TrimmedMean(2)(rows_of(n=5), weights=weights)


def test_far_rows_are_suspect_and_near_ones_are_not() -> None:
    rows = rows_of(n=12, d=1000)
    assert not Median()(rows).suspects
    rows[5] *= -10
    suspects = Median()(rows).suspects
    assert [suspect.row for suspect in suspects] == [5]
    assert "times as far as the median row" in suspects[0].reason


def test_without_diagnostics_the_result_is_the_same() -> None:
    rows = rows_of(n=12, d=1000)
    for rule in (Mean(1), Median(), Krum(1), CenteredClipping(1, radius=1.0)):
        whole, bare = rule(rows), rule(rows, diagnose=False)
        np.testing.assert_array_equal(bare.vector, whole.vector)
        assert np.isnan(bare.diagnostics.cosines).all()
        assert not bare.suspects
    weights = np.arange(1.0, 13.0)
    np.testing.assert_array_equal(
        Mean()(rows, weights=weights, diagnose=False).vector, Mean()(rows, weights=weights).vector
    )


def test_without_diagnostics_unusable_rows_are_named_all_the_same() -> None:
    rows = rows_of(n=12, d=1000)
    rows[3, 7] = np.inf
    bare = Mean(1)(rows, diagnose=False)
    assert [suspect.row for suspect in bare.suspects] == [3]
    np.testing.assert_allclose(bare.vector, np.delete(rows, 3, axis=0).mean(axis=0))
    misshapen = [*rows[4:], rows[0][1:]]
    assert [s.row for s in Mean(1)(misshapen, diagnose=False).suspects] == [8]


@pytest.mark.parametrize("m", [1, 2, 199, 201, 400])
@pytest.mark.parametrize("kind", ["chance", "narrow", "tied", "zero", "negative"])
def test_the_top_eigenpair_is_exact_and_always_the_same(m: int, kind: str) -> None:
    draws = np.random.default_rng(m).normal(size=(m, m + 5))
    matrix = {
        "chance": draws @ draws.T,
        "narrow": np.outer(draws[:, 0], draws[:, 0]),
        "tied": np.eye(m),
        "zero": np.zeros((m, m)),
        "negative": -draws @ draws.T,
    }[kind]
    value, vector = top_eigenpair(matrix)
    scale = np.abs(matrix).max() * m + 1e-300
    assert value == pytest.approx(np.linalg.eigvalsh(matrix)[-1], abs=1e-9 * scale)
    np.testing.assert_allclose(matrix @ vector, value * vector, atol=1e-7 * scale)
    assert np.linalg.norm(vector) == pytest.approx(1)
    np.testing.assert_array_equal(top_eigenpair(matrix)[1], vector)


@pytest.mark.parametrize("size", [1 << 10, 1 << 19])
def test_a_sum_does_not_depend_on_the_number_of_threads(size: int) -> None:
    """Below and above the size at which it is one product."""
    rows = np.random.default_rng(size).normal(size=(10, size)).astype(np.float32)
    one, two = (Mean()(rows, threads=threads, diagnose=False).vector for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    wanted = rows.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(one, wanted, atol=1e-6)
