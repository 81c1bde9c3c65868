"""Column blocks: what BLAS may do meanwhile, and sums that do not depend on the threads."""

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from fedsec.robust.blocks import open_rows, sweep
from fedsec.robust.combine import weighted_sum


@pytest.mark.parametrize("given", [1, 2])
def test_blas_keeps_to_one_thread_within_a_sweep_and_has_its_own_back(given: int) -> None:
    blas = ThreadpoolController().select(user_api="blas")

    def threads(_: slice) -> set[int]:
        return {library.num_threads for library in blas.lib_controllers}

    with blas.limit(limits=given):
        assert list(sweep(10, 5, threads, 1)) == [{1}, {1}]
        assert threads(slice(0)) == {given}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("left_out", ["nothing", "a row", "a row, which counts as zeros"])
def test_a_weighted_sum_is_the_same_for_any_number_of_threads(dtype: str, left_out: str) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 300_000)).astype(dtype)
    usable, weights, exact = open_rows(rows, zero=False)[0], np.arange(1.0, 6), rows
    if left_out != "nothing":
        bad, zero = np.arange(5) == 3, left_out != "a row"
        usable = usable.without(bad, zero=zero)
        weights, exact = (weights if zero else weights[~bad]), np.where(bad[:, None], 0, rows)
        exact = exact if zero else exact[~bad]
    one, two = (weighted_sum(usable, weights, threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    close = 5e-3 if dtype == "float16" else 1e-5
    np.testing.assert_allclose(one, weights @ exact.astype(np.float64), rtol=close, atol=close)
    assert one.dtype == rows.dtype
