"""Products and distances among the rows, from one pass over column blocks.

The origin is the model that was sent, since rows are differences from it: no row can move it. The
distance of two rows is ``|x|^2 + |y|^2 - 2 x.y``, which loses digits when they are near each other
and far from the origin. So the products are first formed cheaply, in float32 within blocks of
`CHEAP_COLUMNS` and float64 across blocks. Whatever the order of summation, the error of a product
is then at most ``g |x| |y|`` with ``g = CHEAP_COLUMNS * 2^-24``, and that of a squared distance at
most ``g (|x| + |y|)^2``; of rows mixed from the same ones, what they have in common cancels. If
that is within `TOLERANCE` of each squared distance the cheap products are certified; else the pass
is made again in float64. Squared distances that are smaller than their own bound, in float64 about
1e-12 of the squared norms, count as 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsec.robust.aggregate import Doubles, Precision
from fedsec.robust.blocks import (
    Block,
    Rows,
    Scratch,
    chunks,
    exact_squares,
    squared_norms,
    sweep,
    told_exactly,
    unusable,
)

CHEAP_COLUMNS = 512
ACCURATE_COLUMNS = 2048  # of 50 rows, a block of float64 stays in the cache
TOLERANCE = 1e-3
"""Largest relative error of a squared distance that passes; typical errors are 1000 times less."""

CHEAP_REACH = CHEAP_COLUMNS * 2.0**-24 * 1.01
"""g: the classical bound for a sum of as many products, whatever its order."""

FEW_ROWS = 256
_PROBES = 8
_SMALLEST = 2.0**-126  # a product below it may be flushed to zero


@dataclass(frozen=True)
class Measured:
    """What one pass says about the usable rows.

    Attributes:
        rows: The usable ones.
        excluded: Why, for each of the others.
        squares: Squared norms (n,).
        gram: Products (n, n); None if they were not asked for.
        precision: Of `gram`.
        reach: Relative error bound of `gram`: of an entry at most this times the two norms.
    """

    rows: Rows
    excluded: Mapping[int, str]
    squares: Doubles
    gram: Doubles | None = None
    precision: Precision = "none"
    reach: float = 0.0

    def take(self, places: NDArray[np.intp]) -> "Measured":
        """Returns what was measured in this order of all n; the rows stay as they are."""
        gram = None if self.gram is None else self.gram[np.ix_(places, places)]
        return replace(self, squares=self.squares[places], gram=gram)


def measure_norms(rows: Rows, *, zero: bool, threads: int) -> Measured:
    """Returns the norms of the rows that are finite. One pass."""
    squares = squared_norms(rows, threads)
    return _screened(Measured(rows, {}, squares), zero=zero)


def measure_gram(rows: Rows, *, zero: bool, threads: int, accurate: bool = False) -> Measured:
    """Returns norms and products of the rows that are finite, as cheaply as can be certified.

    One pass, or two if the cheap products are not certified. Time O(n^2 d), memory O(n^2).

    Args:
        rows: The rows.
        zero: Put zeros in the place of rows that are not finite, else leave them out.
        threads: Over how many the blocks are spread.
        accurate: Do not try the cheap products.
    """
    excluded: Mapping[int, str] = {}
    if rows.working == np.float32 and not accurate and _promising(rows, threads):
        found = _screened(_gram(rows, "float32", threads), zero=zero)
        if certified(found, plain_spans(found.squares)):
            return found
        rows, excluded = found.rows, found.excluded
    found = _screened(_gram(rows, "float64", threads), zero=zero)
    return Measured(
        found.rows,
        {**excluded, **found.excluded},
        found.squares,
        found.gram,
        found.precision,
        found.reach,
    )


def _promising(rows: Rows, threads: int) -> bool:
    """Returns whether cheap products of a few blocks here and there are certified.

    Only saves time: if they are not, those of all blocks hardly will be.
    """
    blocks = rows.size // CHEAP_COLUMNS
    if blocks < 8 * _PROBES:
        return True
    probe = _summed(rows, "float32", threads, every=blocks // _PROBES)
    finite = np.isfinite(np.diag(probe))
    gram = probe[np.ix_(finite, finite)]
    kept = Measured(rows, {}, np.diag(gram), gram, "float32", CHEAP_REACH)
    return certified(kept, plain_spans(kept.squares))


def certified(found: Measured, spans: Doubles, gram: Doubles | None = None) -> bool:
    """Returns whether distances are known to within `TOLERANCE`.

    Args:
        found: Where the products come from.
        spans: For each two (mixed) rows the sum of the norms of the parts of their difference
            (m, m), >= its norm.
        gram: Products of the mixed rows (m, m); None: those of `found`.
    """
    gram = found.gram if gram is None else gram
    if gram is None or found.precision != "float32":
        return True
    squares = np.diag(gram)
    with np.errstate(all="ignore"):
        distances = squares[:, None] + squares[None, :] - 2 * gram
        bound = found.reach * spans**2
        bound += 4 * found.rows.size * _SMALLEST
        fine = bound <= TOLERANCE * distances  # false for NaN: products that overflowed
    fine |= spans == 0  # mixed from the same rows in the same way
    np.fill_diagonal(fine, val=True)
    return bool(fine.all())


def norms_certified(found: Measured, matrix: Doubles, squares: Doubles) -> bool:
    """Returns whether the norms of mixed rows are known to within `TOLERANCE`.

    Args:
        found: Where the products come from.
        matrix: What mixes them (m, n).
        squares: Squared norms of the mixed rows (m,), from the products.
    """
    if found.gram is None or found.precision != "float32":
        return True
    with np.errstate(all="ignore"):
        lengths = np.abs(matrix) @ np.sqrt(found.squares)
        bound = found.reach * lengths**2 + found.rows.size * _SMALLEST
        return bool(((bound <= TOLERANCE * squares) | (lengths == 0)).all())


def squared_distances(gram: Doubles, spans: Doubles, reach: float) -> Doubles:
    """Returns the squared distances (m, m) of rows with these products; never negative.

    Args:
        gram: (m, m).
        spans: As for `certified`.
        reach: Relative error bound of `gram`; what is within it counts as 0.
    """
    squares = np.diag(gram)
    distances = squares[:, None] + squares[None, :] - 2 * gram
    distances[(distances <= reach * spans**2) | (spans == 0)] = 0.0
    np.fill_diagonal(distances, 0.0)
    return distances


def plain_spans(squares: Doubles) -> Doubles:
    """Returns the spans (n, n) of rows with these squared norms (n,)."""
    norms = np.sqrt(squares)
    spans: Doubles = np.add.outer(norms, norms)
    return spans


def mixed_spans(matrix: Doubles, squares: Doubles) -> Doubles:
    """Returns the spans (m, m) of the rows that `matrix` (m, n) mixes; parts in common cancel.

    Time O(m^2 n); above `FEW_ROWS` those of rows that have nothing in common, which are larger.
    """
    norms = np.sqrt(squares)
    if len(matrix) > FEW_ROWS:
        lengths = np.abs(matrix) @ norms
        loose: Doubles = np.add.outer(lengths, lengths)
        return loose
    return np.stack([np.abs(matrix - row) @ norms for row in matrix])


def distances_to(rows: Rows, there: int | Block, threads: int) -> Doubles:
    """Returns the squared distance of each row to one point (n,), from differences.

    In the working dtype; in float64 where its squares overflow or underflow.

    Args:
        rows: The rows.
        there: The place of one of them, or a vector (d,).
        threads: Over how many the blocks are spread.
    """

    def part(columns: slice) -> Doubles:
        block = rows.block(columns)
        point = block[there] if isinstance(there, int) else there[columns].astype(block.dtype)
        gaps = block - point
        return np.array([np.dot(gap, gap) for gap in gaps], np.float64)

    total = np.zeros(len(rows))
    for summand in sweep(rows.size, rows.width(2), part, threads):
        total += summand
    itself = there if isinstance(there, int) else None
    return told_exactly(rows, total, lambda row: 0.0 if row == itself else _gap(rows, row, there))


def _gap(rows: Rows, row: int, there: int | Block) -> float:
    """Returns the squared distance of a row to the point, in float64."""
    total = 0.0
    for columns in chunks(rows.size):
        if isinstance(there, int):
            point = rows.long(there, columns)
        else:
            point = there[columns].astype(np.float64)
        gap = rows.long(row, columns) - point
        total += float(np.dot(gap, gap))
    return total


def products_with(rows: Rows, vector: Block, threads: int) -> Doubles:
    """Returns the product of each row with `vector` (d,), in float64 (n,)."""
    scratch = Scratch()

    def part(columns: slice) -> Doubles:
        return _doubles(rows, columns, scratch) @ vector[columns].astype(np.float64)

    total = np.zeros(len(rows))
    for summand in sweep(rows.size, rows.width(2), part, threads):
        total += summand
    return total


def _gram(rows: Rows, precision: Precision, threads: int) -> Measured:
    gram = _summed(rows, precision, threads)
    reach = CHEAP_REACH
    if precision == "float64":
        reach = (ACCURATE_COLUMNS + rows.size / ACCURATE_COLUMNS) * 2.0**-53
    return Measured(rows, {}, exact_squares(rows, np.diag(gram)), gram, precision, reach)


def _summed(rows: Rows, precision: Precision, threads: int, every: int = 1) -> Doubles:
    """Returns the products (n, n), of all columns or of one in `every` blocks of them."""
    cheap = precision == "float32"
    columns = CHEAP_COLUMNS if cheap else ACCURATE_COLUMNS
    scratch = Scratch()

    def part(outer: slice) -> Doubles:
        block = rows.block(outer) if cheap else _doubles(rows, outer, scratch)
        total = np.zeros((len(rows), len(rows)))
        for start in range(0, block.shape[1], columns):
            inner = block[:, start : start + columns]
            total += inner @ inner.T  # numpy sees the same matrix twice and does half the work
        return total

    gram = np.zeros((len(rows), len(rows)))
    width = max(1, rows.width(1 if cheap else 3) // columns) * columns
    for summand in sweep(rows.size, columns if every > 1 else width, part, threads, every):
        gram += summand
    return gram


def _doubles(rows: Rows, columns: slice, scratch: Scratch) -> Block:
    block = rows.block(columns)
    if block.dtype == np.float64:
        return block
    doubles = scratch.take("doubles", block.shape, np.float64)
    np.copyto(doubles, block)
    return doubles


def _screened(found: Measured, *, zero: bool) -> Measured:
    """Returns `found` without what is not finite."""
    excluded = unusable(found.rows, found.squares)
    if not excluded:
        return found
    bad = ~np.isfinite(found.squares)
    rows = found.rows.without(bad, zero=zero)
    squares, gram = _less(found.squares, bad, zero=zero), found.gram
    if gram is not None:
        gram = _less(_less(gram, bad, zero=zero).T, bad, zero=zero).T
    return Measured(rows, excluded, squares, gram, found.precision, found.reach)


def _less(array: Doubles, bad: NDArray[np.bool_], *, zero: bool) -> Doubles:
    if not zero:
        return array[~bad]
    array = array.copy()
    array[bad] = 0.0
    return array
