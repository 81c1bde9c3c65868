"""A random order that everyone who has the seed draws alike.

Byte form: docs/spec/secagg-graph.md, section "Graph".
"""

import hashlib
from collections.abc import Iterator
from itertools import count
from struct import Struct

from fedsec.errors import ConfigError

SEED_BYTES = 32

_WORDS = 1 << 32  # values of one draw
_READ = Struct(">8I").unpack


def shuffled(size: int, label: bytes, seed: bytes) -> list[int]:
    """Returns the numbers 0..size-1 in the order that `seed` draws, each order alike likely.

    A Fisher-Yates shuffle on the stream SHA-256(label || seed || u64 block), read as big-endian
    words of 4 bytes; a word that would favour small numbers is skipped.

    Args:
        size: How many, <= 2^32.
        label: What the order is for, so that one seed gives unrelated orders.
        seed: 32 bytes.

    Raises:
        ConfigError: The seed has another length.
    """
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"the seed of an order must have {SEED_BYTES} bytes, got {len(seed)}")
    order, words = list(range(size)), _words(label + seed)
    for last in range(size - 1, 0, -1):
        chosen = _below(last + 1, words)
        order[last], order[chosen] = order[chosen], order[last]
    return order


def _below(bound: int, words: Iterator[int]) -> int:
    """Returns a number in 0..bound-1, each alike likely; 1 <= bound <= 2^32."""
    fair = _WORDS - _WORDS % bound
    while (word := next(words)) >= fair:
        pass
    return word % bound


def _words(prefix: bytes) -> Iterator[int]:
    for block in count():
        yield from _READ(hashlib.sha256(prefix + block.to_bytes(8, "big")).digest())
