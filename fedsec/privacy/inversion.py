"""Sampling symmetric integers by inverting a table, exact to 2^-160, at memory speed.

The first 16 bits of a draw decide alone wherever the table has no boundary between them and the
next 16-bit number: nearly always. Else 64 bits decide, from the first boundary there on, which is
mostly the only one; and where they equal those of a boundary, 128 more.

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

_CHUNK = 1 << 17  # draws at a time: few enough for the cache, enough for few calls
_OPEN = np.iinfo(np.int32).min  # in the guide, plus a boundary's place: 16 bits do not decide
_DECIDED = -(1 << 30)  # in the guide, what is not below it is a value
_STEPS = 4  # boundaries that are looked at one by one before they are searched


class Inversion:
    """A distribution on -r..r with p(z) = p(-z).

    Args:
        weights: Of 0, 1, ..., r: positive integers, proportional to the probabilities (r + 1,).
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self.reach = len(weights) - 1
        self._boundaries = _cumulate(weights)
        high = [boundary >> (BITS - 64) for boundary in self._boundaries]
        self._high = np.array(high + [(1 << 64) - 1] * _STEPS, np.uint64)  # steps end somewhere
        self._guide = self._make_guide()

    def sample(self, size: int, source: Keystream) -> Integers:
        """Returns `size` independent draws (size,); more than 2^17 at a time are slower."""
        words = source.words(size, np.uint16)
        out = np.take(self._guide, words, mode="wrap")
        undecided = np.flatnonzero(out < _DECIDED)
        if undecided.size:
            out[undecided] = self._decide(words[undecided], out[undecided] - _OPEN, source)
        return out

    def _decide(
        self, words: NDArray[np.uint16], places: NDArray[np.int32], source: Keystream
    ) -> Integers:
        """Returns the values for draws that begin with `words` (m,).

        Args:
            words: The first 16 bits of each draw.
            places: Of the first boundary that begins with them (m,).
            source: Of the bits that follow.
        """
        more = source.words(words.size, np.uint64) >> np.uint64(16)
        draws = (words.astype(np.uint64) << np.uint64(48)) | more
        beyond = np.arange(words.size)
        for _ in range(_STEPS):
            beyond = beyond[self._high[places[beyond]] <= draws[beyond]]
            places[beyond] += 1
        if beyond.size:
            places[beyond] = np.searchsorted(self._high[:-_STEPS], draws[beyond], side="right")
        for tie in np.flatnonzero(self._high[places - 1] == draws):
            low = source.words(2, np.uint64)
            draw = (int(draws[tie]) << 128) | (int(low[0]) << 64) | int(low[1])
            places[tie] = self._place(draw)
        return places - np.int32(self.reach)

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
        high = self._high[:-_STEPS]
        first = np.searchsorted(high, starts, side="left")
        last = np.searchsorted(high, starts | np.uint64((1 << 48) - 1), side="right")
        return np.where(first == last, first - self.reach, first + _OPEN).astype(np.int32)


def draw(terms: Sequence[tuple[int, Inversion]], size: int, source: Keystream) -> NDArray[np.int64]:
    """Returns `size` independent sums (size,) of a draw from each table times its factor."""
    out = np.empty(size, np.int64)
    for start in range(0, size, _CHUNK):
        part = out[start : start + _CHUNK]
        (factor, table), *others = terms
        np.multiply(table.sample(part.size, source), np.int64(factor), out=part)
        for factor, table in others:
            part += table.sample(part.size, source) * np.int64(factor)
    return out


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
