"""Masks: AES-128-CTR keystreams as little-endian words, added to a vector mod 2^b.

    y = x + sum of added streams - sum of removed streams   (mod 2^16 or 2^32, word by word)

The vector is cut into one range per core; within a range it is done chunk by chunk, all streams on
one chunk before the next, so that the chunk stays in the cache. A keystream can be entered at any
word: block ``i`` of a stream is counter + i. AES and sums run without the interpreter's lock.

Source: NIST SP 800-38A section 6.5 (CTR). Specification: docs/spec/secagg.md, section "Masks".
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.processors import threads_allowed
from fedsec.secagg.keys import Stream

Words: TypeAlias = NDArray[np.uint16] | NDArray[np.uint32]

WORD_TYPES: dict[int, np.dtype[Any]] = {16: np.dtype("<u2"), 32: np.dtype("<u4")}
BLOCK = 16  # bytes of AES
CHUNK = 1 << 17  # bytes; a chunk, its keystream and the zeros fit in a second cache of 512 KiB
_WORTH = 1 << 20  # bytes of keystream, fewer of which are not worth a thread
_ZEROS = memoryview(bytes(CHUNK))


def word_type(word_bits: int) -> np.dtype[Any]:
    """Returns the dtype of words mod 2^word_bits.

    Raises:
        ConfigError: It is neither 16 nor 32.
    """
    if word_bits not in WORD_TYPES:
        raise ConfigError(f"word_bits must be 16 or 32, got {word_bits}")
    return WORD_TYPES[word_bits]


def apply(
    vector: Words,
    added: Sequence[Stream],
    removed: Sequence[Stream],
    *,
    offset: int = 0,
    threads: int | None = None,
) -> None:
    """Adds and removes streams in place.

    Args:
        vector: Words (d,), contiguous; changed.
        added: Streams to add.
        removed: Streams to subtract.
        offset: Place of ``vector[0]`` in the streams, in words, on a block's boundary.
        threads: Cores to use; None: all that this process may use.

    Raises:
        ConfigError: `vector` or `offset` is unfit.
    """
    _check(vector, offset)
    if vector.size == 0 or not (added or removed):
        return
    cores = threads or threads_allowed()
    worth = vector.nbytes * (len(added) + len(removed)) // _WORTH
    ranges = _ranges(vector.nbytes, max(1, min(cores, worth)))
    jobs = [
        (vector.view(np.uint8)[start:end].view(vector.dtype), start + offset * vector.itemsize)
        for start, end in ranges
    ]
    (first, start), *others = jobs
    if not others:
        _apply_range(first, start, added, removed)
        return
    with ThreadPoolExecutor(len(others)) as pool:
        begun = [pool.submit(_apply_range, part, at, added, removed) for part, at in others]
        _apply_range(first, start, added, removed)
        for each in begun:
            each.result()


def _check(vector: Words, offset: int) -> None:
    if vector.dtype not in WORD_TYPES.values() or vector.ndim != 1:
        raise ConfigError(f"masked are uint16 or uint32 (d,), got {vector.dtype} {vector.shape}")
    if not vector.flags.c_contiguous or offset * vector.itemsize % BLOCK:
        raise ConfigError("a masked vector is contiguous and begins on a block of 16 bytes")


def keystream(stream: Stream, words: int, word_bits: int, *, offset: int = 0) -> Words:
    """Returns words ``offset .. offset + words`` of a stream, for tests and for small vectors."""
    dtype = word_type(word_bits)
    skip = offset * dtype.itemsize % BLOCK
    wanted = skip + words * dtype.itemsize
    context = _enter(stream, offset * dtype.itemsize // BLOCK)
    made: Words = np.frombuffer(context.update(bytes(wanted))[skip:], dtype)
    return made


def _apply_range(
    vector: Words, offset: int, added: Sequence[Stream], removed: Sequence[Stream]
) -> None:
    """Does one range; `offset` is its place in the streams, in bytes."""
    block = offset // BLOCK
    streams: list[tuple[CipherContext, np.ufunc]] = [
        *((_enter(stream, block), np.add) for stream in added),
        *((_enter(stream, block), np.subtract) for stream in removed),
    ]
    buffer = bytearray(min(CHUNK, vector.nbytes) + BLOCK - 1)  # the cipher asks for so much more
    masks = np.frombuffer(buffer, vector.dtype, min(CHUNK, vector.nbytes) // vector.itemsize)
    for start in range(0, vector.size, masks.size):
        chunk = vector[start : start + masks.size]
        blank, mask = _ZEROS[: chunk.nbytes], masks[: chunk.size]
        for context, operation in streams:
            context.update_into(blank, buffer)
            operation(chunk, mask, chunk)
    masks[:] = 0  # a keystream is a secret


def _enter(stream: Stream, block: int) -> CipherContext:
    """Returns the keystream from `block` on."""
    counter = (int.from_bytes(stream.counter, "big") + block) % 2**128
    mode = CTR(counter.to_bytes(BLOCK, "big"))
    return Cipher(AES(stream.key), mode).encryptor()


def _ranges(size: int, count: int) -> list[tuple[int, int]]:
    """Returns `count` ranges of about equal length over `size` bytes, on chunk boundaries."""
    chunks = -(-size // CHUNK)
    edges = [min(size, chunks * part // count * CHUNK) for part in range(count + 1)]
    return [(a, b) for a, b in pairwise(edges) if a < b]
