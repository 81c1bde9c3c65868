"""The seeds of many nodes at once, in the bits that each of them would derive by itself.

Source: M. E. O'Neill, "Developing a seed_seq Alternative", 2015, as numpy's `SeedSequence` fixes
its constants. Of a small node's round, a call of that for each node took a tenth.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsec.tasks.seeds import training_seed

_Words = NDArray[np.uint32]

_POOL = 4
_SHIFT = np.uint32(16)
_LEFT, _RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)


def training_seeds(seed: int, round_number: int, node_ids: Sequence[int]) -> list[int]:
    """Returns `training_seed` of each node."""
    if max(seed, round_number) >= 2**32:  # with a node's two, more words than the pool holds
        return [training_seed(seed, round_number, node_id) for node_id in node_ids]
    halves = np.array([node_id % 2**64 for node_id in node_ids], "<u8").view("<u4").reshape(-1, 2)
    words = np.empty((_POOL, len(node_ids)), np.uint32)
    words[0], words[1], words[2:] = seed, round_number, halves.T
    pool = _hashed(words, *_IN)
    for source, (others, constants) in enumerate(_STIRRED):
        stirred = _LEFT * pool[others] - _RIGHT * _hashed(pool[source], *constants)
        pool[others] = stirred ^ (stirred >> _SHIFT)
    low, high = _hashed(pool[:2], *_OUT).astype(np.uint64)
    found: list[int] = ((high << np.uint64(32) | low) >> np.uint64(1)).tolist()
    return found


def _hashed(words: _Words, first: _Words, second: _Words) -> _Words:
    mixed = (words ^ first) * second
    return mixed ^ (mixed >> _SHIFT)


def _constants(start: int, factor: int, begin: int, count: int) -> tuple[_Words, _Words]:
    """Returns powers of `factor` from the `begin`-th on, and each one's next (count, 1)."""
    powers = [start * pow(factor, begin + place, 2**32) % 2**32 for place in range(count + 1)]
    column = np.array(powers, np.uint32)[:, None]
    return column[:-1], column[1:]


_IN = _constants(0x43B0D7E5, 0x931E8875, 0, _POOL)
_OUT = _constants(0x8B51F9DD, 0x58F38DED, 0, 2)
_STIRRED = [
    (
        np.array([place for place in range(_POOL) if place != source]),
        _constants(0x43B0D7E5, 0x931E8875, _POOL + (_POOL - 1) * source, _POOL - 1),
    )
    for source in range(_POOL)
]
"""For each word of the pool: which others it is stirred into, and by what it is hashed for them."""
