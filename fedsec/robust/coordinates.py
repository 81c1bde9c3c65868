"""The arithmetic of coordinate rules on one column block (n, width).

Up to `NETWORK_ROWS` rows a selection network; above, numpy's sort of the transposed block. Values
that a rule leaves out are never added and taken away again: a value of 1e30 leaves no trace.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.robust.aggregate import Doubles
from fedsec.robust.blocks import Block, Scratch
from fedsec.robust.networks import network, run

NETWORK_ROWS = 48
Reducer: TypeAlias = Callable[[Block, Scratch], Block]
"""From a block (n, width) to (width,), which may lie in the scratch."""


def median(block: Block, scratch: Scratch) -> Block:
    """Returns the median of each column."""
    n = len(block)
    return trimmed_mean(block, (n - 1) // 2, scratch)


def trimmed_mean(block: Block, f: int, scratch: Scratch) -> Block:
    """Returns the mean of each column without its f smallest and f largest values."""
    n = len(block)
    kept = range(f, n - f)
    if not f:
        return _mean(list(block))
    if n > NETWORK_ROWS:
        return _mean(list(_sorted(block, scratch)[f : n - f]))
    exact, summed = (tuple(kept), ()) if len(kept) == 1 else ((), tuple(kept))
    return _mean(run(network(n, exact, summed), block, scratch)[f : n - f])


def mean_around_median(block: Block, keep: int, scratch: Scratch) -> Block:
    """Returns the mean of the `keep` values of each column nearest to its median.

    In a sorted column these are neighbours, a window. Each step asks whether the value above the
    window is nearer to the median than the window's lowest; once the answer is no it stays no. So
    the values that may be in the window share `keep` places, and nothing is taken from a sum.
    """
    n = len(block)
    if n > NETWORK_ROWS:
        ranked: Sequence[Block] = list(_sorted(block, scratch))
    else:
        ranked = run(network(n, tuple(range(n))), block, scratch)
    middle = ranked[(n - 1) // 2] / 2 + ranked[n // 2] / 2
    window = list(ranked[:keep])
    below, above = np.empty_like(middle), np.empty_like(middle)
    for step in range(n - keep):
        candidate = ranked[step + keep]
        np.subtract(middle, ranked[step], out=below)
        np.subtract(candidate, middle, out=above)
        place = step % keep
        window[place] = np.where(above < below, candidate, window[place])
    return _mean(window)


def weighted_trimmed_mean(block: Block, shares: Doubles, trim: float) -> Block:
    """Returns the weighted mean of each column without the share `trim` at either end.

    Args:
        block: (n, width).
        shares: Of each row (n,), summing to 1.
        trim: Share left out at either end, in [0, 0.5).
    """
    order = np.argsort(block, axis=0, kind="stable")
    ranked = np.take_along_axis(block, order, axis=0)
    upto = np.cumsum(shares[order], axis=0)
    before = upto - shares[order]
    kept = np.minimum(upto, 1 - trim) - np.maximum(before, trim)
    kept = np.where(kept > 1e-12, kept, 0.0)  # noqa: PLR2004 - rounding of the cumulated shares
    result: Block = (kept * ranked).sum(axis=0) / kept.sum(axis=0)
    return result.astype(block.dtype, copy=False)


def _mean(values: Sequence[NDArray[Any]]) -> Block:
    """Returns the mean of the arrays, as a new one unless there is only one."""
    if len(values) == 1:
        return values[0]
    total: Block = values[0] + values[1]
    for value in values[2:]:
        total += value
    total /= len(values)
    return total


def _sorted(block: Block, scratch: Scratch) -> Block:
    """Returns each column sorted (n, width). Columns are sorted as rows, where numpy is fast."""
    turned = scratch.take("turned", block.shape[::-1], block.dtype)
    np.copyto(turned, block.T)
    turned.sort(axis=1)
    return turned.T
