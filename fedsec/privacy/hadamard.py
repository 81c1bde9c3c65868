"""A public random rotation: it spreads a vector's weight evenly, so that few bits hold an entry.

The entries are dealt to blocks whose lengths are powers of two; each block is multiplied by random
signs and then by the orthonormal Hadamard matrix. Norms stay what they are.

Source: Suresh, Yu, Kumar, McMahan, "Distributed Mean Estimation with Limited Communication",
ICML 2017, section 3.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.privacy.keystream import Keystream

Doubles = NDArray[np.float64]
MAX_PADDING = 0.05
"""Share of d that padding may add."""

_RADIX = 5  # bits per turn: matrices of 32 x 32 are the fastest with float64


def block_lengths(size: int) -> tuple[int, ...]:
    """Returns lengths of blocks, powers of two, that hold `size` entries and at most 5 % more.

    As few as possible, and the last as long as possible: weight spreads better in a long block.

    >>> block_lengths(1_000_000), block_lengths(5130)
    ((1048576,), (4096, 1024, 256))
    """
    if size < 1:
        raise ConfigError(f"size must be >= 1, got {size}")
    spare = int(size * MAX_PADDING)
    lengths: list[int] = []
    left = size
    while left > 0:
        largest = 1 << ((left + spare).bit_length() - 1)
        lengths.append(largest)
        left -= largest
    return tuple(lengths)


class Rotation:
    """An orthonormal map from (d,) to (length,) and its transpose, both in O(d log d).

    Args:
        size: d, >= 1.
        seed: 32 bytes, public, fresh in each round; the same for all who take part.

    >>> turn = Rotation(5, bytes(32))
    >>> turned = turn.forward(np.arange(5.0))
    >>> turned.shape, np.round(turn.backward(turned), 9)
    ((5,), array([0., 1., 2., 3., 4.]))
    """

    def __init__(self, size: int, seed: bytes) -> None:
        self._size = size
        self._lengths = block_lengths(size)
        bits = np.unpackbits(Keystream(seed).words(-(-self.length // 8), np.uint8))
        self._negative = bits[: self.length].view(np.bool_)

    @property
    def length(self) -> int:
        """Entries of a rotated vector: d and padding."""
        return sum(self._lengths)

    def forward(self, vector: Doubles) -> Doubles:
        """Returns the rotated `vector` (..., length), of the same norm; a stack of them alike."""
        rotated = np.zeros((*vector.shape[:-1], self.length))
        for places, block in zip(_dealt(self._size), self._blocks(), strict=True):
            rotated[..., block.start : block.start + _count(places)] = vector[..., places]
        np.negative(rotated, out=rotated, where=self._negative)
        for block in self._blocks():
            rotated[..., block] = hadamard(rotated[..., block])
        return rotated

    def backward(self, rotated: Doubles) -> Doubles:
        """Returns the vector (d,) that `forward` made `rotated` (length,) of."""
        vector = np.empty(self._size)
        for places, block in zip(_dealt(self._size), self._blocks(), strict=True):
            turned = hadamard(rotated[block])
            np.negative(turned, out=turned, where=self._negative[block])
            vector[places] = turned[: _count(places)]
        return vector

    def _blocks(self) -> Iterator[slice]:
        start = 0
        for length in self._lengths:
            yield slice(start, start + length)
            start += length


def hadamard(block: Doubles) -> Doubles:
    """Returns the orthonormal Hadamard transform of `block` (..., 2^k). It is its own inverse."""
    left = block.shape[-1].bit_length() - 1
    turned = block
    while left > 0:  # the index's highest bits first, a few in each turn
        bits = min(left, _RADIX)
        left -= bits
        if left:
            turned = _matrix(bits) @ turned.reshape(-1, 1 << bits, 1 << left)
        else:
            turned = turned.reshape(-1, 1 << bits) @ _matrix(bits)
    return turned.reshape(block.shape)


@lru_cache(maxsize=_RADIX)
def _matrix(bits: int) -> Doubles:
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]]) / np.sqrt(2.0)
    return matrix


@lru_cache(maxsize=4)
def _dealt(size: int) -> tuple[slice | NDArray[np.intp], ...]:
    """Returns which entries each block takes: evenly from the whole, for layers lie together."""
    lengths = block_lengths(size)
    if len(lengths) == 1:
        return (slice(0, size),)
    left: NDArray[np.intp] = np.arange(size)
    places: list[slice | NDArray[np.intp]] = []
    for length in lengths:
        taken = min(length, left.size)
        turn = np.arange(left.size + 1) * taken // left.size
        mine = np.diff(turn) == 1
        places.append(left[mine])
        left = left[~mine]
    return tuple(places)


def _count(places: slice | NDArray[np.intp]) -> int:
    return int(places.stop) if isinstance(places, slice) else places.size
