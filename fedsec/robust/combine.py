"""The second pass: one result per column block, and how each row lies to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedsec.robust.aggregate import Doubles
from fedsec.robust.blocks import (
    TINY,
    Block,
    Rows,
    Scratch,
    at_once,
    sum_of_products,
    sweep,
    told_exactly,
)
from fedsec.vectors import is_finite

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
    rows: Rows,
    former: Former,
    *,
    threads: int,
    diagnose: bool,
    measure: bool = False,
    precise: bool = False,
) -> Combined:
    """Returns what `former` makes of all column blocks.

    Args:
        rows: The usable rows.
        former: Called with each block, in any thread.
        threads: Over how many the blocks are spread.
        diagnose: Whether the products with the rows are wanted.
        measure: Whether their squared norms are wanted, too, as the rows have not been screened:
            what is not finite stays so. Of screened rows the result is finite.
        precise: Whether blocks are handed over in float64, since rows may cancel each other.
    """
    vector = np.empty(rows.size, rows.dtype)
    scratch = Scratch()

    def part(columns: slice) -> tuple[Block | None, float, Block | None]:
        block = rows.block(columns)
        given = block.astype(np.float64, copy=False) if precise else block
        out = former(given, columns, scratch).astype(block.dtype, copy=False)
        own = np.vecdot(block, block) if measure else None
        square = float(np.dot(out, out))
        if not (measure or np.isfinite(square) or np.isfinite(out).all()):
            # A sum of float32 overflowed on the way.
            out = former(block.astype(np.float64), columns, scratch).astype(block.dtype)
        vector[columns] = out
        return (block @ out if diagnose else None), square, own

    dots, squares, square = np.zeros(len(rows)), np.zeros(len(rows)), 0.0
    for along, one, own in sweep(rows.size, rows.width(), part, threads):
        square += one
        if along is not None:
            dots += along
        if own is not None:
            squares += own
    return Combined(vector, dots if diagnose else None, square, squares if measure else None)


def exact_products(
    rows: Rows, combined: Combined, dots: Doubles, *, zero: NDArray[np.bool_]
) -> tuple[Doubles, float]:
    """Returns the result's products with the rows (n,) and its squared norm, whatever their size.

    Args:
        rows: The rows, finite.
        combined: The result.
        dots: Its products with the rows as they were formed; in float32 they overflow or vanish.
        zero: Which rows are zero (n,), as absent nodes' are: their products need no second look.
    """
    vector, square = combined.vector, combined.square
    if not np.isfinite(square) or square < TINY:
        square = sum_of_products(lambda some: vector[some], lambda some: vector[some], rows.size)
    if not square:
        return np.zeros(len(rows)), 0.0

    def exact(row: int) -> float:
        if zero[row]:
            return 0.0
        return sum_of_products(
            lambda some: rows.long(row, some), lambda some: vector[some], rows.size
        )

    return told_exactly(rows, dots, exact), square


def weighted_sum(rows: Rows, weights: Doubles, threads: int) -> NDArray[Any]:
    """Returns ``weights @ rows`` (d,), in the dtype of the updates.

    Finite if the rows are and the weights' magnitudes sum to at most 1.
    """
    vector = plain_sum(rows, weights, threads)
    if not is_finite(vector):  # a sum of float32 overflowed on the way
        _product(rows, weights, vector, threads, width=rows.width(2), precision=np.float64)
    return vector


def plain_sum(rows: Rows, weights: Doubles, threads: int) -> NDArray[Any]:
    """Returns ``weights @ rows`` (d,), in the dtype of the updates; large rows may overflow."""
    vector = np.empty(rows.size, rows.dtype)
    # BLAS is at its best on long rows, and a block that is not copied costs nothing.
    width = _LONG if rows.bare else rows.width()
    _product(rows, weights, vector, threads, width=width, precision=rows.working)
    return vector


def mix_rows(rows: Rows, matrix: Doubles, threads: int, *, precise: bool = False) -> NDArray[Any]:
    """Returns ``matrix @ rows`` (m, d), in the dtype of the updates; finite if the rows are.

    Args:
        rows: The rows.
        matrix: (m, n).
        threads: Over how many the column blocks are spread.
        precise: Whether sums are formed in float64, since rows may cancel each other.
    """
    mixed = np.empty((len(matrix), rows.size), rows.dtype)
    _product(rows, matrix, mixed, threads, width=rows.width(2), precision=rows.working)
    if precise or not all(is_finite(row) for row in mixed):
        _product(rows, matrix, mixed, threads, width=rows.width(3), precision=np.float64)
    return mixed


def _product(
    rows: Rows,
    matrix: Doubles,
    out: NDArray[Any],
    threads: int,
    *,
    width: int,
    precision: DTypeLike,
) -> None:
    """Writes ``matrix @ rows`` to `out`, `width` columns at a time, summed in `precision`."""
    factors = matrix.astype(precision)

    def part(columns: slice) -> None:
        block = rows.block(columns).astype(precision, copy=False)
        if out.dtype == block.dtype:
            np.matmul(factors, block, out=out[..., columns])
        else:
            out[..., columns] = factors @ block

    if rows.size <= width:
        at_once(part, rows.size)
        return
    for _ in sweep(rows.size, width, part, threads):
        pass
