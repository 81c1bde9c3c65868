"""The values of metric and config records: whole numbers, reals, texts, octets, truth values.

Flower's rules: a metric is a number or a list of numbers; a config value may also be text, octets
or a truth value, or a list of one of these. Spec: docs/spec/wire.md, "Scalars".
"""

import re
import struct
from collections.abc import Sequence
from typing import TypeAlias, TypeVar

from fedsec.errors import ProtocolError
from fedsec.wire.fields import I64, LEN, VARINT, bad, fields, read_last_field, read_text, tag
from fedsec.wire.generated import message_pb2 as pb

Scalar: TypeAlias = int | float | str | bytes | bool
Value: TypeAlias = Scalar | list[int] | list[float] | list[str] | list[bytes] | list[bool]

_T = TypeVar("_T")

INT64_MIN, INT64_MAX, UINT64_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1

# In packed numbers: a last byte that adds nothing, or more than 64 bits.
_IRREGULAR = re.compile(rb"[\x80-\xff]\x00|[\x80-\xff]{9}[^\x01]", re.DOTALL)
_LEADING_BYTES = bytes(range(0x80, 0x100))
_ITEM = tag(1, LEN)


class Field:
    """Tags of a `ScalarEntry`."""

    KEY = tag(1, LEN)
    INTEGER = tag(2, VARINT)
    REAL = tag(3, I64)
    TEXT = tag(4, LEN)
    OCTETS = tag(5, LEN)
    TRUTH = tag(6, VARINT)
    INTEGERS = tag(7, LEN)
    REALS = tag(8, LEN)
    TEXTS = tag(9, LEN)
    OCTETS_LIST = tag(10, LEN)
    TRUTHS = tag(11, LEN)
    UNSIGNED = tag(12, VARINT)
    UNSIGNEDS = tag(13, LEN)


METRIC_FIELDS = frozenset(
    {Field.INTEGER, Field.REAL, Field.INTEGERS, Field.REALS, Field.UNSIGNED, Field.UNSIGNEDS}
)

CONFIG_FIELDS = METRIC_FIELDS | {
    Field.TEXT,
    Field.OCTETS,
    Field.TRUTH,
    Field.TEXTS,
    Field.OCTETS_LIST,
    Field.TRUTHS,
}


_LIST_FIELDS = frozenset(
    {
        Field.INTEGERS,
        Field.REALS,
        Field.TEXTS,
        Field.OCTETS_LIST,
        Field.TRUTHS,
        Field.UNSIGNEDS,
    }
)


class Allowance:
    """How many list members one message may still hold."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.left = most

    def take(self, count: int) -> None:
        """Takes `count` members off.

        Raises:
            ProtocolError: ``too-large``, not as many are left.
        """
        self.left -= count
        if self.left < 0:
            raise ProtocolError(
                "", "too-large", f"at most {self.most} members of lists are accepted in a message"
            )


def write_value(entry: pb.ScalarEntry, value: object) -> None:
    """Sets the value of `entry`.

    Raises:
        ProtocolError: ``unencodable``, no scalar and no list of scalars of one type, or a whole
            number outside of -2^63 to 2^64 - 1.
    """
    match value:
        case bool():
            entry.truth = value
        case int():
            _write_integer(entry, value)
        case float():
            entry.real = value
        case str():
            entry.text = value
        case bytes():
            entry.octets = value
        case list():
            _write_list(entry, value)
        case _:
            raise _unencodable(f"a value of type {type(value).__name__} cannot be sent")


def read_value(data: bytes, field: int, first: int, last: int, items: Allowance) -> Value:
    """Returns the value of a field as `fields` yields it.

    Raises:
        ProtocolError: ``bad-skeleton``, it does not parse; ``too-large``, a list has more members
            than `items` allows.
    """
    if field in _LIST_FIELDS:
        return _read_list(data, field, first, last, items)
    return _read_scalar(data, field, first, last)


def _write_integer(entry: pb.ScalarEntry, value: int) -> None:
    if INT64_MIN <= value <= INT64_MAX:
        entry.integer = value
    elif INT64_MAX < value <= UINT64_MAX:
        entry.unsigned = value
    else:
        raise _unencodable(f"whole numbers go from -2^63 to 2^64 - 1, got {value}")


def _write_list(entry: pb.ScalarEntry, values: list[object]) -> None:
    if not values:
        entry.reals.SetInParent()  # an empty list has no type; it travels as one of reals
        return
    match values[0]:
        case bool():
            entry.truths.item.extend(_all_of(bool, values))
        case int():
            _write_integers(entry, [int(value) for value in _all_of(int, values)])
        case float():
            entry.reals.item.extend(_all_of(float, values))
        case str():
            entry.texts.item.extend(_all_of(str, values))
        case bytes():
            entry.octets_list.item.extend(_all_of(bytes, values))
        case first:
            raise _unencodable(f"a list of {type(first).__name__} cannot be sent")


def _write_integers(entry: pb.ScalarEntry, values: list[int]) -> None:
    least, most = min(values), max(values)
    if least >= INT64_MIN and most <= INT64_MAX:
        entry.integers.item.extend(values)
    elif least >= 0 and most <= UINT64_MAX:
        entry.unsigneds.item.extend(values)
    else:
        raise _unencodable(
            f"whole numbers in a list go from -2^63 to 2^63 - 1 or from 0 to 2^64 - 1, "
            f"got {least} to {most}"
        )


def _all_of(kind: type[_T], values: Sequence[object]) -> list[_T]:
    members = [value for value in values if isinstance(value, kind)]
    if len(members) != len(values):
        raise _unencodable(f"all members of a list must be {kind.__name__}, as its first one is")
    return members


def _read_scalar(data: bytes, field: int, first: int, last: int) -> Scalar:
    match field:
        case Field.INTEGER:
            return _signed(first)
        case Field.REAL:
            (real,) = struct.unpack_from("<d", data, first)
            return float(real)
        case Field.TEXT:
            return read_text(data, first, last, last - first)
        case Field.OCTETS:
            return data[first:last]
        case Field.TRUTH if first <= 1:
            return bool(first)
        case Field.UNSIGNED if first > INT64_MAX:
            return first
    raise bad(f"field {field >> 3} holds a number out of its range: {first}")


def _read_list(data: bytes, field: int, first: int, last: int, items: Allowance) -> Value:
    if field == Field.REALS:
        return _read_reals(data, first, last, items)
    if first == last:
        raise bad("an empty list must be one of reals")
    if field in {Field.TEXTS, Field.OCTETS_LIST}:
        return _read_members(data, field, first, last, items)
    return _read_packed(data, field, first, last, items)


def _signed(number: int) -> int:
    """Undoes protobuf's zigzag."""
    return number >> 1 ^ -(number & 1)


def _read_reals(data: bytes, start: int, end: int, items: Allowance) -> list[float]:
    if start == end:
        return []
    first, last = _packed(data, start, end)
    count, rest = divmod(last - first, 8)
    if rest:
        raise bad(f"the reals at byte {first} are cut")
    items.take(count)
    return list(struct.unpack_from(f"<{count}d", data, first))


def _read_packed(
    data: bytes, field: int, start: int, end: int, items: Allowance
) -> list[int] | list[bool]:
    first, last = _packed(data, start, end)
    packed = data[first:last]
    if packed[-1] & 0x80 or _IRREGULAR.search(packed):
        raise bad(f"the numbers at byte {first} are cut or not in their shortest form")
    items.take(len(packed.translate(None, _LEADING_BYTES)))
    if field == Field.TRUTHS:
        if packed.translate(None, b"\0\1"):
            raise bad(f"the truth values at byte {first} are not all 0 or 1")
        return [bool(byte) for byte in packed]
    if field == Field.INTEGERS:
        return list(pb.IntegerList.FromString(data[start:end]).item)
    values = list(pb.UnsignedList.FromString(data[start:end]).item)
    if max(values) <= INT64_MAX:
        raise bad(f"the unsigned numbers at byte {first} are all below 2^63")
    return values


def _read_members(
    data: bytes, field: int, start: int, end: int, items: Allowance
) -> list[str] | list[bytes]:
    for member, at, _ in fields(data, start, end):  # counted before anything is kept
        if member != _ITEM:
            raise bad(f"the list at byte {at} holds field {member >> 3}")
        items.take(1)
    members = fields(data, start, end)
    if field == Field.TEXTS:
        return [read_text(data, first, last, last - first) for _, first, last in members]
    return [data[first:last] for _, first, last in members]


def _packed(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Returns where the numbers of a list lie, which is one packed field and nothing else."""
    field, first, last = read_last_field(data, start, end)
    if field != _ITEM or first == last:
        raise bad(f"the list at byte {start} is not packed")
    return first, last


def _unencodable(detail: str) -> ProtocolError:
    return ProtocolError("", "unencodable", detail)
