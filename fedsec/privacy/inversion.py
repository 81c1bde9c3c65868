"""Sampling symmetric integers by inverting a table, exact to 2^-160, at memory speed.

The first 16 bits of a draw decide alone wherever the table has no boundary between them and the
next 16-bit number: nearly always. Else 64 bits decide, and where they equal those of a boundary,
128 more.

Source: Devroye, "Non-Uniform Random Variate Generation", 1986, sections III.2 (inversion) and
III.2.4 (guide tables).
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.privacy.keystream import Keystream

Integers: TypeAlias = NDArray[np.int32]

BITS = 192
MAX_REACH = 1 << 17
"""Largest absolute value in a table."""

_CHUNK = 1 << 15  # draws at a time: words, results and guide stay in the cache
_OPEN = np.iinfo(np.int32).min  # in the guide: 16 bits do not decide


class Inversion:
    """A distribution on -r..r with p(z) = p(-z).

    Args:
        weights: Of 0, 1, ..., r: positive integers, proportional to the probabilities (r + 1,).
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self.reach = len(weights) - 1
        self._boundaries = _cumulate(weights)
        self._high = np.array([b >> (BITS - 64) for b in self._boundaries], np.uint64)
        self._guide = self._make_guide()

    def sample(self, size: int, source: Keystream) -> Integers:
        """Returns `size` independent draws (size,)."""
        out = np.empty(size, np.int32)
        for start in range(0, size, _CHUNK):
            part = out[start : start + _CHUNK]
            words = source.words(part.size, np.uint16)
            np.take(self._guide, words, out=part, mode="wrap")
            undecided = np.flatnonzero(part == _OPEN)
            if undecided.size:
                part[undecided] = self._decide(words[undecided], source)
        return out

    def _decide(self, words: NDArray[np.uint16], source: Keystream) -> Integers:
        """Returns the values for draws that begin with `words` (m,)."""
        more = source.words(words.size, np.uint64) >> np.uint64(16)
        draws = (words.astype(np.uint64) << np.uint64(48)) | more
        places = np.searchsorted(self._high, draws, side="right")
        beside = np.searchsorted(self._high, draws, side="left")
        for tie in np.flatnonzero(places != beside):
            low = source.words(2, np.uint64)
            draw = (int(draws[tie]) << 128) | (int(low[0]) << 64) | int(low[1])
            places[tie] = self._place(draw)
        values: Integers = (places - self.reach).astype(np.int32)
        return values

    def _place(self, draw: int) -> int:
        """Returns how many boundaries are at most `draw`, a number of 192 bits."""
        low, high = 0, len(self._boundaries)
        while low < high:
            middle = (low + high) // 2
            if self._boundaries[middle] <= draw:
                low = middle + 1
            else:
                high = middle
        return low

    def _make_guide(self) -> NDArray[np.int32]:
        starts = np.arange(1 << 16, dtype=np.uint64) << np.uint64(48)
        first = np.searchsorted(self._high, starts, side="left")
        last = np.searchsorted(self._high, starts | np.uint64((1 << 48) - 1), side="right")
        return np.where(first == last, first - self.reach, _OPEN).astype(np.int32)


def _cumulate(weights: Sequence[int]) -> list[int]:
    """Returns P(Z <= z) for z = -r..r-1, in units of 2^-192, rounded down.

    The last value needs no boundary: whatever is beyond the others is r.
    """
    reach = len(weights) - 1
    total = weights[0] + 2 * sum(weights[1:])
    boundaries: list[int] = []
    below = 0
    for z in range(-reach, reach):
        below += weights[abs(z)]
        boundaries.append((below << BITS) // total)
    return boundaries
