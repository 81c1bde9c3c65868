"""The updates as column blocks: what is looked at, in which precision, by how many threads.

The rows are never copied as a whole and never written to. A block is a view where the rows are one
float32 or float64 matrix (a memory map too), and a copy of the block's size otherwise.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # ships none

from fedsec.errors import ConfigError
from fedsec.robust.options import Row, Updates

Block: TypeAlias = NDArray[Any]
T = TypeVar("T")

FLOATS = frozenset({"float16", "float32", "float64"})
_SINGLE: np.dtype[Any] = np.dtype(np.float32)
_DOUBLE: np.dtype[Any] = np.dtype(np.float64)
_DTYPES = frozenset(np.dtype(name) for name in FLOATS)
HUGE = 1e140
"""An entry beyond this counts as not finite: sums of its square would overflow float64."""
TINY = 1e-25
"""Below it the products of float32 that were summed may have underflowed, one by one."""

_BLOCK_ENTRIES = 1 << 19  # 2 MiB of float32: with its working copies it stays near the cache
_MIN_WIDTH, _MAX_WIDTH = 1024, 32768
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Rows:
    """n usable rows of d entries, read by column block.

    Attributes:
        source: The matrix, or the rows.
        used: Places in `source` of the rows that are read (n,).
        zeroed: Which of the n are read as zeros (n,); None: none is.
        size: d.
        dtype: Of what comes back to the caller.
        factors: What each of m rows takes from those that are read (m, n): they are formed block by
            block, in float64, and nobody sees the n. None: the n rows themselves.
    """

    source: Updates
    used: NDArray[np.intp]
    zeroed: NDArray[np.bool_] | None
    size: int
    dtype: np.dtype[Any]
    factors: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.used if self.factors is None else self.factors)

    @property
    def working(self) -> np.dtype[Any]:
        """In which dtype blocks come: float64 for float64 and for what is formed, else float32."""
        return _DOUBLE if self.dtype == _DOUBLE or self.factors is not None else _SINGLE

    @property
    def bare(self) -> bool:
        """Whether blocks are views of one matrix, not copies."""
        if not (isinstance(self.source, np.ndarray) and self.source.dtype == self.working):
            return False
        if self.factors is not None:
            return False
        return len(self.used) == len(self.source) and self.zeroed is None

    def block(self, columns: slice) -> Block:
        """Returns the columns (n, width); do not write to it."""
        if self.factors is not None:
            read = replace(self, factors=None).block(columns)
            formed: Block = self.factors @ read.astype(_DOUBLE, copy=False)
            return formed
        if isinstance(self.source, np.ndarray):
            whole = len(self.used) == len(self.source)
            found = self.source[:, columns] if whole else self.source[self.used, columns]
            block = found.astype(self.working, copy=False)
            if self.zeroed is not None:
                block = block.copy()
                block[self.zeroed] = 0
            return block
        width = len(range(*columns.indices(self.size)))
        block = np.zeros((len(self), width), self.working)
        for place in self._read():
            block[place] = self.source[self.used[place]][columns]
        return block

    def columns(self, places: NDArray[np.intp]) -> NDArray[np.float64]:
        """Returns some columns (n, len(places)), in float64."""
        found = np.zeros((len(self.used), len(places)))
        for place in self._read():
            found[place] = self.source[self.used[place]][places]
        return found if self.factors is None else self.factors @ found

    def long(self, row: int, columns: slice) -> NDArray[np.float64]:
        """Returns some columns of one of the n rows, in float64."""
        if self.factors is not None:
            whole = np.zeros(len(range(*columns.indices(self.size))))
            for at in np.flatnonzero(self.factors[row]):
                one = replace(self, factors=None).long(int(at), columns)
                whole += self.factors[row, at] * one
            return whole
        if self.zeroed is not None and self.zeroed[row]:
            return np.zeros(len(range(*columns.indices(self.size))))
        part: NDArray[np.float64] = self.source[self.used[row]][columns].astype(np.float64)
        return part

    def without(self, bad: NDArray[np.bool_], *, zero: bool) -> "Rows":
        """Returns the rows less the `bad` ones (n,), or with zeros in their place."""
        if not bad.any():
            return self
        if zero:
            return replace(self, zeroed=bad if self.zeroed is None else self.zeroed | bad)
        return self.take(np.flatnonzero(~bad))

    def formed(self, factors: NDArray[np.float64]) -> "Rows":
        """Returns the rows ``factors @ rows`` (m, d), which are never there as a whole."""
        before = self.factors
        return replace(self, factors=factors if before is None else factors @ before)

    def take(self, places: NDArray[np.intp]) -> "Rows":
        """Returns the rows at these places among the n, which are not formed ones."""
        zeroed = None if self.zeroed is None else self.zeroed[places]
        return replace(self, used=self.used[places], zeroed=zeroed)

    def _read(self) -> NDArray[np.intp]:
        """Returns the places among the n that are not zeroed: a zeroed row may have any shape."""
        return np.arange(len(self.used)) if self.zeroed is None else np.flatnonzero(~self.zeroed)

    def width(self, copies: int = 1) -> int:
        """Returns how many columns make a good block where `copies` of it are worked on."""
        fitting = _BLOCK_ENTRIES // max(1, max(len(self), len(self.used)) * copies)
        return max(_MIN_WIDTH, min(_MAX_WIDTH, fitting // 1024 * 1024))


def open_rows(updates: Updates, *, zero: bool) -> tuple[Rows, dict[int, str]]:
    """Returns the rows of the right shape and dtype, and what is wrong with the others.

    Of separate rows, right is what most of them have.

    Raises:
        ConfigError: There are no rows, they are not floating-point, or no form is the most common.
    """
    if isinstance(updates, np.ndarray):
        if updates.ndim != 2 or not updates.size:  # noqa: PLR2004 - rows and columns
            raise ConfigError(f"updates must be a matrix (n, d), got shape {updates.shape}")
        _check_dtype(updates.dtype)
        return _rows(updates, np.arange(len(updates)), updates.shape[1], updates.dtype), {}
    forms = [_form(row) for row in updates]
    ranked = Counter(forms).most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        raise ConfigError(f"updates must mostly have one shape and dtype, got {ranked}")
    right = ranked[0][0]
    _check_dtype(np.dtype(right[1]))
    if len(right[0]) != 1 or not right[0][0]:
        raise ConfigError(f"each update must be a vector (d,), got shape {right[0]}")
    wrong = {
        place: f"has shape {form[0]} and dtype {form[1]}, most have {right[0]} and {right[1]}"
        for place, form in enumerate(forms)
        if form != right
    }
    bad = np.array([form != right for form in forms])
    rows = _rows(updates, np.arange(len(forms)), right[0][0], np.dtype(right[1]))
    return (rows.without(bad, zero=zero) if wrong else rows), wrong


def _rows(source: Updates, used: NDArray[np.intp], size: int, dtype: np.dtype[Any]) -> Rows:
    return Rows(source, used, None, size, dtype)


def _form(row: Row) -> tuple[tuple[int, ...], str]:
    return row.shape, row.dtype.newbyteorder("=").name


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype not in _DTYPES and dtype.newbyteorder("=") not in _DTYPES:
        raise ConfigError(f"updates must be {', '.join(sorted(FLOATS))}, got {dtype}")


class Scratch(threading.local):
    """Buffers that a thread uses again for each block, so that no page is touched anew."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[Any]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Returns an array of `shape` with anything in it; the same memory for the same `name`."""
        count = int(np.prod(shape))
        held = self._held.get(name)
        if held is None or held.size < count or held.dtype != dtype:
            held = self._held[name] = np.empty(count, dtype)
        return held[:count].reshape(shape)


def sweep(
    size: int, width: int, work: Callable[[slice], T], threads: int, every: int = 1
) -> Iterator[T]:
    """Yields what `work` returns for each column block, in the order of the columns.

    The blocks depend on `width` alone, so that sums over them come out the same for any number of
    threads. BLAS keeps to one thread meanwhile, in the whole process: on small blocks its own ones
    only wait. Of two calls at once the first to end frees it.

    Args:
        size: d.
        width: Columns in a block, >= 1.
        work: Called with each block's columns, in any thread.
        threads: >= 1.
        every: Looks at each so many-th block only.
    """
    quiet = partial(_quietly, work)
    blocks = [slice(start, min(start + width, size)) for start in range(0, size, width * every)]
    with _one_blas_thread():
        if threads == 1 or len(blocks) == 1:
            yield from map(quiet, blocks)
            return
        with ThreadPoolExecutor(threads) as pool:
            # A batch at a time bounds how many results wait for their turn.
            for start in range(0, len(blocks), 4 * threads):
                yield from pool.map(quiet, blocks[start : start + 4 * threads])


def at_once(work: Callable[[slice], T], size: int) -> T:
    """Returns what `work` returns for all columns as one block; see `sweep`."""
    with _one_blas_thread():
        return _quietly(work, slice(0, size))


def _quietly(work: Callable[[slice], T], columns: slice) -> T:
    with np.errstate(all="ignore"):  # overflow is looked for in the results
        return work(columns)


def _one_blas_thread() -> AbstractContextManager[object]:
    """Returns a block in which BLAS keeps to one thread, in the whole process."""
    if all(library.num_threads == 1 for library in _blas().lib_controllers):
        return nullcontext()  # to say so again would take longer than a short sum
    limited: AbstractContextManager[object] = _blas().limit(limits=1)
    return limited


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def squared_norms(rows: Rows, threads: int) -> NDArray[np.float64]:
    """Returns the squared L2 norm of each row (n,); NaN or infinite for rows that are not usable.

    A float32 row whose squares overflow is summed again in float64.
    """
    if rows.factors is not None:
        return exact_squares(rows, _squares_by_block(rows, threads))

    def norms(some: slice) -> Iterable[float]:
        if rows.bare:
            return _squares_of(rows, some)
        return [_square_of(rows, row) for row in range(some.start, some.stop)]

    total: list[float] = []
    width = len(rows) if threads == 1 else max(1, len(rows) // (8 * threads))
    for part in sweep(len(rows), width, norms, threads):
        total.extend(part)
    return exact_squares(rows, np.array(total))


def unusable(rows: Rows, squares: NDArray[np.float64]) -> Mapping[int, str]:
    """Returns the reason by place in the caller's updates; `squares` as `squared_norms` says."""
    return {int(rows.used[row]): "is not finite" for row in np.flatnonzero(~np.isfinite(squares))}


def exact_squares(rows: Rows, total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns `total` (n,) with what overflowed or nearly underflowed summed again in float64."""
    return told_exactly(rows, total, lambda row: _square(rows, row))


def told_exactly(
    rows: Rows, total: NDArray[np.float64], exact: Callable[[int], float]
) -> NDArray[np.float64]:
    """Returns `total` (n,) with `exact` of the rows where it overflowed, or float32 underflowed.

    Args:
        rows: The rows.
        total: Of each row a sum of products, formed in the working dtype.
        exact: From the place of a row to its sum in float64.
    """
    total = total.copy()
    tiny = (np.abs(total) < TINY) & (rows.working == np.float32)
    for row in np.flatnonzero(~(np.abs(total) < HUGE * HUGE) | tiny):
        total[row] = exact(int(row))
    return total


def chunks(size: int) -> Iterator[slice]:
    """Yields the columns a chunk at a time, for sums over one row."""
    return (slice(start, start + _CHUNK) for start in range(0, size, _CHUNK))


def sum_of_products(
    first: Callable[[slice], Block], second: Callable[[slice], Block], size: int
) -> float:
    """Returns the sum in float64 over `size` columns, of which both are asked a chunk at a time."""
    total = 0.0
    for columns in chunks(size):
        one, other = (part(columns).astype(np.float64, copy=False) for part in (first, second))
        total += float(np.dot(one, other))
    return total


def _squares_of(rows: Rows, some: slice) -> NDArray[np.float64]:
    """Sums in the working dtype within chunks, in float64 across them; of rows of one matrix."""
    matrix = np.asarray(rows.source[some])
    total = np.zeros(len(matrix))
    for columns in chunks(rows.size):
        part = matrix[:, columns]
        total += np.vecdot(part, part)
    return total


def _squares_by_block(rows: Rows, threads: int) -> NDArray[np.float64]:
    """Sums block by block, for rows that are formed so."""

    def part(columns: slice) -> NDArray[np.float64]:
        block = rows.block(columns)
        squares: NDArray[np.float64] = np.vecdot(block, block)
        return squares

    total = np.zeros(len(rows))
    for summand in sweep(rows.size, rows.width(3), part, threads):
        total += summand
    return total


def _square_of(rows: Rows, row: int) -> float:
    """Sums in the working dtype within chunks, in float64 across them."""
    if rows.zeroed is not None and rows.zeroed[row]:
        return 0.0
    whole = rows.source[rows.used[row]]
    total = 0.0
    for columns in chunks(rows.size):
        part = whole[columns].astype(rows.working, copy=False)
        total += float(np.dot(part, part))
    return total


def _square(rows: Rows, row: int) -> float:
    """Sums in float64; NaN where an entry is not finite or `HUGE`."""
    total = 0.0
    for columns in chunks(rows.size):
        part = rows.long(row, columns)
        if not float(np.abs(part).max()) < HUGE:
            return float("nan")
        total += float(np.dot(part, part))
    return total
