"""Rows as large and as small as float32 holds: finite rows give what float64 gives."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsec.robust import (
    Arc,
    Bucketing,
    CenteredClipping,
    Clip,
    FlTrust,
    GeometricMedian,
    Mean,
    Median,
    Monna,
    Nnm,
    Pipeline,
    Premix,
    Rule,
    TrimmedMean,
)
from fedsec.robust.aggregate import Aggregate
from fedsec.robust.engine import premix
from fedsec.robust.options import Options
from tests.robust import cases

LARGEST = float(np.finfo(np.float32).max)
SIZES = [LARGEST, 1e20, 1e-24, 1e-38]
CHAINS: dict[str, tuple[Premix, ...]] = {
    "alone": (),
    "nnm": (Nnm(2),),
    "bucketing": (Bucketing(2, byzantine=2),),
    "nnm, arc": (Nnm(2), Arc(2)),
}


def rows_of(n: int, size: float, d: int = 12) -> NDArray[np.float32]:
    rows = size * np.random.default_rng(n).uniform(-1, 1, (n, d))
    rows[:, 0] = 0.97 * size
    rows[:, 1] = size
    return rows.astype(np.float32)


def scaled(rule: Rule, size: float, n: int) -> Rule:
    match rule:
        case CenteredClipping():
            return CenteredClipping(2, radius=size, iterations=3)
        case GeometricMedian():
            return GeometricMedian(2, smoothing=1e-6 * size)
        case Monna():
            return Monna(2, trusted=n - 1)
        case _:
            return rule


def result(
    rule: Rule, before: tuple[Premix, ...], rows: NDArray[Any], size: float, *, diagnose: bool
) -> Aggregate:
    options = Options(rng=np.random.default_rng(1), diagnose=diagnose)
    if isinstance(rule, FlTrust):
        options["reference"] = np.full(rows.shape[1], size / 10)
    return Pipeline(rule, before)(rows, **options)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", cases.RULES)
def test_rows_of_any_size_give_what_float64_gives(name: str, chain: str) -> None:
    n, before = 23, CHAINS[chain]
    if name == "monna" and chain == "bucketing":
        return  # refused: a trusted row would be mixed with others
    for size in SIZES:
        rows, rule = rows_of(n, size), scaled(cases.RULES[name], size, n)
        exact = result(rule, before, rows.astype(np.float64), size, diagnose=True)
        bare = result(rule, before, rows, size, diagnose=False).vector
        found = result(rule, before, rows, size, diagnose=True)
        for vector in (found.vector, bare):
            assert np.isfinite(vector).all()
            np.testing.assert_allclose(vector / size, exact.vector / size, atol=3e-6)
        told, right = found.diagnostics, exact.diagnostics
        np.testing.assert_allclose(told.norms / size, right.norms / size, rtol=1e-6)
        np.testing.assert_allclose(told.cosines, right.cosines, atol=1e-5)
        np.testing.assert_allclose(told.distances / size, right.distances / size, atol=1e-3)
        assert [s.row for s in found.suspects] == [s.row for s in exact.suspects]


@pytest.mark.parametrize("n", [26, 52])  # there 1/n in float32, n times, is more than 1
@pytest.mark.parametrize("name", ["mean", "median", "trimmed-mean", "meamed", "bulyan"])
def test_equal_rows_of_the_largest_number_give_it(name: str, n: int) -> None:
    rows = np.full((n, 5), LARGEST, np.float32)
    rows[:, 1] *= -1
    found = cases.RULES[name](rows)
    np.testing.assert_allclose(found.vector, rows[0], rtol=1e-6)
    np.testing.assert_allclose(found.diagnostics.cosines, 1, rtol=1e-6)
    assert not found.suspects


def test_half_precision_comes_back_finite_at_its_largest() -> None:
    rows = np.full((7, 3), np.finfo(np.float16).max, np.float16)
    for rule in (Mean(), Median(), TrimmedMean(2)):
        np.testing.assert_array_equal(rule(rows).vector, rows[0])


@pytest.mark.parametrize("stage", [Nnm(2), Bucketing(3), Clip(1e35), Arc(2)], ids=str)
def test_mixed_rows_of_any_size_are_finite(stage: Premix) -> None:
    rows = rows_of(23, LARGEST)
    found = premix((stage,), rows, rng=np.random.default_rng(0)).rows
    exact = premix((stage,), rows.astype(np.float64), rng=np.random.default_rng(0)).rows
    np.testing.assert_allclose(found / LARGEST, exact / LARGEST, atol=1e-6)
    alike = np.full((26, 4), LARGEST, np.float32)
    mean = premix((Nnm(0),), alike).rows
    np.testing.assert_allclose(mean / LARGEST, 1, rtol=1e-6)


@pytest.mark.parametrize("by", ["trusted row", "reference"])
@pytest.mark.parametrize("size", [1e-30, 1e-24, 1e20, 1e37])
def test_monna_finds_its_neighbours_at_any_size(size: float, by: str) -> None:
    rows = (size * np.random.default_rng(1).standard_normal((11, 5))).astype(np.float32)
    near = ((rows.astype(np.float64) - rows[0]) / size) ** 2
    nearest = set(np.argsort(near.sum(axis=1))[:9])
    if by == "trusted row":
        weights = Monna(2, trusted=0)(rows).weights
    else:
        weights = Monna(2)(rows, reference=rows[0]).weights
    assert weights is not None
    assert set(np.flatnonzero(weights)) == nearest


def test_a_hostile_row_of_the_largest_number_does_not_blur_the_others() -> None:
    rows = np.random.default_rng(0).normal(1.0, 0.1, (11, 400)).astype(np.float32)
    rows[4] = LARGEST
    told = Median()(rows).diagnostics
    long = rows.astype(np.float64)
    vector = Median()(rows).vector.astype(np.float64)
    norms = np.linalg.norm(long, axis=1)
    np.testing.assert_allclose(told.norms, norms, rtol=1e-6)
    np.testing.assert_allclose(
        told.cosines, long @ vector / norms / np.linalg.norm(vector), rtol=1e-5
    )


def test_a_tiny_row_among_others_has_a_direction() -> None:
    rows = np.ones((5, 300), np.float32)
    rows[0], rows[1] = 1e-30, -1e-42
    np.testing.assert_allclose(Median()(rows).diagnostics.cosines, [1, -1, 1, 1, 1], rtol=1e-4)


@pytest.mark.parametrize("diagnose", [True, False])
def test_rows_that_are_not_finite_are_told_from_sums_that_overflow(diagnose: bool) -> None:
    rows = np.full((6, 3), LARGEST, np.float32)
    rows[2, 1] = np.inf
    found = Mean(1)(rows, diagnose=diagnose)
    np.testing.assert_array_equal(found.vector, rows[0])
    assert [s.row for s in found.suspects] == [2]
