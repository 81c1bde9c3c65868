"""What every row of the tables promises, whatever it does inside."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.robust import (
    PREMIXES,
    RULES,
    Bucketing,
    Caf,
    CenteredClipping,
    Cge,
    Dnc,
    FlTrust,
    GeometricMedian,
    Meamed,
    Mean,
    Median,
    MinimumDiameter,
    Monna,
    Pipeline,
    Premix,
    Rule,
    TooManyFaults,
    TrimmedMean,
)
from fedsec.robust.table import PremixEntry, RuleEntry
from tests.robust import cases
from tests.robust.cases import F, N, options_for, rows_of

EACH = pytest.mark.parametrize("rule", cases.RULES.values(), ids=cases.RULES)
EACH_PREMIX = pytest.mark.parametrize("stage", cases.PREMIXES.values(), ids=cases.PREMIXES)
DTYPES = ["float16", "float32", "float64"]


def mixed(stage: Premix, rows: NDArray[Any]) -> NDArray[Any]:
    """The stage in front of a mean, which shows any fault in its rows."""
    return Pipeline(Mean(F), (stage,))(rows, rng=np.random.default_rng(0)).vector


def test_every_row_of_the_tables_is_put_to_the_test() -> None:
    assert {name: entry.made_by for name, entry in RULES.items()} == {
        name: type(rule) for name, rule in cases.RULES.items()
    }
    assert {name: entry.made_by for name, entry in PREMIXES.items()} == {
        name: type(stage) for name, stage in cases.PREMIXES.items()
    }


@EACH
def test_order_of_rows_does_not_matter(rule: Rule) -> None:
    rows = rows_of()
    turned = np.concatenate([rows[np.random.default_rng(3).permutation(N - 1)], rows[-1:]])
    there = rule(rows, **options_for(rule))
    back = rule(turned, **options_for(rule))
    np.testing.assert_allclose(back.vector, there.vector, rtol=1e-6, atol=1e-9)


TRANSLATES = [name for name in cases.RULES if name not in {"cge", "fltrust", "centered-clipping"}]


@pytest.mark.parametrize("name", TRANSLATES)
def test_moving_all_rows_moves_the_result(name: str) -> None:
    rule, rows, move = cases.RULES[name], rows_of(), np.linspace(-2, 2, cases.D)
    loose = 1e-5 if name == "geometric-median" else 1e-9
    np.testing.assert_allclose(rule(rows + move).vector, rule(rows).vector + move, atol=loose)


SCALES = [name for name in cases.RULES if name not in {"centered-clipping", "fltrust"}]


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_scaling_all_rows_scales_the_result(name: str, factor: float) -> None:
    rule, rows = cases.RULES[name], rows_of()
    np.testing.assert_allclose(rule(rows * factor).vector, rule(rows).vector * factor, rtol=1e-4)


@EACH
@pytest.mark.parametrize("value", [0.0, 0.25, -0.0, 1e-42])
def test_equal_rows_give_that_row(rule: Rule, value: float) -> None:
    rows = np.full((N, cases.D), value, np.float32)
    options = options_for(rule)
    if "reference" in options:
        options["reference"] = rows[0]
    found = rule(rows, **options)
    np.testing.assert_allclose(found.vector, rows[0], rtol=1e-6, atol=1e-44)
    assert not found.suspects


BAD = {
    "nan": np.nan,
    "inf": np.inf,
    "minus inf": -np.inf,
}


@EACH
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@pytest.mark.parametrize("everywhere", [True, False], ids=["all entries", "one entry"])
def test_rows_that_are_not_finite_are_left_out_and_named(
    rule: Rule, value: float, everywhere: bool
) -> None:
    rows = rows_of().astype(np.float32)
    rows[1 : F + 1, slice(None) if everywhere else 3] = value
    found = rule(rows, **options_for(rule))
    assert np.isfinite(found.vector).all()
    assert found.diagnostics.excluded == {1: "is not finite", 2: "is not finite"}
    assert [s.row for s in found.suspects if s.reason == "is not finite"] == [1, 2]
    assert np.isnan(found.diagnostics.norms[1:3]).all()
    if found.weights is not None:
        assert not found.weights[1:3].any()


@EACH
def test_more_unusable_rows_than_byzantine_are_an_error(rule: Rule) -> None:
    rows = rows_of()
    allowed = F if hasattr(rule, "byzantine") else (N - 1) // 2
    rows[: allowed + 1, 0] = np.nan
    with pytest.raises(TooManyFaults, match="row 0: is not finite") as caught:
        rule(rows, **options_for(rule))
    assert (caught.value.allowed, caught.value.rows) == (allowed, N)
    assert list(caught.value.excluded) == list(range(allowed + 1))


@EACH
def test_rows_of_another_shape_or_dtype_are_left_out_and_named(rule: Rule) -> None:
    rows: list[NDArray[Any]] = list(rows_of())
    rows[0] = rows[0][:-1]
    rows[4] = rows[4].astype(np.float32)
    found = rule(rows, **options_for(rule))
    assert set(found.diagnostics.excluded) == {0, 4}
    assert "has shape (6,)" in found.diagnostics.excluded[0]
    assert "dtype float32" in found.diagnostics.excluded[4]
    good = np.delete(rows_of(), [0, 4], axis=0)
    assert good.min() <= found.vector.min() <= found.vector.max() <= good.max()


ROBUST = [name for name in cases.RULES if name not in {"mean", "centered-clipping", "fltrust"}]


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("value", [1e6, 1e12, 1e30, -1e30, 3e38])
def test_huge_rows_never_reach_the_result(name: str, value: float) -> None:
    rows = rows_of(d=50).astype(np.float32)
    rows[:F] = value
    found = cases.RULES[name](rows)
    honest = rows[F:]
    assert (honest.min(axis=0) - 0.2 <= found.vector).all()
    assert (found.vector <= honest.max(axis=0) + 0.2).all()
    assert {0, 1} <= {suspect.row for suspect in found.suspects}


@pytest.mark.parametrize("value", [-0.0, 1e-42, 1e-30])
@EACH
def test_tiny_rows_are_rows_like_others(rule: Rule, value: float) -> None:
    rows = rows_of().astype(np.float32)
    rows[:F] = value
    found = rule(rows, **options_for(rule))
    assert np.isfinite(found.vector).all()
    assert not found.diagnostics.excluded


@EACH
@pytest.mark.parametrize("dtype", DTYPES)
def test_input_is_not_written_to_and_dtype_stays(rule: Rule, dtype: str) -> None:
    rows = rows_of().astype(dtype)
    rows[0, 0] = np.nan
    rows[1] = 3e4
    kept = rows.tobytes()
    found = rule(rows, **options_for(rule))
    assert rows.tobytes() == kept
    assert found.vector.dtype == dtype
    rows.flags.writeable = False
    np.testing.assert_array_equal(rule(rows, **options_for(rule)).vector, found.vector)


@EACH
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_lower_precision_agrees_with_float64(rule: Rule, dtype: str) -> None:
    rows = rows_of().astype(dtype)
    low = rule(rows, **options_for(rule)).vector
    high = rule(rows.astype(np.float64), **options_for(rule)).vector
    np.testing.assert_allclose(low, high, atol=2e-6 if dtype == "float32" else 4e-3)


@EACH
def test_same_input_gives_the_same_bits_with_any_number_of_threads(rule: Rule) -> None:
    rows = rows_of(d=200_000).astype(np.float32)
    state = str(np.random.get_state())  # noqa: NPY002 - it must not change
    found = [
        rule(
            rows,
            **options_for(rule, 200_000, rng=np.random.default_rng(5), threads=threads),
        ).vector
        for threads in (1, 1, 2, 3)
    ]
    assert {vector.tobytes() for vector in found} == {found[0].tobytes()}
    assert state == str(np.random.get_state())  # noqa: NPY002 - the same


@EACH
def test_weights_and_diagnostics_say_how_the_result_came_about(rule: Rule) -> None:
    rows = rows_of()
    found = rule(rows, **options_for(rule))
    told = found.diagnostics
    if found.weights is not None and not isinstance(rule, CenteredClipping):
        np.testing.assert_allclose(found.weights @ rows, found.vector, atol=1e-12)
        if not isinstance(rule, FlTrust):
            assert found.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(told.norms, np.linalg.norm(rows, axis=1))
    np.testing.assert_allclose(
        told.distances, np.linalg.norm(rows - found.vector, axis=1), atol=1e-6
    )
    cosines = rows @ found.vector / np.linalg.norm(found.vector) / told.norms
    np.testing.assert_allclose(told.cosines, cosines)
    if told.scores is not None:
        assert np.isfinite(told.scores).all()


@EACH
def test_separate_rows_and_a_matrix_give_the_same(rule: Rule) -> None:
    rows = rows_of(d=3000).astype(np.float32)
    options = options_for(rule, 3000)
    np.testing.assert_array_equal(rule(list(rows), **options).vector, rule(rows, **options).vector)


@EACH
def test_too_few_rows_are_refused_and_the_least_number_is_not(rule: Rule) -> None:
    least = next(n for n in range(1, 50) if _accepts(rule, n))
    assert not any(_accepts(rule, n) for n in range(1, least))
    rule(rows_of(n=max(least, N)), **options_for(rule))
    if least > 1:
        with pytest.raises(ConfigError, match=r"too few|one of the rows|must be"):
            rule(rows_of(n=least - 1), **options_for(rule))


def _accepts(rule: Rule, n: int) -> bool:
    try:
        rule.check(n)
    except ConfigError:
        return False
    return True


@EACH
def test_weights_are_taken_or_refused_by_name(rule: Rule) -> None:
    rows, weights = rows_of(), np.full(N, 3.0)
    if rule.weighted:
        alike = rule(rows).vector
        np.testing.assert_allclose(rule(rows, weights=weights).vector, alike, atol=1e-9)
        return
    with pytest.raises(
        ConfigError, match=f"{type(rule).__name__} takes no weights; these do: Mean"
    ):
        rule(rows, **options_for(rule, weights=weights))


@EACH
def test_one_column(rule: Rule) -> None:
    rows = rows_of(d=1)
    assert rule(rows, **options_for(rule, 1)).vector.shape == (1,)


WITHOUT_FAULTS = [
    Mean(), Median(), TrimmedMean(0), Meamed(0), GeometricMedian(0),
    MinimumDiameter(0), Monna(0, trusted=0), CenteredClipping(0, radius=99.0),
    Cge(0), Caf(0), Dnc(0), FlTrust(0),
]  # fmt: skip


@pytest.mark.parametrize("rule", WITHOUT_FAULTS, ids=lambda rule: type(rule).__name__)
def test_a_single_row_is_its_own_aggregate(rule: Rule) -> None:
    row = np.array([[1.0, -2.0, 0.5]])
    options = options_for(rule, 3)
    if "reference" in options:
        options["reference"] = row[0]
    np.testing.assert_allclose(rule(row, **options).vector, row[0], rtol=1e-6)


@EACH
def test_unusable_rows_can_count_as_zero_rows(rule: Rule) -> None:
    rows = rows_of().astype(np.float32)
    zeroed = rows.copy()
    rows[3, 2], zeroed[3] = np.inf, 0.0
    found = rule(rows, **options_for(rule, unusable="zero"))
    expected = rule(zeroed, **options_for(rule))
    np.testing.assert_allclose(found.vector, expected.vector, atol=1e-6)
    assert list(found.diagnostics.excluded) == [3]
    assert np.isnan(found.diagnostics.norms[3])


@EACH_PREMIX
def test_premixes_leave_their_input_alone_and_are_repeatable(stage: Premix) -> None:
    rows = rows_of().astype(np.float32)
    kept = rows.tobytes()
    assert mixed(stage, rows).tobytes() == mixed(stage, rows).tobytes()
    assert rows.tobytes() == kept


@EACH_PREMIX
@pytest.mark.parametrize("name", cases.RULES)
def test_every_premix_goes_before_every_rule(stage: Premix, name: str) -> None:
    rule = cases.RULES[name]
    pipeline = Pipeline(rule, (stage,))
    rows = rows_of(n=25, d=40).astype(np.float32)
    rows[0, 0] = np.nan
    if name == "monna" and isinstance(stage, Bucketing):
        with pytest.raises(ConfigError, match="Monna needs the trusted row"):
            pipeline(rows, rng=np.random.default_rng(0))
        return
    found = pipeline(rows, **options_for(rule, 40, rng=np.random.default_rng(0)))
    assert found.vector.shape == (40,)
    assert np.isfinite(found.vector).all()
    assert list(found.diagnostics.excluded) == [0]


@EACH
def test_misshapen_rows_can_count_as_zero_rows(rule: Rule) -> None:
    rows: list[NDArray[Any]] = list(rows_of().astype(np.float32))
    zeroed = rows_of().astype(np.float32)
    rows[3], zeroed[3] = np.ones(2), 0.0
    rows[5], zeroed[5] = np.full(cases.D, np.nan, np.float32), 0.0
    found = rule(rows, **options_for(rule, unusable="zero"))
    expected = rule(zeroed, **options_for(rule)).vector
    np.testing.assert_allclose(found.vector, expected, atol=1e-6)
    assert list(found.diagnostics.excluded) == [3, 5]


class Strange(Premix):
    def check(self, n: int) -> None:
        pass


def test_strangers_are_refused() -> None:
    class Unknown(Rule):
        faults = 0

        def check(self, n: int) -> None:
            pass

    with pytest.raises(ConfigError, match="is no rule that fedsec knows"):
        Unknown()(rows_of())
    with pytest.raises(ConfigError, match="is no pre-aggregation that fedsec knows"):
        Pipeline(Mean(), (Strange(),))(rows_of())


def test_tables_say_what_people_ask() -> None:
    entries: list[RuleEntry | PremixEntry] = [*RULES.values(), *PREMIXES.values()]
    for entry in entries:
        assert entry.made_by.__doc__
        assert entry.paper
        assert entry.precondition
        assert entry.cost
    priced = {name for name, entry in RULES.items() if entry.sensitivity}
    assert priced == {"mean", "median", "trimmed-mean", "centered-clipping"}
