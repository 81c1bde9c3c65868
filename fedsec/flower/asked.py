"""What a node is asked to work on, as 32 bytes that everybody in a secure sum must agree on.

A coordinator that shows nodes different models can have all but one of them send next to nothing,
and reads the update of that one off the sum. Source: Pasquini, Francati, Ateniese, "Eluding Secure
Aggregation in Federated Learning via Model Inconsistency", CCS 2022. Specification:
docs/spec/secagg.md, "Session".
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedsec.flower.secure_messages import SECAGG
from fedsec.flwr_arrays import body_of
from fedsec.secagg.codec import label, u8, u32, u64

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_ASKED = label("asked")
_ARRAYS, _METRICS, _CONFIGS = 1, 2, 3
_BOOL, _INT, _FLOAT, _TEXT, _BYTES, _LIST = range(1, 7)
_double: Callable[[float], bytes] = struct.Struct(">d").pack

_Pieces: TypeAlias = "Iterator[ReadableBuffer]"


def digest_of(content: RecordDict) -> bytes:
    """Returns the digest (32 bytes) of an instruction's records, but for that of the stage.

    One SHA-256 pass over the arrays, which are not copied.
    """
    records = sorted((name, record) for name, record in content.items() if name != SECAGG)
    digest = hashlib.sha256(_ASKED + u32(len(records)))
    for name, record in records:
        for piece in _record(name, record):
            digest.update(piece)
    return digest.digest()


def _record(name: str, record: ArrayRecord | MetricRecord | ConfigRecord) -> _Pieces:
    if isinstance(record, ArrayRecord):
        yield _text(name) + u8(_ARRAYS) + u32(len(record))
        for key, array in record.items():  # their order is part of what is asked
            yield _text(key)
            yield from _array(array)
        return
    yield _text(name) + u8(_METRICS if isinstance(record, MetricRecord) else _CONFIGS)
    yield u32(len(record))
    for key in sorted(record):
        yield _text(key) + _value(record[key])


def _array(array: Array) -> _Pieces:
    yield _text(array.dtype) + _text(array.stype)
    yield u32(len(array.shape)) + b"".join(map(u64, array.shape))
    body = body_of(array)
    pieces = (array.data,) if body is None else (body.header, body.view)
    yield u64(sum(map(len, pieces)))
    yield from pieces


def _value(value: object) -> bytes:
    match value:
        case bool():
            return u8(_BOOL) + u8(value)
        case int():
            return u8(_INT) + _text(str(value))
        case float():
            return u8(_FLOAT) + _double(value)
        case str():
            return u8(_TEXT) + _text(value)
        case bytes():
            return u8(_BYTES) + u32(len(value)) + value
        case list():
            return u8(_LIST) + u32(len(value)) + b"".join(map(_value, value))
        case _:
            raise TypeError(f"a record holds no {type(value).__name__}")


def _text(text: str) -> bytes:
    data = text.encode()
    return u32(len(data)) + data
