"""Reads the encoding of protobuf strictly, field by field, without building anything.

A skeleton comes from a peer, and a general parser turns a few bytes of it into many: an empty
entry takes 2 bytes on the wire and 50 in memory. So it is walked here, counted and bounded first.
Stricter than protobuf: fields come in the order of their numbers, none twice, and numbers have
their shortest form, so that each content has one encoding.

Source: "Encoding", protobuf.dev/programming-guides/encoding. Spec: docs/spec/wire.md, "Skeleton".
"""

from collections.abc import Iterator

from fedsec.errors import ProtocolError

VARINT, I64, LEN = 0, 1, 2

_MORE = 0x80  # the top bit of a byte says that more of the number follow
_LONGEST_VARINT = 10
_UINT64 = 1 << 64


def tag(number: int, wire_type: int) -> int:
    """Returns the number that stands before a field's value."""
    return number << 3 | wire_type


def bad(detail: str) -> ProtocolError:
    """Returns the error of a skeleton that does not parse."""
    return ProtocolError("", "bad-skeleton", detail)


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Returns the unsigned number at `at` and where it ends.

    Raises:
        ProtocolError: ``bad-skeleton``, it is cut, beyond 64 bits, or not in its shortest form.
    """
    if at < end and data[at] < _MORE:  # nearly all are of one byte
        return data[at], at + 1
    value = shift = 0
    for position in range(at, min(end, at + _LONGEST_VARINT)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < _MORE:
            if value >= _UINT64 or (byte == 0 and shift):
                break
            return value, position + 1
        shift += 7
    raise bad(f"no number at byte {at}")


def read_field(data: bytes, at: int, end: int) -> tuple[int, int, int, int]:
    """Returns the field at `at` as (tag, a, b, where the next one begins).

    A number is (tag, value, 0, next); what has a length is (tag, its start, its end, next).

    Raises:
        ProtocolError: ``bad-skeleton``, the field is cut or of an unknown encoding.
    """
    field, first = read_varint(data, at, end)
    match field & 7:
        case 0:
            value, after = read_varint(data, first, end)
            return field, value, 0, after
        case 1:
            after = first + 8
        case 2:
            length, first = read_varint(data, first, end)
            after = first + length
        case other:
            raise bad(f"unknown encoding {other} at byte {at}")
    if after > end:
        raise bad(f"the field at byte {at} is cut")
    return field, first, after, after


def read_last_field(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Returns the field at `at` as (tag, a, b), which nothing follows before `end`.

    Raises:
        ProtocolError: ``bad-skeleton``, it does not parse or is not the last.
    """
    field, first, last, after = read_field(data, at, end)
    if after != end:
        raise bad(f"more follows the field at byte {at} than there may be")
    return field, first, last


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields each field between `start` and `end` as (tag, a, b).

    Raises:
        ProtocolError: ``bad-skeleton``, a field does not parse.
    """
    at = start
    while at < end:
        field, first, last, at = read_field(data, at, end)
        yield field, first, last


def read_text(data: bytes, start: int, end: int, longest: int) -> str:
    """Returns the UTF-8 text between `start` and `end`.

    Raises:
        ProtocolError: ``bad-skeleton``, it is longer than `longest` bytes or no UTF-8.
    """
    if end - start > longest:
        raise bad(f"a text of {end - start} bytes, at most {longest} accepted")
    try:
        return data[start:end].decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad(f"a text at byte {start} is not UTF-8") from error
