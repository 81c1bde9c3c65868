"""Equally good rows: which goes first is decided by what they hold, not by how they came."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsec.robust import Arc, Clip, Monna, Nnm, Pipeline, Premix, Rule
from fedsec.robust.aggregate import Aggregate
from fedsec.robust.blocks import open_rows
from fedsec.robust.engine import premix
from fedsec.robust.ordering import by_contents
from tests.robust import cases
from tests.robust.cases import F, N, options_for

Doubles = NDArray[np.float64]
EACH = pytest.mark.parametrize("rule", cases.RULES.values(), ids=cases.RULES)


def order_of(rows: NDArray[np.float64] | list[NDArray[np.float64]]) -> list[int]:
    return by_contents(open_rows(rows, zero=False)[0]).tolist()


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), d=st.integers(1, 6))
def test_rows_go_in_the_order_of_their_first_difference(seed: int, n: int, d: int) -> None:
    rows = np.random.default_rng(seed).integers(-1, 2, (n, d)).astype(np.float64)
    expected = sorted(range(n), key=lambda row: tuple(rows[row]))
    assert order_of(rows) == expected
    assert order_of(list(rows)) == expected
    assert order_of(1000 + 3 * rows) == expected


@pytest.mark.parametrize("column", [0, 63, 64, 600, 40_000, 99_999])
def test_a_difference_is_found_wherever_it_is(column: int) -> None:
    rows = np.ones((5, 100_000), np.float32)
    rows[:, column] = [3, -1, 3, 2, -1]
    assert order_of(rows) == [1, 4, 3, 0, 2]


def test_many_rows_that_part_one_after_another() -> None:
    rows = np.tril(np.ones((1100, 1100), np.float32))
    assert order_of(rows[::-1]) == list(range(1100))[::-1]


def test_rows_that_count_as_zeros_are_ordered_as_zeros() -> None:
    rows = np.array([[1.0, 2.0], [-1.0, 5.0], [9.0, 9.0]])
    opened = open_rows(rows, zero=True)[0].without(np.array([False, False, True]), zero=True)
    assert by_contents(opened).tolist() == [1, 2, 0]
    late = np.hstack([np.zeros((5, 500)), [[1.0], [-1.0], [9.0], [-9.0], [0.0]]])
    late[4, 0] = -3
    opened = open_rows(late, zero=True)[0].without(np.isin(np.arange(5), [2, 3]), zero=True)
    assert by_contents(opened).tolist() == [4, 1, 2, 3, 0]


TIED: dict[str, Doubles] = {
    "on a line": np.arange(11.0)[:, None] - 5,
    "on axes": np.vstack([np.eye(5), -np.eye(5), np.zeros((1, 5))]),
    "on axes, rounded": np.vstack([np.eye(5), -np.eye(5), np.zeros((1, 5))]) / 3 + 0.1,
    "corners": 2.0 * (np.arange(11)[:, None] >> np.arange(4) & 1) - 1,
    "small numbers": np.random.default_rng(6).integers(-1, 2, (11, 3)).astype(np.float64),
    "threes alike": np.repeat(np.random.default_rng(1).integers(-2, 3, (4, 3)), 3, axis=0)[:11]
    * 1.0,
}
REPEATED = {"small numbers", "threes alike"}  # of equal rows either may be taken
CHAINS: dict[str, tuple[Premix, ...]] = {
    "alone": (),
    "nnm": (Nnm(F),),
    "clip": (Clip(0.9),),
    "arc": (Arc(F),),
    "clip, nnm": (Clip(0.9), Nnm(F)),
    "nnm twice": (Nnm(F), Nnm(F)),
}


def turned(rule: Rule, before: tuple[Premix, ...], rows: Doubles, order: Doubles) -> Aggregate:
    """What comes of the rows in another order; MoNNA trusts the same row."""
    if isinstance(rule, Monna):
        rule = Monna(F, trusted=int(np.flatnonzero(order == N - 1)[0]))
    return Pipeline(rule, before)(rows[order], **options_for(rule, rows.shape[1]))


@EACH
@pytest.mark.parametrize("chain", CHAINS)
def test_ties_do_not_hang_on_the_order_of_rows(rule: Rule, chain: str) -> None:
    for name, exact in TIED.items():
        rows = exact.astype(np.float32)
        there = turned(rule, CHAINS[chain], rows, np.arange(N))
        for seed in range(2):
            order = np.random.default_rng(seed).permutation(N)
            back = turned(rule, CHAINS[chain], rows, order)
            np.testing.assert_allclose(back.vector, there.vector, atol=2e-6, err_msg=name)
            if back.weights is not None and there.weights is not None and name not in REPEATED:
                np.testing.assert_allclose(back.weights, there.weights[order], atol=1e-9)


def test_weights_and_scores_come_back_to_their_own_rows() -> None:
    rows = np.random.default_rng(2).normal(size=(N, 5))
    for rule in cases.RULES.values():
        first = turned(rule, (), rows, np.arange(N))
        order = np.random.default_rng(3).permutation(N)
        other = turned(rule, (), rows, order)
        for one, two in [
            (first.weights, other.weights),
            (first.diagnostics.scores, other.diagnostics.scores),
            (first.diagnostics.norms, other.diagnostics.norms),
        ]:
            assert (one is None) == (two is None)
            if one is not None and two is not None:
                np.testing.assert_allclose(two, one[order], atol=1e-9)


@pytest.mark.parametrize("stages", [CHAINS["nnm"], CHAINS["nnm twice"], (Nnm(F), Clip(0.5))])
def test_premixed_rows_stand_where_their_rows_stood(stages: tuple[Premix, ...]) -> None:
    rows = np.random.default_rng(2).integers(-1, 2, (N, 4)).astype(np.float64)
    rows[:, 3] = np.arange(N) % 2
    mixed = premix(stages, rows)
    np.testing.assert_allclose(mixed.matrix @ rows, mixed.rows, atol=1e-12)
    order = np.random.default_rng(0).permutation(N)
    np.testing.assert_allclose(premix(stages, rows[order]).rows, mixed.rows[order], atol=1e-12)


def test_moving_all_rows_keeps_their_order() -> None:
    rows = np.random.default_rng(0).integers(-2, 3, (9, 4)).astype(np.float64)
    order = order_of(rows)
    assert order_of(rows + np.array([5.0, -3.0, 0.5, 100.0])) == order
    assert all(tuple(rows[a]) <= tuple(rows[b]) for a, b in pairwise(order))
