"""Selection networks against sorting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.robust.blocks import Scratch
from fedsec.robust.networks import network, run


@pytest.mark.parametrize("n", range(1, 40))
def test_a_full_network_sorts_every_sampled_zero_one_column(n: int) -> None:
    # A network that sorts all columns of zeros and ones sorts everything (Knuth, 5.3.4).
    columns = np.random.default_rng(n).integers(0, 2, (n, 3000)).astype(np.float32)
    if n <= 11:
        columns = ((np.arange(2**n) >> np.arange(n)[:, None]) & 1).astype(np.float32)
    wires = run(network(n, tuple(range(n))), columns, Scratch())
    np.testing.assert_array_equal(np.stack(wires), np.sort(columns, axis=0))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 70), data=st.data())
def test_pruned_networks_keep_what_was_asked_for(seed: int, n: int, data: st.DataObject) -> None:
    f = data.draw(st.integers(0, (n - 1) // 2))
    rows = np.random.default_rng(seed).standard_normal((n, 17))
    kept = rows.copy()
    ranked = np.sort(rows, axis=0)
    summed = tuple(range(f, n - f))
    wires = run(network(n, (), summed), rows, Scratch())
    np.testing.assert_allclose(sum(wires[f : n - f]), ranked[f : n - f].sum(axis=0))
    rank = data.draw(st.integers(0, n - 1))
    np.testing.assert_array_equal(run(network(n, (rank,)), rows, Scratch())[rank], ranked[rank])
    np.testing.assert_array_equal(rows, kept)


def test_pruning_saves_work() -> None:
    full = len(network(50, tuple(range(50))))
    assert len(network(50, (), tuple(range(10, 40)))) < full
    assert len(network(50, (24, 25))) < full
