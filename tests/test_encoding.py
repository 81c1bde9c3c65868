"""Encodings: sums come out right, norms stay bounded, and what overflows is refused before."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsec.encoding import (
    FixedPoint,
    Rotated,
    padded,
    unwrap,
    word_type,
    wrap,
)
from fedsec.errors import ConfigError
from fedsec.privacy.distributed import rounded_norm
from fedsec.privacy.keystream import Keystream

SEED = bytes(range(32))


def source() -> Keystream:
    return Keystream(SEED)


@pytest.mark.parametrize("bits", [8, 12, 16, 17, 20, 31, 32])
def test_words_are_integers_modulo_a_power_of_two(bits: int) -> None:
    half = 1 << (bits - 1)
    integers = np.array([0, 1, -1, half - 1, -half, half, 3 * half + 5], np.int64)
    words = wrap(integers, bits)
    assert words.dtype == word_type(bits)
    width = 8 * words.itemsize
    assert words.tolist() == [int(x) % (1 << width) for x in integers]
    wanted = [(int(x) + half) % (2 * half) - half for x in integers]
    assert unwrap(words, bits).tolist() == wanted


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 32])
def test_a_sum_of_words_tells_the_sum_and_no_more(bits: int) -> None:
    """Else its highest bits would count the negative integers, beside whatever noise hides them."""
    parts = np.array([[-3, 5, -1], [2, -7, -1], [1, 2, 2]], np.int64)
    total = wrap(parts[0], bits) + wrap(parts[1], bits) + wrap(parts[2], bits)
    assert total.tolist() == [0, 0, 0]
    vectors = np.float32([[-1, 1], [1, -1]])
    for code in (
        FixedPoint(2, clip=1.0, members=2, bits=bits),
        Rotated(2, clip=2.0, scale=20.0, bits=bits, seed=SEED),
    ):
        for vector in vectors:
            words = code.encode(vector, source())
            signed = words.view(f"i{words.itemsize}").astype(np.int64)
            assert np.abs(signed).max() < 1 << (bits - 1)  # the integers, not what is left of them


def test_words_add_up_in_their_own_type() -> None:
    """What carries more than `bits` bits out of a sum does not disturb what is read."""
    words = wrap(np.array([-3, 2000], np.int64), 12)
    assert unwrap(words + words, 12).tolist() == [-6, -96]


class TestFixedPoint:
    @pytest.mark.parametrize("bits", [12, 16, 32])
    @pytest.mark.parametrize("members", [1, 3, 50])
    def test_the_largest_vectors_do_not_overflow(self, bits: int, members: int) -> None:
        code = FixedPoint(size=2, clip=0.7, members=members, bits=bits)
        stream = source()
        total = np.zeros(2, word_type(bits))
        for _ in range(members):
            total += code.encode(np.float32([5, -5]), stream)
        np.testing.assert_allclose(code.decode(total), [0.7 * members, -0.7 * members], rtol=1e-9)

    def test_the_bound_is_the_exact_one(self) -> None:
        """n (levels + 1) < 2^(bits - 1), and one more level would not be."""
        for members in (1, 7, 100, 16383):
            levels = FixedPoint(1, 1.0, members, 16).levels
            assert members * (levels + 1) < 2**15 <= members * (levels + 2)

    def test_the_first_number_of_members_that_overflows_is_refused(self) -> None:
        assert FixedPoint(1, 1.0, 16383, 16).levels == 1
        with pytest.raises(ConfigError, match="at most 16383 members"):
            FixedPoint(1, 1.0, 16384, 16)

    @given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=8), st.integers(1, 9))
    @settings(derandomize=True, deadline=None)
    def test_sums_are_near_the_exact_rational_ones(self, values: list[float], n: int) -> None:
        code = FixedPoint(len(values), clip=1.0, members=n, bits=16)
        vector, stream = np.float32(values), source()
        total = np.zeros(len(values), np.uint16)
        for _ in range(n):
            total += code.encode(vector, stream)
        for got, value in zip(code.decode(total), vector.tolist(), strict=True):
            exact = n * max(Fraction(-1), min(Fraction(1), Fraction(value)))
            assert abs(Fraction(float(got)) - exact) <= Fraction(n, code.levels) + Fraction(
                1, 10**9
            )

    def test_rounding_is_unbiased(self) -> None:
        code = FixedPoint(40_000, clip=1.0, members=100, bits=12)
        value = 3.3 / code.scale
        decoded = code.decode(code.encode(np.full(40_000, value, np.float32), source()))
        error = (decoded - value) * code.scale
        assert abs(error).max() < 1
        assert abs(error.mean()) < 5 * math.sqrt(0.3 * 0.7 / 40_000)
        assert abs((decoded - 1.1 * value).mean()) * code.scale > 5 * math.sqrt(0.3 * 0.7 / 40_000)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"size": 0}, "size must be >= 1, got 0"),
            ({"clip": 0.0}, "clip must be a number > 0, got 0.0"),
            ({"clip": math.nan}, "clip must be a number > 0, got nan"),
            ({"members": 0}, "members must be >= 1, got 0"),
            ({"bits": 7}, "bits must be in 8..32, got 7"),
            ({"bits": 33}, "bits must be in 8..32, got 33"),
        ],
    )
    def test_parameters_out_of_range(self, given: dict[str, float], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            FixedPoint(**({"size": 3, "clip": 1.0, "members": 2, "bits": 16} | given))  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [FixedPoint(3, 1.0, 2), Rotated(3, 1.0, 100.0, 16, SEED)])
class TestWhatIsRefused:
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_vectors_that_are_not_finite(self, code: FixedPoint | Rotated, bad: float) -> None:
        with pytest.raises(ConfigError, match="NaN or infinite"):
            code.encode(np.float32([1, bad, 0]), source())

    def test_vectors_of_another_shape(self, code: FixedPoint | Rotated) -> None:
        with pytest.raises(ConfigError, match=r"shape \(4,\), want \(3,\)"):
            code.encode(np.zeros(4, np.float32), source())

    def test_sums_of_another_shape_or_dtype(self, code: FixedPoint | Rotated) -> None:
        for total in (np.zeros(code.length + 1, word_type(code.bits)), np.zeros(3, np.uint8)):
            with pytest.raises(ConfigError, match="the sum is"):
                code.decode(total)


class TestRotated:
    @pytest.mark.parametrize("size", [1, 10, 1000, 5130])
    def test_the_norm_is_bounded_after_rounding(self, size: int) -> None:
        """Whatever comes in: too long, exactly as long, one entry only, zero."""
        code = Rotated(size, clip=1.0, scale=20.0, bits=16, seed=SEED)
        rng, stream = np.random.default_rng(1), source()
        one = np.zeros(size, np.float32)
        one[0] = 1
        rows = [rng.normal(size=size).astype(np.float32) * 99, one, one * 0, one * 3e38]
        for row in rows:
            rounded = code.quantize(row, stream)
            assert math.sqrt(int(rounded @ rounded)) <= code.l2

    def test_a_short_vector_is_left_as_it_is_and_a_long_one_shortened(self) -> None:
        code = Rotated(1000, clip=2.0, scale=1e6, bits=32, seed=SEED)
        vector = np.random.default_rng(3).normal(size=1000).astype(np.float32)
        vector /= np.linalg.norm(vector)
        for factor, kept in ((1.0, 1.0), (2.0, 2.0), (50.0, 2.0)):
            decoded = code.decode(code.encode(vector * np.float32(factor), source()))
            np.testing.assert_allclose(decoded, vector * kept, atol=1e-5)

    def test_sums_decode_to_sums(self) -> None:
        code = Rotated(300, clip=1.0, scale=5000.0, bits=20, seed=SEED)
        rows = np.random.default_rng(4).normal(size=(20, 300)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        stream = source()
        total = np.zeros(code.length, np.uint32)
        for row in rows:
            total += code.encode(row, stream)
        error = code.decode(total) - rows.sum(axis=0, dtype=np.float64)
        # variance of rounding: at most 1/4 grid step squared for each of 20 rows
        assert np.abs(error).max() < 6 * math.sqrt(20 / 4) / 5000

    def test_noise_is_added_to_the_integers(self) -> None:
        class Sevens:
            def sample(self, size: int, _source: Keystream) -> NDArray[np.int64]:
                return np.full(size, 7, np.int64)

        bare = Rotated(64, 1.0, 100.0, 16, SEED)
        noised = Rotated(64, 1.0, 100.0, 16, SEED, Sevens())
        zero = np.zeros(64, np.float32)
        difference = noised.encode(zero, source()) - bare.encode(zero, source())
        assert difference.tolist() == [7] * 64

    def test_words_are_few(self) -> None:
        assert Rotated(5130, 1.0, 1.0, 16, SEED).length == padded(5130) <= 5130 * 1.05
        assert Rotated(1000, 1.0, 1.0, 16, SEED).encode(
            np.zeros(1000, np.float32), source()
        ).shape == (1024,)

    def test_parameters_out_of_range(self) -> None:
        with pytest.raises(ConfigError, match="scale must be a number > 0, got inf"):
            Rotated(3, 1.0, math.inf, 16, SEED)
        with pytest.raises(ConfigError, match="seed must have 32 bytes, got 3"):
            Rotated(3, 1.0, 1.0, 16, b"abc")


def test_the_bound_on_rounded_norms_is_the_papers() -> None:
    """Kairouz et al., theorem 1, in grid steps with beta = exp(-1/2): see the field's formula."""
    for norm, length in ((10.0, 1024), (5000.0, 1 << 20), (72.0, 5130)):
        wide = norm + math.sqrt(length)
        tight = math.sqrt(
            norm**2 + length / 4 + math.sqrt(2 * 0.5) * (norm + math.sqrt(length) / 2)
        )
        assert rounded_norm(norm, length) == pytest.approx(min(wide, tight))
