"""Real vectors as integers in words, so that sums of them can be masked and stay exact.

Words add modulo 2^16 or 2^32, whole: were each reduced to fewer bits, the carries of a sum would
tell how many of its integers were negative, for each entry, beside the sum. Fewer bits count where
a sum is read: it is then taken modulo 2^bits.

`FixedPoint` rounds to a grid, for plain secure aggregation. `Rotated` is for distributed privacy:
the norm of what it hands out is bounded *after* rounding, as an integer, and the noise is added to
integers, so no rounding error of floating-point numbers can void the guarantee.

Sources: Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning
with Secure Aggregation", ICML 2021, algorithms 1 and 2, theorem 1 and section 4. Agarwal, Kairouz,
Liu, "The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS 2021.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.privacy.clipping import clip_factor
from fedsec.privacy.distributed import rounded_norm
from fedsec.privacy.hadamard import Rotation, block_lengths
from fedsec.privacy.keystream import KEY_BYTES, Keystream
from fedsec.vectors import Vector, is_finite

Words: TypeAlias = NDArray[np.unsignedinteger[Any]]
Integers: TypeAlias = NDArray[np.int64]
Doubles: TypeAlias = NDArray[np.float64]

MIN_BITS, MAX_BITS = 8, 32

_BLOCK = 1 << 16  # entries that are coded at a time, so that all of it stays in the cache
_INTEGERS = 1.5 * 2**52
"""Added to a double it rounds to the nearest integer, whose low bits are then the double's own."""
_TRIES = (
    400  # each fails with a probability of at most BETA; as many failures have probability < 1e-86
)


class Encoding(Protocol):
    """How a node's vector (d,) becomes words, and a sum of words a vector."""

    @property
    def bits(self) -> int:
        """A sum is read modulo 2^bits."""
        ...

    @property
    def length(self) -> int:
        """Words of a coded vector."""
        ...

    def encode(self, vector: Vector, source: Keystream) -> Words:
        """Returns the words (length,), uint16 for at most 16 bits, else uint32.

        Args:
            vector: (d,), finite.
            source: Of the chance in rounding and noise.

        Raises:
            ConfigError: `vector` is not finite or not (d,).
        """
        ...

    def decode(self, total: Words) -> Doubles:
        """Returns the sum (d,) of the vectors whose words add up to `total` (length,)."""
        ...


@dataclass(frozen=True)
class FixedPoint:
    """Entries clamped to [-clip, clip] and rounded at random, without bias, to a grid.

    The sum of `members` vectors never overflows: ``members * (levels + 1) < 2^(bits - 1)``.

    Args:
        size: d, >= 1.
        clip: Largest absolute value of an entry, > 0.
        members: How many vectors are added at most, >= 1.
        bits: A sum is read modulo 2^bits; 8..32.

    Raises:
        ConfigError: A value is out of range, or the words are too short for so many members.

    >>> code = FixedPoint(size=3, clip=1.0, members=2, bits=16)
    >>> words = [code.encode(np.float32([1, -0.5, 9]), Keystream()) for _ in range(2)]
    >>> np.round(code.decode(words[0] + words[1]), 3)
    array([ 2., -1.,  2.])
    """

    size: int
    clip: float
    members: int
    bits: int = 32

    def __post_init__(self) -> None:
        _check(self.size, self.clip, self.members, self.bits)
        if self.levels < 1:
            raise ConfigError(
                f"words of {self.bits} bits cannot hold the sum of {self.members} vectors: use "
                f"more bits or at most {(1 << (self.bits - 1)) // 2 - 1} members"
            )

    @property
    def length(self) -> int:
        """Words of a coded vector: d."""
        return self.size

    @property
    def levels(self) -> int:
        """Grid steps from 0 to `clip`."""
        return ((1 << (self.bits - 1)) - 1) // self.members - 1

    @property
    def scale(self) -> float:
        """Grid steps per unit."""
        return self.levels / self.clip

    def encode(self, vector: Vector, source: Keystream) -> Words:
        """See `Encoding`. The mean rounding error is 0, the largest one grid step."""
        _check_vector(vector, self.size)
        kind = np.dtype(word_type(self.bits))
        words = np.empty(self.size, kind)
        scaled, chance = np.empty(_BLOCK), np.empty(_BLOCK)
        for start in range(0, self.size, _BLOCK):
            part = vector[start : start + _BLOCK]
            steps, drawn = scaled[: part.size], chance[: part.size]
            steps[:] = part
            np.clip(steps, -self.clip, self.clip, out=steps)
            steps *= self.scale
            signed = source.words(part.size, np.uint32).view(np.int32)
            np.multiply(signed, 2.0**-32, out=drawn)  # uniform in [-1/2, 1/2)
            steps += drawn
            steps += _INTEGERS
            words[start : start + part.size] = steps.view(kind)[:: 8 // kind.itemsize]
        return words

    def decode(self, total: Words) -> Doubles:
        """See `Encoding`."""
        words = _sized(total, self.size, self.bits)
        found = np.empty(self.size)
        for start in range(0, self.size, _BLOCK):
            end = start + _BLOCK
            np.divide(unwrap(words[start:end], self.bits), self.scale, out=found[start:end])
        return found


class Noise(Protocol):
    """Independent integers."""

    def sample(self, size: int, source: Keystream) -> Integers:
        """Returns `size` of them (size,)."""
        ...


@dataclass(frozen=True)
class Rotated:
    """Clipped in L2, rotated, scaled, rounded to a bounded norm, noised.

    A sum that leaves ``[-2^(bits-1), 2^(bits-1))`` wraps around: that spoils accuracy, never
    privacy. `fedsec.privacy.distributed` chooses scale, bits and noise so that it does not.

    Args:
        size: d, >= 1.
        clip: c, largest L2 norm of a vector, > 0.
        scale: Grid steps per unit, > 0.
        bits: A sum is read modulo 2^bits; 8..32.
        seed: 32 bytes: the public rotation of this round.
        noise: This node's share, in grid steps; None adds none.

    Raises:
        ConfigError: A value is out of range.
    """

    size: int
    clip: float
    scale: float
    bits: int
    seed: bytes
    noise: Noise | None = None

    def __post_init__(self) -> None:
        _check(self.size, self.clip, 1, self.bits)
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"scale must be a number > 0, got {self.scale}")
        if len(self.seed) != KEY_BYTES:
            raise ConfigError(f"seed must have {KEY_BYTES} bytes, got {len(self.seed)}")

    @cached_property
    def rotation(self) -> Rotation:
        """The public rotation."""
        return Rotation(self.size, self.seed)

    @property
    def length(self) -> int:
        """Words of a coded vector: d and at most 5 % more."""
        return self.rotation.length

    @property
    def l2(self) -> float:
        """Largest L2 norm of what is handed out, before noise, in grid steps."""
        return rounded_norm(self.clip * self.scale, self.length)

    def encode(self, vector: Vector, source: Keystream) -> Words:
        """See `Encoding`."""
        rounded = self.quantize(vector, source)
        if self.noise is not None:
            rounded += self.noise.sample(self.length, source)
        return wrap(rounded, self.bits)

    def quantize(self, vector: Vector, source: Keystream) -> Integers:
        """Returns the integers before noise (length,); their L2 norm is at most `l2`, exactly.

        Raises:
            ConfigError: As `encode`.
        """
        checked = _checked(vector, self.size)
        checked *= self.scale * clip_factor(math.sqrt(float(checked @ checked)), self.clip)
        rotated = self.rotation.forward(checked)
        bound = math.floor(self.l2**2)
        for _ in range(_TRIES):
            rounded = _round(rotated, source)
            if int(rounded @ rounded) <= bound:
                return rounded
        raise ConfigError(  # pragma: no cover - see _TRIES
            f"no rounding of norm <= {self.l2:g} was found in {_TRIES} tries"
        )

    def decode(self, total: Words) -> Doubles:
        """See `Encoding`."""
        steps = unwrap(_sized(total, self.length, self.bits), self.bits)
        return self.rotation.backward(steps) / self.scale


def padded(size: int) -> int:
    """Returns the words that `Rotated` needs for a vector (size,)."""
    return sum(block_lengths(size))


def wrap(integers: Integers, bits: int) -> Words:
    """Returns integers (n,) as whole words, of which sums are read modulo 2^bits."""
    words: Words = integers.astype(word_type(bits))
    return words


def unwrap(words: Words, bits: int) -> Doubles:
    """Returns the integers in [-2^(bits-1), 2^(bits-1)) that `words` (n,) are modulo 2^bits."""
    shift = 64 - bits
    centred: Integers = (words.astype(np.int64) << shift) >> shift
    return centred.astype(np.float64)


def word_type(bits: int) -> type[np.unsignedinteger[Any]]:
    """Returns the dtype of words whose sums are read modulo 2^bits."""
    return np.uint16 if bits <= 16 else np.uint32  # noqa: PLR2004 - the width of uint16


def _round(values: Doubles, source: Keystream) -> Integers:
    """Returns `values` rounded up or down at random, each right on average to 2^-32."""
    return np.floor(values + source.uniforms(values.size)).astype(np.int64)


def _checked(vector: Vector, size: int) -> Doubles:
    """Returns a copy in float64."""
    _check_vector(vector, size)
    return vector.astype(np.float64)


def _check_vector(vector: Vector, size: int) -> None:
    if vector.shape != (size,):
        raise ConfigError(f"the vector has shape {vector.shape}, want ({size},)")
    if not is_finite(vector):
        raise ConfigError("the vector has entries that are NaN or infinite")


def _sized(total: Words, length: int, bits: int) -> Words:
    if total.shape != (length,) or total.dtype != word_type(bits):
        raise ConfigError(
            f"the sum is {total.dtype} {total.shape}, want {np.dtype(word_type(bits))} ({length},)"
        )
    return total


def _check(size: int, clip: float, members: int, bits: int) -> None:
    if size < 1:
        raise ConfigError(f"size must be >= 1, got {size}")
    if not 0 < clip < math.inf:
        raise ConfigError(f"clip must be a number > 0, got {clip}")
    if members < 1:
        raise ConfigError(f"members must be >= 1, got {members}")
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ConfigError(f"bits must be in {MIN_BITS}..{MAX_BITS}, got {bits}")
