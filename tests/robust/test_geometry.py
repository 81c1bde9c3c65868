"""Distances: right where the updates lie close together, and whoever else sends what."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.robust import Krum, Median, MultiKrum, Nnm, TooManyFaults
from fedsec.robust.blocks import Rows, Scratch, open_rows, squared_norms, sweep
from fedsec.robust.engine import premix
from fedsec.robust.geometry import (
    TOLERANCE,
    certified,
    distances_to,
    measure_gram,
    measure_norms,
    plain_spans,
    squared_distances,
)
from fedsec.robust.mixing import mix

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def near(n: int, spread: float, d: int = 20_000, seed: int = 0) -> Floats:
    """Returns rows of norm about sqrt(d) that differ by `spread` of it."""
    random = np.random.default_rng(seed)
    common = random.standard_normal(d)
    return (common + spread * random.standard_normal((n, d))).astype(np.float32)


def exact(rows: Floats) -> Doubles:
    """Squared distances from differences in float64."""
    long = rows.astype(np.float64)
    return np.array([[float(np.sum((a - b) ** 2)) for b in long] for a in long])


def measured(rows: Floats) -> tuple[Doubles, str]:
    found = measure_gram(open_rows(rows, zero=False)[0], zero=False, threads=1)
    assert found.gram is not None
    distances = squared_distances(found.gram, plain_spans(found.squares), found.reach)
    return distances, found.precision


def worst(found: Doubles, expected: Doubles) -> float:
    apart = ~np.eye(len(found), dtype=bool)
    return float(np.max(np.abs(found - expected)[apart] / expected[apart]))


def peers(rows: Floats) -> Doubles:
    """The formula of Flower's Krum, in float32: norms, one product, and a subtraction."""
    squares = np.sum(rows**2, axis=1)
    found: Floats = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
    return found.astype(np.float64)


@pytest.mark.parametrize("n", [25, 26, 30, 50, 100])
@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-3, 1e-4])
def test_distances_are_right_where_updates_lie_close(n: int, spread: float) -> None:
    rows = near(n, spread, d=4000 if n == 100 else 8000)
    found, precision = measured(rows)
    assert precision == "float64"
    assert worst(found, exact(rows)) < 1e-5
    assert found.min() >= 0


def test_distances_among_ordinary_updates_need_no_float64() -> None:
    rows = near(30, 1.0)
    found, precision = measured(rows)
    assert precision == "float32"
    assert worst(found, exact(rows)) < 1e-5


@pytest.mark.parametrize("n", [30, 100])
def test_peers_pick_the_attacker_where_krum_here_does_not(n: int) -> None:
    """What the peers' rounding makes of it differs from machine to machine: three draws of rows."""
    f, attacker, wrong = n // 5, 3, 0

    def pick(distances: Doubles) -> int:
        others = distances + np.diag(np.full(n, np.inf))
        return int(np.argmin(np.sort(others, axis=1)[:, : n - f - 2].sum(axis=1)))

    for seed in range(3):
        rows = near(n, 1e-4, d=10_000, seed=seed)
        # Three times as far out as the others: the last row that Krum should return.
        away = np.random.default_rng(9).standard_normal(10_000).astype(np.float32)
        rows[attacker] += np.float32(3e-4) * away
        expected = exact(rows)
        assert worst(peers(rows), expected) > 1, "the peers' formula has no correct digit here"
        assert peers(rows).min() < 0
        weights = Krum(f)(rows).weights
        assert weights is not None
        assert int(np.argmax(weights)) == pick(expected) != attacker
        wrong += pick(peers(rows)) != pick(expected)
    assert wrong >= 2


def test_neighbours_of_nearest_neighbour_mixing_are_right_too() -> None:
    rows = near(30, 1e-4, d=10_000)
    apart = exact(rows)
    mixed = premix((Nnm(6),), rows).matrix
    for row, factors in enumerate(mixed):
        assert set(np.flatnonzero(factors)) == set(np.argsort(apart[row])[:24])


@pytest.mark.parametrize("size", [1e1, 1e3, 1e6, 1e12, 1e30])
def test_one_huge_row_does_not_disturb_distances_among_others(size: float) -> None:
    rows = near(30, 1e-3)
    alone = exact(rows[1:])
    rows[0] = size
    found, _ = measured(rows)
    assert worst(found[1:, 1:], alone) < 1e-5
    with_it, without = MultiKrum(6, keep=20)(rows), MultiKrum(5, keep=20)(rows[1:])
    assert with_it.weights is not None
    assert without.weights is not None
    assert with_it.weights[0] == 0
    np.testing.assert_allclose(with_it.weights[1:], without.weights)


@pytest.mark.parametrize("cosine", [0.9, 0.97])
def test_the_switch_lies_where_the_bound_says(cosine: float) -> None:
    random = np.random.default_rng(1)
    noise = random.standard_normal((20, 30_000))
    rows = np.sqrt(cosine) * noise[:1] + np.sqrt(1 - cosine) * noise
    found, precision = measured(rows.astype(np.float32))
    # (|x|+|y|)^2 g <= TOLERANCE |x-y|^2 is 4 g <= TOLERANCE 2 (1 - cosine)
    assert precision == (
        "float32" if TOLERANCE * 2 * (1 - cosine) >= 4 * 512 * 2.0**-24 else "float64"
    )
    assert worst(found, exact(rows.astype(np.float32))) < 1e-4


def test_the_bound_holds_for_the_worst_sums_that_were_found() -> None:
    # Equal entries make float32 sums drift one way, block after block.
    for value in (0.1, 0.7, 1 / 3, 1e-3, 123.456):
        rows = np.full((3, 50_000), value, np.float32)
        rows[1], rows[2, ::2] = -value, -value
        found = measure_gram(open_rows(rows, zero=False)[0], zero=False, threads=1)
        assert found.gram is not None
        long = rows.astype(np.float64)
        norms = np.linalg.norm(long, axis=1)
        error = np.abs(found.gram - long @ long.T) / np.outer(norms, norms)
        assert error.max() <= found.reach


@pytest.mark.parametrize("size", [1e-20, 1e-22, 1e-30])
def test_tiny_rows_are_measured_in_float64(size: float) -> None:
    rows = (size * np.random.default_rng(0).standard_normal((6, 500))).astype(np.float32)
    found, precision = measured(rows)
    assert precision == "float64"
    assert worst(found, exact(rows)) < 1e-5


def test_equal_rows_are_at_distance_zero() -> None:
    rows = near(8, 1e-2)
    rows[5] = rows[2]
    found, precision = measured(rows)
    assert precision == "float64"
    assert found[5, 2] == found[2, 5] == 0
    assert (found[0, 1:] > 0).all()


def test_distances_below_what_float64_resolves_count_as_zero() -> None:
    rows = near(8, 1e-9).astype(np.float64)
    rows += 1e-9 * np.random.default_rng(1).standard_normal(rows.shape)
    found = measure_gram(open_rows(rows, zero=False)[0], zero=False, threads=1)
    assert found.gram is not None
    assert not squared_distances(found.gram, plain_spans(found.squares), found.reach).any()


def test_accurate_products_are_certified_by_their_kind() -> None:
    rows = open_rows(near(4, 1e-4).astype(np.float64), zero=False)[0]
    found = measure_gram(rows, zero=False, threads=1)
    assert found.precision == "float64"
    assert certified(found, plain_spans(found.squares))


def test_distances_to_one_row() -> None:
    rows = near(9, 1e-4)
    found = distances_to(open_rows(rows, zero=False)[0], 4, 1)
    np.testing.assert_allclose(found, exact(rows)[4], rtol=1e-4)
    rows[2] = 3e38
    found = distances_to(open_rows(rows, zero=False)[0], 4, 1)
    np.testing.assert_allclose(found, exact(rows)[4], rtol=1e-4)


def test_norms_of_huge_and_tiny_rows() -> None:
    rows = np.ones((4, 5000), np.float32)
    rows[1], rows[2], rows[3, 7] = 1e30, 1e-30, np.nan
    found = squared_norms(open_rows(rows, zero=False)[0], 1)
    np.testing.assert_allclose(found[:3], [5000, 5000e60, 5000e-60], rtol=1e-5)
    assert np.isnan(found[3])


def test_float64_entries_whose_squares_overflow_count_as_not_finite() -> None:
    rows = np.ones((5, 3))
    rows[2] = 1e200
    assert list(Median()(rows).diagnostics.excluded) == [2]


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        (np.zeros(3), r"must be a matrix \(n, d\), got shape \(3,\)"),
        (np.zeros((0, 3)), "too few"),
        (np.zeros((3, 0)), "must be a matrix"),
        (np.zeros((3, 2), np.int64), "must be float16, float32, float64, got int64"),
        (np.zeros((3, 2), np.complex128), "got complex128"),
        ([], "too few"),
        ([np.zeros(2), np.zeros(3)], "mostly have one shape"),
        ([np.zeros(2, np.int32)], "got int32"),
        ([np.zeros((2, 2))], r"must be a vector \(d,\), got shape \(2, 2\)"),
    ],
)
def test_what_is_no_matrix_of_updates_is_refused(updates: Floats, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Median()(updates)


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="mostly have one shape"):
        open_rows([], zero=False)


def test_many_faults_are_counted_and_some_named() -> None:
    rows = np.full((20, 2), np.nan)
    with pytest.raises(
        TooManyFaults,
        match=r"20 of 20 rows are unusable, byzantine = 9.* row 4: is not finite and 15 more",
    ):
        Median()(rows)


def test_misshapen_rows_alone_can_be_too_many() -> None:
    rows = [np.zeros(2)] * 3 + [np.zeros(1), np.zeros(4)]
    with pytest.raises(TooManyFaults, match=r"row 3: has shape \(1,\)"):
        Krum(1)(rows)


def test_big_endian_rows_are_read_as_what_they_say() -> None:
    rows = near(5, 1.0)
    np.testing.assert_array_equal(Median()(rows.astype(">f4")).vector, Median()(rows).vector)


def test_blocks_come_in_order_whatever_the_threads() -> None:
    starts = list(sweep(1000, 7, lambda columns: columns.start, threads=3))
    assert starts == list(range(0, 1000, 7))


def test_blocks_stay_small_when_there_are_many_rows() -> None:
    rows = Rows(
        np.zeros((1, 1), np.float32),
        np.arange(5000),
        np.zeros(5000, bool),
        1,
        np.dtype(np.float32),
    )
    assert rows.width() == 1024
    assert 5000 * rows.width() * 4 < 64 << 20


def test_scratch_is_used_again() -> None:
    scratch = Scratch()
    first = scratch.take("a", (3, 4), np.float32)
    assert np.shares_memory(first, scratch.take("a", (2, 4), np.float32))
    assert not np.shares_memory(first, scratch.take("a", (30, 4), np.float32))


@pytest.mark.parametrize("where", ["probed", "elsewhere"])
def test_what_a_few_blocks_promise_decides_time_only(where: str) -> None:
    # 80 blocks of 512 columns, of which each tenth is looked at first.
    d = 80 * 512
    rows = near(6, 1.0, d=d)
    alike = rows.reshape(6, 80, 512)[:, ::10]
    if where == "elsewhere":
        alike[:] = alike[:1]
        expected = "float64"  # not needed, but nothing promised otherwise
    else:
        rows.reshape(6, 80, 512)[:, 1:] *= 1e-3
        expected = "float32"
    rows[5, 0] = np.nan
    found = measure_gram(open_rows(rows, zero=False)[0], zero=False, threads=2)
    assert found.precision == expected
    assert found.excluded == {5: "is not finite"}
    assert found.gram is not None
    distances = squared_distances(found.gram, plain_spans(found.squares), found.reach)
    assert worst(distances, exact(rows[:5])) < 1e-5


def test_cheap_products_that_promised_too_much_are_made_again() -> None:
    d = 80 * 512
    rows = near(6, 1e-4, d=d)
    blocks = rows.reshape(6, 80, 512)
    blocks[:, ::10] = near(6, 1.0, d=8 * 512).reshape(6, 8, 512) * 1e-3
    found, precision = measured(rows)
    assert precision == "float64"
    assert worst(found, exact(rows)) < 1e-5


def test_products_that_were_not_asked_for_are_refused() -> None:
    rows = open_rows(near(4, 1.0), zero=False)[0]
    mixture = mix((), measure_norms(rows, zero=False, threads=1), lambda _: 0, None, looks=False)
    with pytest.raises(ConfigError, match="were not measured"):
        mixture.distances()
