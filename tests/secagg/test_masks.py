"""Masks: any chunk, any core, any offset gives the same words, and all words occur equally often."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsec.errors import ConfigError
from fedsec.secagg import masks
from fedsec.secagg.keys import Stream
from tests.memory import peak_of
from tests.secagg import naive

STREAMS = [Stream.of(bytes([n]) * 16 + bytes([255 - n]) * 16) for n in range(6)]


def total(size: int, bits: int, offset: int = 0) -> masks.Words:
    """What the first three streams add and the others take away, word by word."""
    parts = [masks.keystream(stream, size, bits, offset=offset) for stream in STREAMS]
    made: masks.Words = sum(parts[:3], np.zeros(size, masks.word_type(bits)))
    for part in parts[3:]:
        made -= part
    return made


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("size", [1, 7, 65_536, 65_537, 400_001])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_chunks_and_cores_change_nothing(bits: int, size: int, threads: int) -> None:
    vector = np.arange(size).astype(masks.word_type(bits))
    expected = vector + total(size, bits)
    masks.apply(vector, STREAMS[:3], STREAMS[3:], threads=threads)
    assert np.array_equal(vector, expected)


@given(block=st.integers(0, 2**20), size=st.integers(1, 50), bits=st.sampled_from([16, 32]))
def test_a_stream_can_be_entered_at_any_block(block: int, size: int, bits: int) -> None:
    offset = block * 128 // bits
    vector = np.zeros(size, masks.word_type(bits))
    masks.apply(vector, STREAMS[:1], [], offset=offset)
    derived = STREAMS[0].key + STREAMS[0].counter
    assert vector.tolist() == naive.words(derived, size, bits, offset)


def test_what_is_added_and_removed_leaves_the_vector() -> None:
    vector = np.full(1000, 2**32 - 1, np.uint32)
    masks.apply(vector, STREAMS, STREAMS)
    assert (vector == 2**32 - 1).all()


@pytest.mark.parametrize("bit", range(0, 256, 5))
def test_every_bit_of_a_stream_s_key_and_counter_counts(bit: int) -> None:
    derived = bytearray(STREAMS[1].key + STREAMS[1].counter)
    derived[bit // 8] ^= 1 << bit % 8
    changed = masks.keystream(Stream.of(bytes(derived)), 1000, 32)
    same = np.count_nonzero(changed == masks.keystream(STREAMS[1], 1000, 32))
    assert same <= 2


def p_value(words: masks.Words) -> float:
    counts = np.bincount(words.astype(np.int64) >> 8, minlength=256)
    return float(stats.chisquare(counts).pvalue)


def test_words_are_uniform() -> None:
    """A fixed stream, so that the test always says the same; p is not to be tiny."""
    words = masks.keystream(STREAMS[2], 200_000, 16)
    assert p_value(words) > 1e-3
    assert len(np.unique(words & 3)) == 4


def test_the_test_of_uniformity_sees_values_that_are_a_tenth_too_rare() -> None:
    words = masks.keystream(STREAMS[2], 200_000, 16)
    rare = np.concatenate([np.flatnonzero(words >> 8 == value)[::10] for value in range(50)])
    assert p_value(np.delete(words, rare)) < 1e-3


@pytest.mark.parametrize(
    "act",
    [
        lambda: masks.apply(np.zeros(4, np.int64), STREAMS, []),  # type: ignore[arg-type]
        lambda: masks.apply(np.zeros((2, 2), np.uint32), STREAMS, []),
        lambda: masks.apply(np.zeros(8, np.uint32)[::2], STREAMS, []),
        lambda: masks.apply(np.zeros(8, np.uint32), STREAMS, [], offset=3),
        lambda: masks.word_type(24),
    ],
)
def test_unfit_vectors_are_refused(act: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        act()


def test_a_stream_is_not_printed() -> None:
    assert repr(STREAMS[0]) == "Stream()"


def test_memory_does_not_grow_with_the_vector() -> None:
    vector = np.zeros(1_000_000, np.uint32)
    assert peak_of(lambda: masks.apply(vector, STREAMS, [], threads=2)) < 2 * 2 * masks.CHUNK
