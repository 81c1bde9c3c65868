"""Flower's arrays, as they come off the wire: their bytes stay where they arrived.

Flower's `Array` holds the bytes of a `.npy` file. To make these of content that lies in mapped
memory is a copy, and to make a numpy array of them another one; most arrays go straight from the
one to the other. `ReceivedArray` makes either when somebody asks for it; the first numpy array may
be the mapped content itself, whose pages are copied when they are written to.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from flwr.app import Array
from numpy.typing import NDArray

STYPE = "numpy.ndarray"


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The elements of an array that nobody changes any more, and what belongs before them.

    Args:
        dtype: Of the elements, little-endian.
        shape: Axes; the elements are in C order.
        header: What `numpy.save` writes before them.
        view: The elements, read-only.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    header: bytes
    view: memoryview

    def array(self) -> NDArray[Any]:
        """Returns the elements, read-only, without a copy."""
        return np.frombuffer(self.view, self.dtype).reshape(self.shape)


class ReceivedArray(Array):
    """An `Array` whose bytes were not copied yet. For every user it is Flower's own.

    Args:
        body: The array.
        own: The same elements once more, which one numpy array may have as its own: nobody else
            reads them, whatever is written there. None: every one is a copy.
    """

    __qualname__ = "Array"  # Flower writes it into what it stores of an array
    __hash__: ClassVar[None]  # type: ignore[assignment] # as of every class that compares by value

    def __init__(self, body: Body, own: memoryview | None = None) -> None:
        self.dtype, self.shape, self.stype = body.dtype.name, body.shape, STYPE
        self._held: bytes | Body = body
        self._own = [] if own is None else [own]

    @property
    def data(self) -> bytes:
        """The bytes of the `.npy` file; made once, when first asked for."""
        held = self._held
        if isinstance(held, Body):
            held = self._held = b"".join((held.header, held.view))
            self._own.clear()  # else it would keep what came
        return held

    @data.setter
    def data(self, data: bytes) -> None:
        self._held = data
        self._own.clear()

    @property
    def body(self) -> Body | None:
        """What was received, where nothing of it was changed or copied."""
        held = self._held
        if isinstance(held, Body) and self._states(held):
            return held
        return None

    def numpy(self) -> NDArray[Any]:
        """Returns the array as one of numpy's, the caller's own."""
        body = self.body
        if body is None:
            return super().numpy()
        try:
            elements = self._own.pop()  # by one thread alone
        except IndexError:
            return body.array().copy()
        return np.frombuffer(elements, body.dtype).reshape(body.shape)

    def _states(self, body: Body) -> bool:
        stated = self.dtype, self.shape, self.stype
        return stated == (body.dtype.name, body.shape, STYPE)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        mine = self.dtype, self.shape, self.stype, self.data
        return mine == (other.dtype, other.shape, other.stype, other.data)

    def __reduce__(self) -> tuple[type[Array], tuple[str, tuple[int, ...], str, bytes]]:
        return Array, (self.dtype, self.shape, self.stype, self.data)


def body_of(array: Array) -> Body | None:
    """Returns what lies behind an array that came off the wire; None for any other one."""
    return array.body if isinstance(array, ReceivedArray) else None
