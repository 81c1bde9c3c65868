"""The `.npy` format, as far as arrays travel in it: read strictly, never evaluated.

Flower carries an array as the bytes that `numpy.save` writes: magic, version, the length of a
header, the header as the text of a Python dictionary, and the raw body. numpy reads that text with
a Python parser; here one regular expression matches what numpy writes and nothing else. On the wire
every array is in its *canonical form*: format version 1.0, little-endian, C order.

Source: numpy.lib.format, "Format Version 1.0" and "2.0" (NEP 1). Spec: docs/spec/wire.md, "Arrays".
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from fedsec.errors import ProtocolError
from fedsec.wire.content import Buffer

MAX_DIMENSIONS = 64  # numpy's own
MAX_BYTES = (1 << 63) - 1  # numpy's own; also of the non-empty axes of an empty array

_MAGIC = b"\x93NUMPY"
_ALIGNMENT = 64
_MAX_HEADER = 10_000  # bytes; 64 axes of 19 digits need 1,400
_GROWTH_DIGITS = 21  # numpy leaves room for the first axis to grow
_DIGITS = rb"(?:0|[1-9][0-9]{0,18})"
_HEADER = re.compile(
    rb"\{'descr': '([<>|][a-zA-Z][0-9]{0,3})', 'fortran_order': (False|True), "
    rb"'shape': \((|" + _DIGITS + rb",|" + _DIGITS + rb"(?:, " + _DIGITS + rb")+)\), \} *\n"
)


@dataclass(frozen=True, slots=True)
class Dtype:
    """A kind of element that may travel.

    Args:
        descr: numpy's type string in the canonical form: little-endian, or ``|`` for one byte.
        name: numpy's name, which Flower keeps in `Array.dtype`.
        itemsize: Bytes per element.
    """

    descr: str
    name: str
    itemsize: int


DTYPES: dict[str, Dtype] = {
    dtype.descr: dtype
    for dtype in (
        Dtype("|b1", "bool", 1),
        Dtype("|i1", "int8", 1),
        Dtype("<i2", "int16", 2),
        Dtype("<i4", "int32", 4),
        Dtype("<i8", "int64", 8),
        Dtype("|u1", "uint8", 1),
        Dtype("<u2", "uint16", 2),
        Dtype("<u4", "uint32", 4),
        Dtype("<u8", "uint64", 8),
        Dtype("<f2", "float16", 2),
        Dtype("<f4", "float32", 4),
        Dtype("<f8", "float64", 8),
        Dtype("<c8", "complex64", 8),
        Dtype("<c16", "complex128", 16),
    )
}


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What stands before the body of a `.npy` blob.

    Args:
        dtype: Kind of the elements, apart from their byte order.
        shape: Axes; ``()`` for a single element.
        data_offset: Bytes before the body.
        big_endian: The body's elements are not in the canonical byte order.
        fortran: The first axis varies fastest, which is not canonical.
    """

    dtype: Dtype
    shape: tuple[int, ...]
    data_offset: int
    big_endian: bool = False
    fortran: bool = False


def body_length(dtype: Dtype, shape: tuple[int, ...]) -> int:
    """Returns the bytes of an array's body, computed without overflow.

    Raises:
        ProtocolError: ``bad-shape``, no array of numpy's has this shape.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise ProtocolError(
            "", "bad-shape", f"an array has at most {MAX_DIMENSIONS} axes, got {len(shape)}"
        )
    if dtype.itemsize * math.prod(axis or 1 for axis in shape) > MAX_BYTES:
        raise ProtocolError("", "bad-shape", f"an array of shape {shape} is too large to exist")
    return dtype.itemsize * math.prod(shape)


def parse_header(buffer: Buffer) -> NpyHeader:
    """Returns the header of a `.npy` blob whose body has exactly the length that it announces.

    Raises:
        ProtocolError: ``bad-npy``, the bytes are no such blob, or its length is another;
            ``bad-dtype``, its elements are none of `DTYPES`; ``bad-shape``.
    """
    view = memoryview(buffer)
    text, offset = _header_text(view)
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ProtocolError("", "bad-npy", f"the header is not one of numpy.save: {text[:80]!r}")
    descr, order, axes = match.groups()
    dtype, big_endian = _dtype(descr.decode("ascii"))
    shape = tuple(int(axis) for axis in axes.split(b",") if axis)
    length = body_length(dtype, shape)
    if len(view) - offset != length:
        raise ProtocolError(
            "",
            "bad-npy",
            f"the body of a {dtype.name} array of shape {shape} has {length} bytes, "
            f"got {len(view) - offset}",
        )
    return NpyHeader(dtype, shape, offset, big_endian, fortran=order == b"True")


def make_header(dtype: Dtype, shape: tuple[int, ...]) -> bytes:
    """Returns what `numpy.save` writes before the body of an array in the canonical form.

    >>> make_header(DTYPES["<f4"], (2, 3))[10:67]
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3),"
    """
    text = f"{{'descr': '{dtype.descr}', 'fortran_order': False, 'shape': {shape!r}, }}"
    if shape:
        text += " " * (_GROWTH_DIGITS - len(str(shape[0])))
    length = len(text) + 1
    padding = _ALIGNMENT - (len(_MAGIC) + 4 + length) % _ALIGNMENT
    size = (length + padding).to_bytes(2, "little")
    return _MAGIC + b"\1\0" + size + text.encode("ascii") + b" " * padding + b"\n"


def check_body(dtype: Dtype, body: Buffer) -> None:
    """Checks what numpy leaves unchecked: that a truth value is 0 or 1.

    Raises:
        ProtocolError: ``bad-npy``.
    """
    if dtype.name == "bool" and len(body) and np.frombuffer(body, np.uint8).max() > 1:
        raise ProtocolError("", "bad-npy", "the truth values of an array are not all 0 or 1")


def canonical_body(buffer: Buffer, header: NpyHeader) -> Buffer:
    """Returns the body of `buffer` in the canonical form: a view of it, or a converted copy.

    Raises:
        ProtocolError: see `check_body`.
    """
    body = memoryview(buffer)[header.data_offset :]
    check_body(header.dtype, body)
    if not (header.big_endian or header.fortran) or not len(body):
        return body
    elements = np.frombuffer(body, dtype=header.dtype.descr)
    if header.big_endian:
        elements = elements.byteswap()  # and no conversion, which could touch a NaN's payload
    in_order = elements.reshape(header.shape, order="F" if header.fortran else "C")
    return in_order.tobytes(order="C")


def _header_text(view: memoryview) -> tuple[bytes, int]:
    """Returns the header's text and the offset of what follows it."""
    prefix = bytes(view[:12])
    if prefix[:6] != _MAGIC or len(prefix) < 12:  # noqa: PLR2004 - nothing shorter can be whole
        raise ProtocolError("", "bad-npy", "the data of an array must be what numpy.save writes")
    match prefix[6], prefix[7]:
        case 1, 0:
            start, length = 10, int.from_bytes(prefix[8:10], "little")
        case 2, 0:
            start, length = 12, int.from_bytes(prefix[8:12], "little")
        case major, minor:
            raise ProtocolError(
                "", "bad-npy", f"format version {major}.{minor}; 1.0 and 2.0 are accepted"
            )
    if length > min(_MAX_HEADER, len(view) - start):
        raise ProtocolError("", "bad-npy", f"a header of {length} bytes is longer than can be")
    return bytes(view[start : start + length]), start + length


def _dtype(descr: str) -> tuple[Dtype, bool]:
    """Returns the element kind of `descr` and whether it is big-endian."""
    big_endian = descr.startswith(">")
    dtype = DTYPES.get("<" + descr[1:] if big_endian else descr)
    if dtype is None:
        raise ProtocolError(
            "", "bad-dtype", f"elements of type {descr!r}; accepted are {', '.join(DTYPES)}"
        )
    return dtype, big_endian
