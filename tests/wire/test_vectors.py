"""The code holds to every vector of the wire's specification, the failing ones included."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedsec.errors import ProtocolError
from fedsec.wire import codec, headers, npy
from fedsec.wire.content import Manifest
from fedsec.wire.local import LocalSocket, socket_pair
from fedsec.wire.records import STYPE, decode_records, encode_records

Vector = dict[str, Any]
VECTORS: dict[str, list[Vector]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "wire.json").read_text(encoding="ascii")
)


def each(section: str) -> pytest.MarkDecorator:
    vectors = VECTORS[section]
    return pytest.mark.parametrize("vector", vectors, ids=[each["comment"] for each in vectors])


def code_of(read: Callable[[], object]) -> str:
    with pytest.raises(ProtocolError) as caught:
        read()
    return caught.value.code


def octets(vector: Vector, name: str) -> bytes:
    return bytes.fromhex(vector[name])


def value_of(form: Vector) -> object:
    ((kind, value),) = form.items()
    match kind:
        case "integer":
            return int(value)
        case "real":
            return struct.unpack(">d", bytes.fromhex(value))[0]
        case "octets":
            return bytes.fromhex(value)
        case "list":
            return [value_of(member) for member in value]
        case _:
            return value


def array_of(dtype: str, shape: list[int], body: str) -> Array:
    (known,) = (one for one in npy.DTYPES.values() if one.name == dtype)
    axes = tuple(shape)
    return Array(dtype, axes, STYPE, npy.make_header(known, axes) + bytes.fromhex(body))


def records_of(vector: Vector) -> RecordDict:
    records = RecordDict()
    for name, record in vector["records"]:
        ((kind, entries),) = record.items()
        if kind == "arrays":
            records[name] = ArrayRecord({key: array_of(*array) for key, *array in entries})
        else:
            make = MetricRecord if kind == "metrics" else ConfigRecord
            records[name] = make({key: value_of(value) for key, value in entries})
    return records


@each("content")
def test_content(vector: Vector) -> None:
    manifest = Manifest.of(octets(vector, "repeat") * vector["times"])
    assert [one.hex() for one in manifest.chunks] == vector["chunks"]
    assert manifest.digest.hex() == vector["digest"]


@each("arrays")
def test_an_array(vector: Vector) -> None:
    data = octets(vector, "npy")
    header = npy.parse_header(data)
    assert (header.dtype.descr, list(header.shape)) == (vector["dtype"], vector["shape"])
    canonical = npy.make_header(header.dtype, header.shape) + npy.canonical_body(data, header)
    assert canonical == octets(vector, "canonical")


@each("bad_arrays")
def test_a_bad_array(vector: Vector) -> None:
    array = Array("", (), STYPE, octets(vector, "npy"))
    records = RecordDict({"a": ArrayRecord({"w": array})})
    assert code_of(lambda: encode_records(records)) == vector["code"]


@each("skeletons")
def test_a_skeleton(vector: Vector) -> None:
    records = records_of(vector)
    skeleton, bodies = encode_records(records)
    assert skeleton == octets(vector, "skeleton")
    assert b"".join(bodies) == octets(vector, "bodies")
    read = decode_records(octets(vector, "skeleton"), octets(vector, "bodies"))
    assert repr(read) == repr(records)  # equality would tell a NaN from itself


@each("bad_skeletons")
def test_a_bad_skeleton(vector: Vector) -> None:
    skeleton, bodies = octets(vector, "skeleton"), octets(vector, "bodies")
    assert code_of(lambda: decode_records(skeleton, bodies)) == vector["code"]


@each("headers")
def test_a_header(vector: Vector) -> None:
    header = headers.parse_header(octets(vector, "header"))
    bulk = None if vector["bulk"] is None else octets(vector, "bulk")
    message = codec.decode(header, bulk)
    assert message.metadata.message_id == header.message_id
    assert message.has_error() == header.HasField("failure")


@each("bad_headers")
def test_a_bad_header(vector: Vector) -> None:
    assert code_of(lambda: headers.parse_header(octets(vector, "header"))) == vector["code"]


def receive(stream: bytes) -> list[bytes]:
    peer, ours = socket_pair()
    peer.sendall(stream)
    peer.close()
    receiver = LocalSocket(ours)
    frames = []
    try:
        while (received := receiver.receive(5)) is not None:
            frames.append(received[0])
    finally:
        receiver.close()
    return frames


@each("frames")
def test_local_frames(vector: Vector) -> None:
    frames = [bytes.fromhex(frame) for frame in vector["frames"]]
    assert receive(octets(vector, "stream")) == frames


@each("bad_frames")
def test_bad_local_frames(vector: Vector) -> None:
    assert code_of(lambda: receive(octets(vector, "stream"))) == vector["code"]
