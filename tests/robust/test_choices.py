"""What a rule's own parameters do, and what it tells of its choice, against the naive formula."""

import numpy as np

from fedsec.robust import Bucketing, Bulyan, Nnm, Pipeline
from tests.robust import oracles
from tests.robust.cases import rows_of


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
