"""The arithmetic of coordinate rules on one column block (n, width).

Up to `NETWORK_ROWS` rows a selection network; above, numpy's sort of the transposed block. Values
that a rule leaves out are never added and taken away again: a value of 1e30 leaves no trace.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedsec.robust.aggregate import Doubles
from fedsec.robust.blocks import Block, Scratch
from fedsec.robust.networks import network, run

NETWORK_ROWS = 48
_TURNED = 2048  # columns that are sorted at a time: with their copies they stay in the cache
_PAD = 16
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
        return _middle_mean(block, f, scratch)
    exact, summed = (tuple(kept), ()) if len(kept) == 1 else ((), tuple(kept))
    return _mean(run(network(n, exact, summed), block, scratch)[f : n - f])


def mean_around_median(block: Block, keep: int, scratch: Scratch) -> Block:
    """Returns the mean of the `keep` values of each column nearest to its median.

    In a sorted column these are neighbours, a window. Each step asks whether the value above the
    window is nearer to the median than the window's lowest; once the answer is no it stays no. So
    the values that may be in the window share `keep` places, and nothing is taken from a sum.
    """
    n = len(block)
    if n <= NETWORK_ROWS:
        return _near_median(run(network(n, tuple(range(n))), block, scratch), keep)
    out: Block = scratch.take("near", block.shape[1:], block.dtype)
    for columns, ranked in _sorted(block, scratch):
        back = _padded("back", ranked.shape[::-1], block.dtype, scratch)
        np.copyto(back, ranked.T)
        out[columns] = _near_median(list(back), keep)
    return out


def _near_median(ranked: Sequence[Block], keep: int) -> Block:
    """Returns `mean_around_median` of sorted columns, given as their n ranks (width,)."""
    n = len(ranked)
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


def weighted_trimmed_mean(block: Block, shares: Doubles, trim: float, scratch: Scratch) -> Block:
    """Returns the weighted mean of each column without the share `trim` at either end.

    Args:
        block: (n, width).
        shares: Of each row (n,), summing to 1.
        trim: Share left out at either end, in [0, 0.5).
        scratch: Of this thread.
    """
    out: Block = scratch.take("middle", block.shape[1:], block.dtype)
    for columns, values in _turned(block, scratch):
        order = values.argsort(axis=1)  # of equal values it does not matter which is left out
        kept = shares[order]
        upto = kept.cumsum(axis=1)
        kept = np.minimum(upto, 1 - trim) - np.maximum(upto - kept, trim)
        kept[kept <= 1e-12] = 0.0  # noqa: PLR2004 - rounding of the cumulated shares
        ranked = np.take_along_axis(values, order, axis=1)
        out[columns] = np.vecdot(kept, ranked) / kept.sum(axis=1)
    return out


def _mean(values: Sequence[NDArray[Any]]) -> Block:
    """Returns the mean of the arrays, as a new one unless there is only one."""
    if len(values) == 1:
        return values[0]
    total: Block = values[0] + values[1]
    for value in values[2:]:
        total += value
    total /= len(values)
    return total


def _middle_mean(block: Block, f: int, scratch: Scratch) -> Block:
    """Returns the mean of each column's sorted values f+1..n-f."""
    kept = len(block) - 2 * f
    factors = np.full(kept, 1 / kept, block.dtype)
    out: Block = scratch.take("middle", block.shape[1:], block.dtype)
    for columns, ranked in _sorted(block, scratch):
        np.matmul(ranked[:, f : f + kept], factors, out=out[columns])
    return out


def _sorted(block: Block, scratch: Scratch) -> Iterator[tuple[slice, Block]]:
    """Yields some columns at a time, each sorted, as rows (width, n), where numpy sorts fast."""
    for columns, turned in _turned(block, scratch):
        turned.sort(axis=1)
        yield columns, turned


def _turned(block: Block, scratch: Scratch) -> Iterator[tuple[slice, Block]]:
    """Yields some columns at a time as rows (width, n), in memory that the next ones reuse.

    They are copied before they are turned: rows of the input may lie a power of two apart, and
    then all of a column competes for few places in the cache.
    """
    n, width = block.shape
    for start in range(0, width, _TURNED):
        columns = slice(start, min(start + _TURNED, width))
        near = _padded("copied", (n, columns.stop - start), block.dtype, scratch)
        np.copyto(near, block[:, columns])
        turned = scratch.take("turned", near.shape[::-1], block.dtype)
        np.copyto(turned, near.T)
        yield columns, turned


def _padded(name: str, shape: tuple[int, int], dtype: DTypeLike, scratch: Scratch) -> Block:
    """Returns an array of `shape` of the scratch whose rows lie no power of two apart."""
    rows, width = shape
    return scratch.take(name, (rows, width + _PAD), dtype)[:, :width]
