"""numpy arrays in Flower's `Array` and back, without pickle, copies or trust in a header.

Flower's `Array` holds the bytes of a `.npy` file. Its header is never parsed here: it must be,
byte for byte, the one that belongs to the dtype and shape that the `Array` states. What has come
off our own wire, and was checked there, has no such bytes yet and needs none.
"""

import math
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array
from numpy.typing import NDArray

from fedsec.flwr_arrays import STYPE, body_of
from fedsec.vectors import FIXED, FLOATS

MAX_DIMENSIONS = 32


def pack(array: NDArray[Any]) -> Array:
    """Returns `array` as Flower's `Array`: C order, little endian; one copy."""
    plain = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    name, shape = plain.dtype.name, plain.shape
    # ravel, since a memory view of a 0-dimensional or empty array cannot be cast to bytes
    data = b"".join((_header(name, shape), plain.ravel().view(np.uint8).data))
    return Array(name, shape, STYPE, data)


def unpack(array: Array) -> NDArray[Any]:
    """Returns what `array` holds, as a read-only view of its bytes.

    Raises:
        ValueError: It is not a `.npy` file of exactly the dtype and shape that it states; the
            message says how.
    """
    dtype, shape = str(array.dtype), tuple(array.shape)
    if array.stype != STYPE:
        raise ValueError(f"serialised as {str(array.stype)[:40]!r}, want {STYPE!r}")
    if dtype not in FLOATS | FIXED:
        raise ValueError(f"dtype {dtype[:40]!r}; allowed: {', '.join(sorted(FLOATS | FIXED))}")
    if len(shape) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"shape {shape[:8]}")
    if (body := body_of(array)) is not None:
        return body.array()
    view = memoryview(array.data)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > len(view):  # before anything is made for a length that is merely claimed
        raise ValueError(f"{len(view)} bytes are too few for {dtype} {shape}")
    header = _header(dtype, shape)
    if len(view) != len(header) + size or view[: len(header)] != header:
        raise ValueError(f"the bytes are not a .npy file of {dtype} {shape} in C order")
    flat = np.frombuffer(view, np.dtype(dtype).newbyteorder("<"), offset=len(header))
    return flat.reshape(shape)


@lru_cache(maxsize=1024)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Returns the header that numpy writes for such an array."""
    stream = BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype).newbyteorder("<"))
    np.lib.format.write_array_header_1_0(
        stream, {"descr": description, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()
