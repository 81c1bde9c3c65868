"""The second pass: one result per column block, and how each row lies to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.robust.aggregate import Doubles
from fedsec.robust.blocks import Block, Rows, Scratch, one_blas_thread, sweep

_SHORT = 1 << 22
"""Entries; to read so many takes a millisecond."""

Former: TypeAlias = Callable[[Block, slice, Scratch], Block]
"""From the rows' block (n, width) and its columns to the result's (width,)."""


@dataclass(frozen=True)
class Combined:
    """The result and its products with the rows.

    Attributes:
        vector: (d,), in the dtype of the updates.
        dots: Product with each row (n,); None if they were not asked for.
        square: Its squared norm; 0 if it was not asked for.
    """

    vector: NDArray[Any]
    dots: Doubles | None
    square: float


def combine(rows: Rows, former: Former, *, threads: int, diagnose: bool) -> Combined:
    """Returns what `former` makes of all column blocks.

    Args:
        rows: The usable rows.
        former: Called with each block, in any thread.
        threads: Over how many the blocks are spread.
        diagnose: Whether the products with the rows are wanted.
    """
    vector = np.empty(rows.size, rows.dtype)
    scratch = Scratch()

    def part(columns: slice) -> tuple[Doubles | None, float]:
        block = rows.block(columns)
        out = former(block, columns, scratch)
        vector[columns] = out
        if not diagnose:
            return None, 0.0
        return (block @ out).astype(np.float64), float(np.dot(out, out))

    dots, square = np.zeros(len(rows)), 0.0
    for some, one in sweep(rows.size, rows.width(), part, threads):
        if some is not None:
            dots += some
        square += one
    return Combined(vector, dots if diagnose else None, square)


def weighted_sum(rows: Rows, weights: Doubles, threads: int) -> NDArray[Any]:
    """Returns ``weights @ rows`` (d,), in the dtype of the updates.

    One product where that is short, for blocks and threads would take longer than the sum; else
    block by block. Which of the two follows from the rows alone, so that the result does too.
    """
    factors = weights.astype(rows.working)
    source = rows.source
    if isinstance(source, np.ndarray) and _short(rows, source):
        with one_blas_thread(), np.errstate(all="ignore"):
            whole: NDArray[Any] = factors @ source
        return whole
    return combine(rows, lambda block, *_: factors @ block, threads=threads, diagnose=False).vector


def _short(rows: Rows, source: NDArray[Any]) -> bool:
    """Returns whether the rows are all of one small matrix that BLAS takes as it is."""
    as_it_is = source.dtype == rows.working and source.flags.c_contiguous
    whole = len(rows) == len(source) and not rows.zeroed.any()
    return as_it_is and whole and source.size <= _SHORT


def mix_rows(rows: Rows, matrix: Doubles, threads: int) -> NDArray[Any]:
    """Returns ``matrix @ rows`` (m, d), in the dtype of the updates."""
    mixed = np.empty((len(matrix), rows.size), rows.dtype)
    factors = matrix.astype(rows.working)

    def part(columns: slice) -> None:
        block = rows.block(columns)
        if mixed.dtype == block.dtype:
            np.matmul(factors, block, out=mixed[:, columns])
        else:
            mixed[:, columns] = factors @ block

    for _ in sweep(rows.size, rows.width(2), part, threads):
        pass
    return mixed
