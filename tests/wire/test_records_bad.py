"""What a peer may send in place of a skeleton: all of it is refused, and at no great cost."""

import struct

import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedsec.errors import ProtocolError
from fedsec.wire.records import Limits, decode_records


def field(number: int, wire_type: int, payload: bytes) -> bytes:
    head = bytes([number << 3 | wire_type])
    return head + bytes([len(payload)]) + payload if wire_type == 2 else head + payload


def record(kind: int, *entries: bytes, name: bytes = b"r") -> bytes:
    body = b"".join(field(1, 2, entry) for entry in entries)
    return field(1, 2, field(1, 2, name) + field(kind, 2, body))


def entry(*parts: bytes, key: bytes = b"k") -> bytes:
    return field(1, 2, key) + b"".join(parts)


def array(dtype: bytes, shape: bytes = b"", key: bytes = b"k") -> bytes:
    return entry(field(2, 2, dtype), *([field(3, 2, shape)] if shape else []), key=key)


def value(number: int, wire_type: int, payload: bytes, kind: int = 4) -> bytes:
    return record(kind, entry(field(number, wire_type, payload)))


def test_a_hand_made_skeleton_is_read() -> None:
    skeleton = record(2, array(b"<f4", b"\2"), array(b"|u1", key=b"l")) + record(
        4,
        entry(field(2, 0, b"\3")),
        entry(field(3, 1, struct.pack("<d", 1.5)), key=b"l"),
        entry(field(7, 2, field(1, 2, b"\1\2\xac\2")), key=b"m"),
        entry(field(8, 2, b""), key=b"n"),
        entry(field(13, 2, field(1, 2, b"\0" + b"\xff" * 9 + b"\1")), key=b"o"),
        entry(field(9, 2, field(1, 2, b"") + field(1, 2, b"\xc3\xa9")), key=b"p"),
        name=b"s",
    )
    records = decode_records(skeleton, struct.pack("<ffB", 1.0, 2.0, 7))
    assert isinstance(records["r"], ArrayRecord)
    assert [one.tolist() for one in records["r"].to_numpy_ndarrays()] == [[1.0, 2.0], 7]
    assert records["s"] == ConfigRecord(
        {
            "k": -2,
            "l": 1.5,
            "m": [-1, 1, 150],
            "n": [],
            "o": [0, 2**64 - 1],
            "p": ["", "é"],
        }
    )


BAD_SKELETONS = {
    "cut tag": b"\x80",
    "cut length": b"\x0a",
    "cut record": b"\x0a\x05abc",
    "length beyond 64 bits": b"\x0a" + b"\xff" * 9 + b"\x02",
    "length of ten bytes and more": b"\x0a" + b"\xff" * 11,
    "length not in its shortest form": b"\x0a\x80\x00",
    "huge length": b"\x0a" + b"\xff" * 9 + b"\x01",
    "unknown field": field(2, 2, b""),
    "field of another encoding": field(1, 0, b"\1"),
    "group": b"\x0b\x0c",
    "32-bit field": b"\x0d\0\0\0\0",
    "record without kind": field(1, 2, field(1, 2, b"r")),
    "empty record": field(1, 2, b""),
    "record of two kinds": field(1, 2, field(2, 2, b"") + field(3, 2, b"")),
    "record of an unknown kind": field(1, 2, field(5, 2, b"")),
    "kind before name": field(1, 2, field(2, 2, b"") + field(1, 2, b"r")),
    "two names": field(1, 2, field(1, 2, b"r") + field(1, 2, b"s") + field(2, 2, b"")),
    "an empty name, written": field(1, 2, field(1, 2, b"") + field(2, 2, b"")),
    "two records of one name": record(3) + record(4),
    "two nameless records": field(1, 2, field(3, 2, b"")) * 2,
    "name not UTF-8": record(3, name=b"\xff"),
    "name of a surrogate": record(3, name=b"\xed\xa0\x80"),
    "kind with another field": field(1, 2, field(2, 2, field(2, 2, b""))),
    "entry of another encoding": field(1, 2, field(3, 2, field(1, 0, b"\1"))),
    "empty entry": record(3, b""),
    "empty array": record(2, b""),
    "two entries of one key": record(4, entry(field(2, 0, b"\1")), entry(field(2, 0, b"\1"))),
    "two arrays of one key": record(2, array(b"|u1"), array(b"|u1")),
    "array without type": record(2, entry(field(3, 2, b"\1"))),
    "array with another field": record(2, array(b"|u1") + field(4, 2, b"x")),
    "array with an empty shape, written": record(2, array(b"|u1") + field(3, 2, b"")),
    "array with a shape that is not packed": record(2, array(b"|u1") + field(3, 0, b"\1")),
    "array with two shapes": record(2, array(b"|u1", b"\1") + field(3, 2, b"\1")),
    "axis cut": record(2, array(b"|u1", b"\x80")),
    "axis not in its shortest form": record(2, array(b"|u1", b"\x81\x00")),
    "value missing": record(4, entry()),
    "two values": record(4, entry(field(2, 0, b"\1"), field(2, 0, b"\1"))),
    "two kinds of value": record(4, entry(field(2, 0, b"\1"), field(4, 2, b"x"))),
    "value unknown": value(14, 2, b""),
    "value of another encoding": value(2, 2, b"x"),
    "real cut": record(4, entry(b"\x19\0\0\0")),
    "text not UTF-8": value(4, 2, b"\xc0\x80"),
    "truth of 2": value(6, 0, b"\2"),
    "unsigned that is signed": value(12, 0, b"\1"),
    "text in metrics": value(4, 2, b"x", kind=3),
    "octets in metrics": value(5, 2, b"x", kind=3),
    "truth in metrics": value(6, 0, b"\1", kind=3),
    "truths in metrics": value(11, 2, field(1, 2, b"\1"), kind=3),
    "texts in metrics": value(9, 2, field(1, 2, b"x"), kind=3),
    "reals cut": value(8, 2, field(1, 2, bytes(7))),
    "reals not packed": value(8, 2, field(1, 1, bytes(8))),
    "reals packed twice": value(8, 2, field(1, 2, bytes(8)) * 2),
    "reals with another field": value(8, 2, field(2, 2, bytes(8))),
    "integers not packed": value(7, 2, field(1, 0, b"\1")),
    "integers cut": value(7, 2, field(1, 2, b"\x80")),
    "integers beyond 64 bits": value(7, 2, field(1, 2, b"\xff" * 9 + b"\x02")),
    "integers of eleven bytes": value(7, 2, field(1, 2, b"\xff" * 10 + b"\x01")),
    "integers not in their shortest form": value(7, 2, field(1, 2, b"\x81\x00")),
    "integers packed, none": value(7, 2, field(1, 2, b"")),
    "empty integers": value(7, 2, b""),
    "empty texts": value(9, 2, b""),
    "empty octets": value(10, 2, b""),
    "empty truths": value(11, 2, b""),
    "empty unsigneds": value(13, 2, b""),
    "truths of 2": value(11, 2, field(1, 2, b"\0\1\2")),
    "truths of 128": value(11, 2, field(1, 2, b"\0\x80\1")),
    "unsigneds that are signed": value(13, 2, field(1, 2, b"\1\2")),
    "texts with another field": value(9, 2, field(2, 2, b"x")),
    "texts not UTF-8": value(9, 2, field(1, 2, b"\xff")),
    "octets cut": value(10, 2, b"\x0a\x05x"),
    "octets of numbers": value(10, 2, field(1, 0, b"\1")),
}


@pytest.mark.parametrize("name", BAD_SKELETONS)
def test_a_bad_skeleton_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_records(BAD_SKELETONS[name], b"")
    # An array may be found too long for the empty bulk before its shape is found bad.
    assert caught.value.code in {"bad-skeleton", "bad-length"}
    assert "array" in name or "arrays" in name or caught.value.code == "bad-skeleton"


@pytest.mark.parametrize("dtype", [b"|O", b">f4", b"<f16", b"f4", b"", b"<f4 ", b"\xff", b"x" * 99])
def test_another_element_type_is_refused(dtype: bytes) -> None:
    with pytest.raises(ProtocolError, match="bad-dtype"):
        decode_records(record(2, array(dtype)), b"")


@pytest.mark.parametrize(
    "shape",
    [
        b"\1" * 65,
        b"\xff" * 9 + b"\1",
        (b"\x80" * 8 + b"\x20") * 2,  # 2^61 times 2^61
        b"\x80\x80\x04" * 4,  # 65536^4: 0 modulo 2^64
        b"\0" + b"\xff" * 9 + b"\1",  # empty, and yet too large for numpy
    ],
)
def test_an_impossible_shape_is_refused(shape: bytes) -> None:
    with pytest.raises(ProtocolError, match="bad-shape"):
        decode_records(record(2, array(b"<f4", shape)), bytes(8))


@pytest.mark.parametrize("length", [0, 7, 9, 1000])
def test_bulk_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match=f"{length} came") as caught:
        decode_records(record(2, array(b"<f4", b"\2")), bytes(length))
    assert caught.value.code == "bad-length"


def test_bulk_without_arrays_is_refused() -> None:
    with pytest.raises(ProtocolError, match="bad-length"):
        decode_records(b"", b"x")
    assert decode_records(b"", b"") == RecordDict()


def test_lengths_are_found_bad_before_memory_is_taken() -> None:
    """Two exabytes in ten bytes of skeleton: refused, though nothing could hold them."""
    with pytest.raises(ProtocolError, match="bad-length"):
        decode_records(record(2, array(b"|u1", b"\x80" * 8 + b"\x20")), b"abc")


def test_truth_values_of_an_array_are_checked() -> None:
    skeleton = record(2, array(b"|b1", b"\3"))
    decode_records(skeleton, b"\0\1\1")
    with pytest.raises(ProtocolError, match="bad-npy"):
        decode_records(skeleton, b"\0\1\2")


SMALL = Limits(max_records=3, max_entries=4, max_items=5, max_name=6)


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        (
            b"".join(record(3, name=bytes([n])) for n in range(3)),
            b"".join(record(3, name=bytes([n])) for n in range(4)),
            "4 records",
        ),
        (
            b"".join(
                record(2, array(b"|u1", b"\0"), array(b"|u1", b"\0", b"l"), name=bytes([n]))
                for n in range(2)
            ),
            b"".join(
                record(2, array(b"|u1", b"\0"), array(b"|u1", b"\0", b"l"), name=bytes([n]))
                for n in range(3)
            ),
            "5 entries",
        ),
        (
            value(8, 2, field(1, 2, bytes(40))),
            value(8, 2, field(1, 2, bytes(48))),
            "at most 5 members",
        ),
        (
            value(7, 2, field(1, 2, b"\xac\2" * 5)),
            value(7, 2, field(1, 2, b"\xac\2" * 6)),
            "at most 5 members",
        ),
        (
            value(11, 2, field(1, 2, bytes(5))),
            value(11, 2, field(1, 2, bytes(6))),
            "at most 5 members",
        ),
        (value(9, 2, b"\x0a\x00" * 5), value(9, 2, b"\x0a\x00" * 6), "at most 5 members"),
        (value(10, 2, b"\x0a\x00" * 5), value(10, 2, b"\x0a\x00" * 6), "at most 5 members"),
        (
            record(
                4,
                *[
                    entry(value_, key=key)
                    for key, value_ in (
                        (b"a", field(9, 2, b"\x0a\x00" * 3)),
                        (b"b", field(9, 2, b"\x0a\x00" * 2)),
                    )
                ],
            ),
            record(4, *[entry(field(9, 2, b"\x0a\x00" * 3), key=key) for key in (b"a", b"b")]),
            "at most 5 members",
        ),
        (record(3, name=b"6 long"), record(3, name=b"7 longs"), "at most 6 accepted"),
        (
            record(2, array(b"|u1", b"\0", b"6 long")),
            record(2, array(b"|u1", b"\0", b"7 longs")),
            "at most 6 accepted",
        ),
    ],
)
def test_each_limit_holds_and_lets_pass_what_keeps_it(good: bytes, bad: bytes, says: str) -> None:
    assert decode_records(good, b"", SMALL)
    with pytest.raises(ProtocolError, match=says) as caught:
        decode_records(bad, b"", SMALL)
    assert caught.value.code in {"too-large", "bad-skeleton"}
