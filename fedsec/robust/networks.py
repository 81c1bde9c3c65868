"""Selection networks: the middle values of a column by minima and maxima of whole rows.

Source: Batcher, "Sorting networks and their applications", AFIPS 1968 (odd-even merge). A network
for a power of two is cut to n wires, then walked from its end to keep only what the wanted outputs
need: a comparator of which one side is needed becomes one minimum or maximum, and one whose two
sides are only added up is dropped, as the sum is the same without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsec.robust.blocks import Scratch

_PAD = 16
_DEAD, _SUMMED, _EXACT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Comparator:
    """Puts the smaller of two wires on `low` and the larger on `high`, or only one of the two."""

    low: int
    high: int
    keeps_low: bool
    keeps_high: bool


@cache
def network(n: int, exact: tuple[int, ...] = (), summed: tuple[int, ...] = ()) -> list[Comparator]:
    """Returns the comparators, in order, that bring the wanted ranks to their wires.

    Args:
        n: Number of wires.
        exact: Ranks (0 is the smallest) whose values must end on their own wire.
        summed: Ranks of which only the sum over these wires must be right.
    """
    need = [_DEAD] * n
    for rank in summed:
        need[rank] = _SUMMED
    for rank in exact:
        need[rank] = _EXACT
    kept: list[Comparator] = []
    for low, high in reversed(list(_odd_even_merge(n))):
        if need[low] == need[high] != _EXACT:
            continue
        kept.append(Comparator(low, high, need[low] != _DEAD, need[high] != _DEAD))
        need[low] = need[high] = _EXACT
    return kept[::-1]


def run(
    comparators: Sequence[Comparator], rows: NDArray[Any], scratch: Scratch
) -> list[NDArray[Any]]:
    """Returns the wires after the network, one array (width,) each, in memory of `scratch`.

    Args:
        comparators: Of `network` for n = len(rows).
        rows: What enters (n, width); not written to.
        scratch: Where the results lie until its next use.
    """
    n, width = rows.shape
    # Padded: wires a power of two apart would compete for the same places in the cache.
    memory = scratch.take("wires", (n + 1, width + _PAD), rows.dtype)[:, :width]
    wires: list[NDArray[Any]] = list(rows)
    own: list[NDArray[Any] | None] = [None] * n
    spare = list(memory)
    for each in comparators:
        low, high = wires[each.low], wires[each.high]
        if each.keeps_low:
            out = spare.pop()
            np.minimum(low, high, out=out)
            wires[each.low] = out
        if each.keeps_high:
            # Its own memory can take the maximum: the minimum has been formed by now.
            place = own[each.high]
            if place is None:
                place = own[each.high] = spare.pop()
            np.maximum(low, high, out=place)
            wires[each.high] = place
        if each.keeps_low:
            old, own[each.low] = own[each.low], wires[each.low]
            if old is not None:
                spare.append(old)
    return wires


def _odd_even_merge(n: int) -> Iterator[tuple[int, int]]:
    """Yields (low, high) of Batcher's network for the next power of two, cut to `n` wires."""
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        yield i + j, i + j + k
            k //= 2
        p *= 2
