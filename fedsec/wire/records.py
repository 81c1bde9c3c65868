"""Flower's records as a skeleton and bodies, and back.

The skeleton is an encoded `Records` message: names, kinds, scalars, and each array's type and
shape. The bodies of the arrays follow beside it, raw and back to back, in the order of the
skeleton. Only Flower's public types are used. Spec: docs/spec/wire.md, "Skeleton" and "Arrays".

What goes in comes out equal, except where Flower's own wire makes a difference too or where the
array's data alone decides: a list of whole numbers may hold truth values, which come out as 0 and
1; subclasses of Python's scalars, such as `numpy.float64`, come out as Python's; an array in
big-endian or Fortran order comes out little-endian in C order; and `Array.dtype` and `Array.shape`,
which Flower's older API leaves empty, come out as the data's header says.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    ConfigRecordValues,
    MetricRecord,
    MetricRecordValues,
    RecordDict,
)

from fedsec.errors import ProtocolError
from fedsec.flwr_arrays import STYPE, Body, ReceivedArray, body_of
from fedsec.wire import npy, scalars
from fedsec.wire.blobs import Blob
from fedsec.wire.content import Buffer
from fedsec.wire.fields import (
    LEN,
    bad,
    fields,
    read_field,
    read_last_field,
    read_text,
    read_varint,
    tag,
)
from fedsec.wire.generated import message_pb2 as pb
from fedsec.wire.headers import MAX_CONTENT, MAX_SKELETON

LARGE = 1 << 20  # bytes of a body from which on it may stay where it is
_ALIGNED = 64  # bytes, as where numpy's own arrays begin

_DESCRS = {descr.encode("ascii"): dtype for descr, dtype in npy.DTYPES.items()}


class Field:
    """Tags of `Records`, and of the messages inside it that hold arrays."""

    RECORD = tag(1, LEN)
    NAME = tag(1, LEN)
    ARRAYS = tag(2, LEN)
    METRICS = tag(3, LEN)
    CONFIGS = tag(4, LEN)
    ENTRY = tag(1, LEN)
    KEY = tag(1, LEN)
    DTYPE = tag(2, LEN)
    SHAPE = tag(3, LEN)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one message may hold. What passes a limit is refused before memory is taken.

    Args:
        max_content: Bytes of bulk content.
        max_skeleton: Bytes of skeleton.
        max_records: Records in the message.
        max_entries: Entries in all records together.
        max_items: Members of all lists together.
        max_name: Bytes of a record's name or an entry's key.
    """

    max_content: int = MAX_CONTENT
    max_skeleton: int = MAX_SKELETON
    max_records: int = 1024
    max_entries: int = 65_536
    max_items: int = 1 << 19
    max_name: int = 1024


LIMITS = Limits()


def encode_records(records: RecordDict, limits: Limits = LIMITS) -> tuple[bytes, list[Buffer]]:
    """Returns the skeleton of `records` and the bodies of its arrays; empty bodies are left out.

    A body is a view of the array's data where that is canonical already, so nothing is copied.

    Raises:
        ProtocolError: ``unencodable``, a value cannot travel; an array's own codes (see
            `npy.parse_header`), the sentence naming record and key; ``too-large``, a limit is
            passed.
    """
    _check_counts(records, limits)
    skeleton = pb.Records()
    bodies: list[Buffer] = []
    for name, record in records.items():
        try:
            bodies += _write_record(skeleton.record.add(name=name), record)
        except (UnicodeEncodeError, ProtocolError) as error:
            raise _located(f"record {name!r}", error) from error
    data = skeleton.SerializeToString()
    if len(data) > limits.max_skeleton:
        raise _too_large("bytes of names and values", len(data), limits.max_skeleton)
    return data, [body for body in bodies if len(body)]


def decode_records(
    skeleton: bytes, bulk: Buffer, limits: Limits = LIMITS, *, lasting: Blob | None = None
) -> RecordDict:
    """Returns the records of `skeleton`, whose arrays' bodies are `bulk`, all of it.

    Each array's data is byte for byte what `numpy.save` writes. The skeleton is walked and bounded
    first; memory for arrays is taken after all their lengths were found to fit.

    Args:
        skeleton: As it came.
        bulk: As it came.
        limits: What is accepted.
        lasting: Whose view `bulk` is, from its beginning: that never changes and lives as long as
            a slice of it. Arrays of 1 MiB or more refer to it, and are copied when somebody asks
            for their bytes; the elements of one that is half of it, when somebody writes to them.

    Raises:
        ProtocolError: ``bad-skeleton``, ``bad-dtype`` or ``bad-shape``, it does not parse;
            ``too-large``, a limit is passed; ``bad-length``, `bulk` is not what the arrays need;
            ``bad-npy``, a truth value in it is neither 0 nor 1.
    """
    view = memoryview(bulk)
    records = RecordDict()
    for name, contents in _Reader(skeleton, len(view), limits).read().items():
        match contents:
            case _Arrays(slots):
                record = ArrayRecord()
                for key, slot in slots.items():
                    record[key] = _make_array(slot, view, lasting)
                records[name] = record
            case _Metrics(values):
                records[name] = MetricRecord(values)
            case _Configs(values):
                records[name] = ConfigRecord(values)
    return records


def body_sources(records: RecordDict) -> tuple[int, ...]:
    """Returns the identities of the data of all arrays: equal for records with the same bodies.

    Good only as long as the records live and nobody changes them.
    """
    return tuple(
        id(body_of(array) or array.data)
        for record in records.values()
        if isinstance(record, ArrayRecord)
        for array in record.values()
    )


def _check_counts(records: RecordDict, limits: Limits) -> None:
    """Tells the sender what the receiver would refuse."""
    others = [record for record in records.values() if not isinstance(record, ArrayRecord)]
    lists = [value for record in others for value in record.values() if isinstance(value, list)]
    names = [*records, *(key for record in records.values() for key in record)]
    sizes = [len(name.encode("utf-8", "surrogatepass")) for name in names]
    for what, count, most in (
        ("records", len(records), limits.max_records),
        ("entries", len(names) - len(records), limits.max_entries),
        ("members of lists", sum(map(len, lists)), limits.max_items),
        ("bytes of one name", max(sizes, default=0), limits.max_name),
    ):
        if count > most:
            raise _too_large(what, count, most)


def _write_record(
    target: pb.Record, record: ArrayRecord | MetricRecord | ConfigRecord
) -> list[Buffer]:
    if isinstance(record, ArrayRecord):
        target.arrays.SetInParent()
        bodies = []
        for key, array in record.items():
            try:
                bodies.append(_write_array(target.arrays.entry.add(key=key), array))
            except (UnicodeEncodeError, ProtocolError) as error:
                raise _located(f"array {key!r}", error) from error
        return bodies
    values = target.metrics if isinstance(record, MetricRecord) else target.configs
    values.SetInParent()
    for key, value in record.items():
        try:
            scalars.write_value(values.entry.add(key=key), value)
        except (UnicodeEncodeError, ProtocolError) as error:
            raise _located(f"entry {key!r}", error) from error
    return []


def _write_array(entry: pb.ArrayEntry, array: Array) -> Buffer:
    """Fills `entry` and returns the array's body."""
    if array.stype != STYPE:
        raise ProtocolError(
            "", "unencodable", f"serialised as {array.stype!r}; only {STYPE!r} is accepted"
        )
    if (body := body_of(array)) is not None:
        entry.dtype = body.dtype.str
        entry.shape.extend(body.shape)
        return body.view
    header = npy.parse_header(array.data)
    entry.dtype = header.dtype.descr
    entry.shape.extend(header.shape)
    return npy.canonical_body(array.data, header)


def _located(where: str, error: UnicodeEncodeError | ProtocolError) -> ProtocolError:
    """Returns `error` with the place at which it was found before it."""
    if isinstance(error, ProtocolError):
        return ProtocolError("", error.code, f"{where}: {error.detail}")
    return ProtocolError("", "unencodable", f"{where}: the text is not valid Unicode")


class _Slot(NamedTuple):
    """One array: its type, and where its body lies in the bulk."""

    dtype: npy.Dtype
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Arrays:
    slots: dict[str, _Slot]


@dataclass(frozen=True, slots=True)
class _Metrics:
    values: dict[str, MetricRecordValues]


@dataclass(frozen=True, slots=True)
class _Configs:
    values: dict[str, ConfigRecordValues]


_Contents: TypeAlias = _Arrays | _Metrics | _Configs


def _make_array(slot: _Slot, bulk: memoryview, lasting: Blob | None) -> Array:
    body = bulk[slot.start : slot.end]
    npy.check_body(slot.dtype, body)
    header = npy.make_header(slot.dtype, slot.shape)
    if lasting is None or len(body) < LARGE:
        return Array(slot.dtype.name, slot.shape, STYPE, b"".join((header, body)))
    own = None
    # Who keeps the array keeps all that came with it: no more than it is long itself.
    if 2 * len(body) >= len(bulk) and slot.start % _ALIGNED == 0:
        own = lasting.own_view()
    return ReceivedArray(
        Body(np.dtype(slot.dtype.descr), slot.shape, header, body),
        None if own is None else own[slot.start : slot.end],
    )


class _Reader:
    """Walks a skeleton once and counts as it goes. Takes no memory for arrays."""

    def __init__(self, skeleton: bytes, bulk_length: int, limits: Limits) -> None:
        if len(skeleton) > limits.max_skeleton:
            raise _too_large("bytes of skeleton", len(skeleton), limits.max_skeleton)
        self._data = skeleton
        self._limits = limits
        self._entries = 0
        self._items = scalars.Allowance(limits.max_items)
        self._bulk_length = bulk_length
        self._offset = 0

    def read(self) -> dict[str, _Contents]:
        plan: dict[str, _Contents] = {}
        for field, start, end in fields(self._data, 0, len(self._data)):
            if field != Field.RECORD:
                raise bad(f"field {field >> 3} is none of a skeleton's")
            if len(plan) == self._limits.max_records:
                raise _too_large("records", len(plan) + 1, self._limits.max_records)
            name, contents = self._record(start, end)
            if name in plan:
                raise bad(f"there are two records {name!r}")
            plan[name] = contents
        if self._offset != self._bulk_length:
            raise self._bad_length()
        return plan

    def _record(self, start: int, end: int) -> tuple[str, _Contents]:
        name, at = self._name(start, end)
        field, first, last = read_last_field(self._data, at, end)
        match field:
            case Field.ARRAYS:
                return name, _Arrays(self._arrays(first, last))
            case Field.METRICS:
                metrics = self._values(first, last, scalars.METRIC_FIELDS)
                return name, _Metrics(cast("dict[str, MetricRecordValues]", metrics))
            case Field.CONFIGS:
                return name, _Configs(self._values(first, last, scalars.CONFIG_FIELDS))
            case _:
                raise bad(f"record {name!r} is of kind {field >> 3}, which is not known here")

    def _arrays(self, start: int, end: int) -> dict[str, _Slot]:
        slots: dict[str, _Slot] = {}
        for key, at, last in self._keyed(start, end):
            if key in slots:
                raise bad(f"there are two arrays {key!r}")
            slots[key] = self._slot(at, last)
        return slots

    def _slot(self, at: int, end: int) -> _Slot:
        field, first, last, at = read_field(self._data, at, end)
        if field != Field.DTYPE:
            raise bad(f"the array at byte {at} has no element type")
        dtype = _DESCRS.get(self._data[first:last])
        if dtype is None:
            raise ProtocolError(
                "", "bad-dtype", f"elements of type {self._data[first:last][:20]!r}"
            )
        shape = self._shape(at, end) if at < end else ()
        begin, self._offset = self._offset, self._offset + npy.body_length(dtype, shape)
        if self._offset > self._bulk_length:
            raise self._bad_length()
        return _Slot(dtype, shape, begin, self._offset)

    def _shape(self, at: int, end: int) -> tuple[int, ...]:
        field, at, last = read_last_field(self._data, at, end)
        if field != Field.SHAPE or at == last:
            raise bad(f"the array that ends at byte {end} holds field {field >> 3}")
        shape: list[int] = []
        while at < last:
            if len(shape) == npy.MAX_DIMENSIONS:
                raise ProtocolError("", "bad-shape", f"more than {npy.MAX_DIMENSIONS} axes")
            axis, at = read_varint(self._data, at, last)
            shape.append(axis)
        return tuple(shape)

    def _values(self, start: int, end: int, kinds: frozenset[int]) -> dict[str, scalars.Value]:
        values: dict[str, scalars.Value] = {}
        for key, at, last in self._keyed(start, end):
            if key in values:
                raise bad(f"there are two entries {key!r}")
            field, low, high = read_last_field(self._data, at, last)
            if field not in kinds:
                raise bad(f"entry {key!r} holds field {field >> 3}, which is not allowed there")
            values[key] = scalars.read_value(self._data, field, low, high, self._items)
        return values

    def _keyed(self, start: int, end: int) -> Iterator[tuple[str, int, int]]:
        """Yields each entry of a record as (key, where the rest of it begins, its end)."""
        for field, first, last in fields(self._data, start, end):
            if field != Field.ENTRY:
                raise bad(f"the record at byte {start} holds field {field >> 3}")
            self._entries += 1
            if self._entries > self._limits.max_entries:
                raise _too_large("entries", self._entries, self._limits.max_entries)
            key, at = self._name(first, last)
            yield key, at, last

    def _name(self, start: int, end: int) -> tuple[str, int]:
        """Returns the text that a message begins with, empty where it is left out."""
        if start == end or self._data[start] != Field.NAME:
            return "", start
        _, first, last, at = read_field(self._data, start, end)
        if first == last:
            raise bad(f"the empty name at byte {start} must be left out")
        return read_text(self._data, first, last, self._limits.max_name), at

    def _bad_length(self) -> ProtocolError:
        return ProtocolError(
            "",
            "bad-length",
            f"the arrays need {self._offset} bytes of content or more, {self._bulk_length} came",
        )


def _too_large(what: str, count: int, most: int) -> ProtocolError:
    return ProtocolError("", "too-large", f"{count} {what} in a message, at most {most} accepted")
