"""Named arrays to one flat float32 vector (d,) and back; norms of such vectors.

A model is a mapping from names to arrays. Its floating-point arrays, one after another in the
mapping's order, are the vector that is averaged, clipped and noised. Other arrays (integers,
booleans: counters and the like) have no mean that makes sense; they are *fixed*: the layout knows
their names and shapes, the vector does not hold them.

>>> model = {"w": np.array([[1.0, 2.0]], np.float32), "b": np.array([3.0], np.float64)}
>>> layout = Layout.of(model)
>>> layout.size
3
>>> vector = layout.flatten(model)
>>> vector
array([1., 2., 3.], dtype=float32)
>>> layout.unflatten(vector)["b"].dtype
dtype('float64')
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError

Vector: TypeAlias = NDArray[np.float32]
AnyArray: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, AnyArray]

FLOATS = frozenset({"float16", "float32", "float64"})
FIXED = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
)
MAX_SIZE = 1 << 33
"""Entries of the largest model that a layout describes; 32 GiB as float32."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One array: its name, shape and numpy dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in FLOATS | FIXED:
            allowed = ", ".join(sorted(FLOATS | FIXED))
            raise ConfigError(f"array {self.name!r} has dtype {self.dtype}; allowed: {allowed}")
        if any(length < 0 for length in self.shape) or self.size > MAX_SIZE:
            raise ConfigError(f"array {self.name!r} has shape {self.shape}; max {MAX_SIZE} entries")

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def averaged(self) -> bool:
        """Whether the vector holds it."""
        return self.dtype in FLOATS

    def difference(self, array: AnyArray) -> str | None:
        """Returns how `array` differs from what belongs here, or None."""
        if array.dtype.name != self.dtype:
            return f"array {self.name!r} has dtype {array.dtype.name}, want {self.dtype}"
        if array.shape != self.shape:
            return f"array {self.name!r} has shape {array.shape}, want {self.shape}"
        return None


@dataclass(frozen=True)
class Layout:
    """Which arrays a model has, in order.

    Args:
        slots: One per array.
    """

    slots: tuple[Slot, ...]

    def __post_init__(self) -> None:
        names = [slot.name for slot in self.slots]
        if len(set(names)) != len(names):
            raise ConfigError(f"array names must differ, got {names}")

    @classmethod
    def of(cls, arrays: Arrays) -> "Layout":
        """Returns the layout of `arrays`.

        Raises:
            ConfigError: An array has a dtype that cannot be trained, e.g. complex128.
        """
        return cls(
            tuple(Slot(name, array.shape, array.dtype.name) for name, array in arrays.items())
        )

    @cached_property
    def size(self) -> int:
        """d, the number of floating-point entries."""
        return sum(slot.size for slot in self.slots if slot.averaged)

    def pieces(self) -> Iterator[tuple[Slot, slice]]:
        """Yields each averaged slot with its place in the vector."""
        start = 0
        for slot in self.slots:
            if slot.averaged:
                yield slot, slice(start, start + slot.size)
                start += slot.size

    def flatten(self, arrays: Arrays, out: Vector | None = None) -> Vector:
        """Returns the averaged `arrays` as one vector (d,), in float32.

        Args:
            arrays: As the layout says; more, fewer or other ones are an error.
            out: Written to and returned, if given; e.g. a row of a matrix.

        Raises:
            ConfigError: Names, shapes or dtypes are not the layout's.
        """
        difference = self.difference(arrays)
        if difference is not None:
            raise ConfigError(difference)
        vector = self._vector(out)
        for slot, place in self.pieces():
            vector[place] = arrays[slot.name].ravel()
        return vector

    def change(self, before: Arrays, after: Arrays, out: Vector | None = None) -> Vector:
        """Returns what `after` changed about `before` as one vector (d,), in float32.

        Of float64 the difference is taken in float64: what both have in common costs no digits.
        What overflows comes back as infinite.

        Args:
            before: The model that the layout is of; not checked again.
            after: As the layout says; more, fewer or other arrays are an error.
            out: Written to and returned, if given; e.g. a row of a matrix.

        Raises:
            ConfigError: Names, shapes or dtypes of `after` are not the layout's.
        """
        difference = self.difference(after)
        if difference is not None:
            raise ConfigError(difference)
        vector = self._vector(out)
        with np.errstate(over="ignore", invalid="ignore"):
            for slot, place in self.pieces():
                new, old = after[slot.name].ravel(), before[slot.name].ravel()
                working = np.result_type(new, np.float32)
                np.subtract(new, old, out=vector[place], dtype=working, casting="same_kind")
        return vector

    def _vector(self, out: Vector | None) -> Vector:
        vector = np.empty(self.size, np.float32) if out is None else out
        if vector.shape != (self.size,):
            raise ConfigError(f"out has shape {vector.shape}, want ({self.size},)")
        return vector

    def unflatten(self, vector: Vector) -> dict[str, AnyArray]:
        """Returns the averaged arrays, in their own dtypes; copies, never views.

        Raises:
            ConfigError: `vector` is not (d,).
        """
        if vector.shape != (self.size,):
            raise ConfigError(f"vector has shape {vector.shape}, want ({self.size},)")
        return {
            slot.name: vector[place].reshape(slot.shape).astype(slot.dtype)
            for slot, place in self.pieces()
        }

    def fixed(self, arrays: Arrays) -> dict[str, AnyArray]:
        """Returns those of `arrays` that the vector does not hold."""
        return {slot.name: arrays[slot.name] for slot in self.slots if not slot.averaged}

    def difference(self, arrays: Arrays) -> str | None:
        """Returns how `arrays` differ from this layout, in one sentence, or None."""
        names = {slot.name for slot in self.slots}
        if arrays.keys() != names:
            missing, extra = sorted(names - arrays.keys()), sorted(arrays.keys() - names)
            return f"array names differ: missing {missing[:3]}, unknown {extra[:3]}"
        found = (slot.difference(arrays[slot.name]) for slot in self.slots)
        return next((text for text in found if text is not None), None)

    def to_json(self) -> str:
        """Returns the layout as JSON; `from_json` reads it."""
        return json.dumps([[slot.name, list(slot.shape), slot.dtype] for slot in self.slots])

    @classmethod
    def from_json(cls, text: str) -> "Layout":
        """Returns the layout that `to_json` wrote.

        Raises:
            ConfigError: `text` is something else.
        """
        try:
            rows = json.loads(text)
            return cls(tuple(Slot(str(n), tuple(map(int, s)), str(t)) for n, s, t in rows))
        except (ValueError, TypeError, RecursionError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"not a layout of arrays: {error}") from error


def is_finite(vector: Vector) -> bool:
    """Returns whether no entry is NaN or infinite. One pass, no memory of its own."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.dot(vector, vector))
    # NaN and infinity always show in the sum; so may large finite entries: then look closely.
    return math.isfinite(total) or bool(np.isfinite(vector).all())


def is_longer(vector: Vector, bound: float) -> bool:
    """Returns whether the L2 norm of a finite vector is beyond `bound`. One pass."""
    with np.errstate(over="ignore"):
        return float(np.dot(vector, vector)) > bound * bound


def norm(vector: Vector) -> float:
    """Returns the L2 norm, summed in float64 so that no entry overflows.

    On one core: a library's dot product would wake all of them for each block.
    """
    return math.sqrt(
        sum(
            float(np.einsum("i,i->", block, block))
            for block in (
                vector[start : start + _BLOCK].astype(np.float64)
                for start in range(0, vector.size, _BLOCK)
            )
        )
    )


_BLOCK = 1 << 16
