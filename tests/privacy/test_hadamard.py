"""The rotation against scipy's Hadamard matrix, and how evenly it spreads."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.errors import ConfigError
from fedsec.privacy.hadamard import Rotation, block_lengths, hadamard

SEED = bytes(range(32))


@pytest.mark.parametrize("bits", [0, 1, 4, 5, 6, 10, 11])
def test_hadamard_is_sylvesters_matrix(bits: int) -> None:
    vector = np.random.default_rng(1).normal(size=1 << bits)
    wanted = scipy.linalg.hadamard(1 << bits) @ vector / np.sqrt(1 << bits)
    np.testing.assert_allclose(hadamard(vector), wanted, atol=1e-12)


@given(size=st.integers(1, 1 << 40))
@settings(derandomize=True, deadline=None)
def test_blocks_are_powers_of_two_with_little_padding(size: int) -> None:
    lengths = block_lengths(size)
    assert all(length.bit_count() == 1 for length in lengths)
    assert size <= sum(lengths) <= size * 1.05
    assert list(lengths) == sorted(lengths, reverse=True)
    assert len(lengths) <= 6


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1000, 5130, 4097])
def test_there_and_back(size: int) -> None:
    vector = np.random.default_rng(size).normal(size=size)
    turn = Rotation(size, SEED)
    rotated = turn.forward(vector)
    assert rotated.shape == (turn.length,)
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(vector))
    np.testing.assert_allclose(Rotation(size, SEED).backward(rotated), vector, atol=1e-12)


def test_it_is_linear_so_that_sums_can_be_turned_back() -> None:
    left, right = np.random.default_rng(2).normal(size=(2, 5130))
    turn = Rotation(5130, SEED)
    both = turn.forward(left) + turn.forward(right)
    np.testing.assert_allclose(turn.backward(both), left + right, atol=1e-12)


@pytest.mark.parametrize("filled", [slice(0, 1), slice(5120, 5130), slice(0, 5130)])
def test_no_entry_is_large_wherever_the_weight_was(filled: slice) -> None:
    """A layer's entries lie together: dealt to all blocks, they stay small in the shortest too.

    A single entry can only spread over its block, of at least 256 here; ten spread over all.
    """
    vector = np.zeros(5130)
    vector[filled] = 1
    vector /= np.linalg.norm(vector)
    largest = np.abs(Rotation(5130, SEED).forward(vector)).max()
    assert largest < 5 / np.sqrt(5130)


def test_another_seed_is_another_rotation() -> None:
    vector = np.ones(64)
    assert not np.allclose(
        Rotation(64, SEED).forward(vector), Rotation(64, bytes(32)).forward(vector)
    )


def test_nothing_cannot_be_rotated() -> None:
    with pytest.raises(ConfigError, match="size must be >= 1, got 0"):
        Rotation(0, SEED)
