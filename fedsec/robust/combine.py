"""The second pass: one result per column block, and how each row lies to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.robust.aggregate import Doubles
from fedsec.robust.blocks import Block, Rows, Scratch, at_once, sweep

_LONG = 1 << 17  # columns

Former: TypeAlias = Callable[[Block, slice, Scratch], Block]
"""From the rows' block (n, width) and its columns to the result's (width,)."""


@dataclass(frozen=True)
class Combined:
    """The result and its products with the rows.

    Attributes:
        vector: (d,), in the dtype of the updates.
        dots: Product with each row (n,); None if they were not asked for.
        square: Its squared norm; 0 if it was not asked for.
        squares: Squared norms of the rows (n,), summed in the working dtype within a block; None
            if they were not asked for.
    """

    vector: NDArray[Any]
    dots: Doubles | None
    square: float
    squares: Doubles | None = None


def combine(
    rows: Rows, former: Former, *, threads: int, diagnose: bool, measure: bool = False
) -> Combined:
    """Returns what `former` makes of all column blocks.

    Args:
        rows: The usable rows.
        former: Called with each block, in any thread.
        threads: Over how many the blocks are spread.
        diagnose: Whether the products with the rows are wanted.
        measure: Whether their squared norms are wanted, too.
    """
    vector = np.empty(rows.size, rows.dtype)
    scratch = Scratch()

    def part(columns: slice) -> tuple[Block | None, float, Block | None]:
        block = rows.block(columns)
        out = former(block, columns, scratch)
        vector[columns] = out
        own = np.vecdot(block, block) if measure else None
        if not diagnose:
            return None, 0.0, own
        return block @ out, float(np.dot(out, out)), own

    dots, squares, square = np.zeros(len(rows)), np.zeros(len(rows)), 0.0
    for along, one, own in sweep(rows.size, rows.width(), part, threads):
        square += one
        if along is not None:
            dots += along
        if own is not None:
            squares += own
    return Combined(vector, dots if diagnose else None, square, squares if measure else None)


def weighted_sum(rows: Rows, weights: Doubles, threads: int) -> NDArray[Any]:
    """Returns ``weights @ rows`` (d,), in the dtype of the updates."""
    vector = np.empty(rows.size, rows.dtype)
    # BLAS is at its best on long rows, and a block that is not copied costs nothing.
    _product(rows, weights, vector, _LONG if rows.bare else rows.width(), threads)
    return vector


def mix_rows(rows: Rows, matrix: Doubles, threads: int) -> NDArray[Any]:
    """Returns ``matrix @ rows`` (m, d), in the dtype of the updates."""
    mixed = np.empty((len(matrix), rows.size), rows.dtype)
    _product(rows, matrix, mixed, rows.width(2), threads)
    return mixed


def _product(rows: Rows, matrix: Doubles, out: NDArray[Any], width: int, threads: int) -> None:
    """Writes ``matrix @ rows`` to `out`, `width` columns at a time."""
    factors = matrix.astype(rows.working)

    def part(columns: slice) -> None:
        block = rows.block(columns)
        if out.dtype == block.dtype:
            np.matmul(factors, block, out=out[..., columns])
        else:
            out[..., columns] = factors @ block

    if rows.size <= width:
        at_once(part, rows.size)
        return
    for _ in sweep(rows.size, width, part, threads):
        pass
