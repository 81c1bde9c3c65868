"""An order of the rows that does not hang on who sent the first one.

Rules that choose rows meet rows that are equally good: at the same distance, of the same norm. To
take the one that came first would let the result hang on the order of arrival. So the rows are
taken in the order of what they hold, which moving all of them, or scaling them by a positive
number, does not change, rounding aside.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedsec.robust.blocks import Rows

Places = NDArray[np.intp]
_FIRST = 64  # columns; hardly any rows are the same in all of them
_WIDER = 8


def by_contents(rows: Rows) -> Places:
    """Returns the places of the rows (n,), the least first.

    Of two rows the smaller is the one with the smaller value where they first differ; equal rows
    keep their places. Time O(n log n) if they differ in their first columns, O(n d) if they are
    equal; at worst, if one parts from the rest in each column, n times a block more. Memory of one
    block.
    """
    groups = [np.arange(len(rows))]
    start, width = 0, _FIRST
    while start < rows.size and len(groups) < len(rows):
        columns = slice(start, start + width)
        groups = [part for group in groups for part in _parts(rows, group, columns)]
        start, width = start + width, min(_WIDER * width, rows.width())
    return np.concatenate(groups)


def _parts(rows: Rows, group: Places, columns: slice) -> list[Places]:
    """Returns the group in parts, the least first, whose rows are the same in the columns."""
    if len(group) == 1:
        return [group]
    whole = len(group) == len(rows)
    done: list[Places] = []
    left = [(group, (rows if whole else rows.take(group)).block(columns))]
    while left:
        group, block = left.pop()
        differs = np.flatnonzero((block[1:] != block[0]).any(axis=0))
        if not len(differs):
            done.append(group)
            continue
        column, rest = block[:, differs[0]], block[:, differs[0] + 1 :]
        order = np.argsort(column, kind="stable")
        starts = [0, *np.flatnonzero(np.diff(column[order])) + 1, len(order)]
        parts = [order[start:end] for start, end in pairwise(starts)]
        if len(parts) == len(group):
            done.extend(group[part] for part in parts)
        else:
            left.extend((group[part], rest[part]) for part in reversed(parts))
    return done
