"""Every record of Flower's survives the wire bit by bit; what cannot is refused at the sender."""

import io
import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    MetricRecord,
    RecordDict,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsec.errors import ProtocolError
from fedsec.wire import npy
from fedsec.wire.generated import message_pb2 as pb
from fedsec.wire.records import Limits, body_sources, decode_records, encode_records

Anything = NDArray[np.generic]

# Strategies: all that Flower's records hold.

TEXT = st.text(max_size=20)
FLOATS = st.one_of(
    st.floats(),
    st.sampled_from([-0.0, math.inf, -math.inf, 5e-324]),
    # NaNs with a sign and a payload
    st.integers(0x7FF8_0000_0000_0000, 0x7FFF_FFFF_FFFF_FFFF).flatmap(
        lambda bits: st.sampled_from(
            [struct.unpack("<d", struct.pack("<Q", bits | sign << 63))[0] for sign in (0, 1)]
        )
    ),
)
INT64 = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.sampled_from([0, -1, 63, 64, -64, -65, (1 << 63) - 1, -(1 << 63)]),
)
UINT64 = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([1 << 63, (1 << 64) - 1]))
NUMBERS = st.one_of(
    FLOATS, INT64, UINT64, st.lists(FLOATS), st.lists(INT64), st.lists(UINT64, min_size=1)
)
CONFIGS = st.one_of(
    NUMBERS,
    st.booleans(),
    TEXT,
    st.binary(max_size=20),
    st.lists(st.booleans()),
    st.lists(TEXT),
    st.lists(st.binary(max_size=20)),
)


@st.composite
def arrays(draw: st.DrawFn) -> Anything:
    """Any array, of random bits: NaN payloads, negative zeros and subnormals among them."""
    descr = draw(st.sampled_from(sorted(npy.DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    count = math.prod(shape) * npy.DTYPES[descr].itemsize
    content = draw(st.binary(min_size=count, max_size=count))
    if descr == "|b1":
        content = bytes(byte & 1 for byte in content)
    return np.frombuffer(content, dtype=descr).reshape(shape)


RECORDS = st.one_of(
    st.dictionaries(TEXT, arrays(), max_size=4).map(
        lambda named: ArrayRecord({key: Array(array) for key, array in named.items()})
    ),
    st.dictionaries(TEXT, NUMBERS, max_size=6).map(MetricRecord),
    st.dictionaries(TEXT, CONFIGS, max_size=6).map(ConfigRecord),
)
RECORD_DICTS = st.dictionaries(TEXT, RECORDS, max_size=5).map(RecordDict)


def saved(array: Anything) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def bits(value: object) -> object:
    """Returns a form of `value` that is equal only where type and bits are."""
    match value:
        case list():
            return [bits(member) for member in value]
        case float():
            return struct.pack("<d", value)
        case Array():
            return (value.dtype, value.shape, value.stype, value.data)
        case ArrayRecord() | MetricRecord() | ConfigRecord() | RecordDict():
            return (type(value), [(key, bits(member)) for key, member in value.items()])
        case _:
            return (type(value), value)


def through(records: RecordDict) -> RecordDict:
    skeleton, bodies = encode_records(records)
    return decode_records(skeleton, b"".join(bodies))


@pytest.mark.slow
@settings(max_examples=300)
@given(RECORD_DICTS)
def test_all_that_flower_holds_comes_through_bit_by_bit(records: RecordDict) -> None:
    back = through(records)
    assert bits(back) == bits(records)
    assert encode_records(back)[0] == encode_records(records)[0]


@settings(max_examples=100)
@given(RECORD_DICTS)
def test_the_skeleton_is_what_the_schema_says(records: RecordDict) -> None:
    """An ordinary protobuf parser reads it, and writes the same bytes: one content, one encoding."""
    skeleton, _ = encode_records(records)
    parsed = pb.Records.FromString(skeleton)
    assert [record.name for record in parsed.record] == list(records)
    assert parsed.SerializeToString() == skeleton


@given(arrays(), st.sampled_from("CF"), st.sampled_from("<>"))
def test_an_array_in_another_order_becomes_canonical(
    array: Anything, order: str, endian: str
) -> None:
    theirs = np.asarray(array, order=order)
    if endian == ">":
        theirs = theirs.byteswap().view(theirs.dtype.newbyteorder(">"))
    (record,) = through(RecordDict({"a": ArrayRecord({"x": Array(theirs)})})).values()
    assert isinstance(record, ArrayRecord)
    assert bits(record["x"]) == bits(Array(array))
    assert record["x"].data == saved(array)


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5, dtype=np.float32),
        np.zeros((0,), dtype=np.int8),
        np.zeros((3, 0, 2), dtype=np.complex128),
        np.array([1.5, -0.0, np.nan, np.inf, 6e-8], dtype=np.float16),
        np.array([True, False]),
        np.array([0x7F800001, 0xFFC12345], dtype=np.uint32).view(
            np.float32
        ),  # NaNs, one signalling
        np.array([-(2**63), 2**63 - 1]),
        np.array([2**64 - 1], dtype=np.uint64),
        np.zeros((1,) * 64, dtype=np.uint8),
    ],
    ids=repr,
)
def test_corner_cases_of_arrays(array: Anything) -> None:
    (record,) = through(RecordDict({"": ArrayRecord({"": Array(array)})})).values()
    assert isinstance(record, ArrayRecord)
    assert record[""].data == saved(array)
    assert record[""].numpy().tobytes() == array.tobytes()


def test_the_older_api_leaves_type_and_shape_empty() -> None:
    """flwr's conversion of legacy parameters does; the data's own header decides."""
    data = saved(np.arange(6, dtype=np.float32).reshape(2, 3))
    record = ArrayRecord({"0": Array(dtype="", shape=(), stype="numpy.ndarray", data=data)})
    (back,) = through(RecordDict({"parameters": record})).values()
    assert isinstance(back, ArrayRecord)
    assert back["0"] == Array("float32", (2, 3), "numpy.ndarray", data)


def test_subclasses_come_out_as_pythons_own() -> None:
    records = RecordDict(
        {
            "m": MetricRecord({"loss": np.float64(0.5), "losses": [np.float64(0.25)]}),
            "c": ConfigRecord({"mixed": [2, True], "text": np.str_("t"), "raw": np.bytes_(b"r")}),
        }
    )
    back = through(records)
    assert bits(back["m"]) == bits(MetricRecord({"loss": 0.5, "losses": [0.25]}))
    assert bits(back["c"]) == bits(ConfigRecord({"mixed": [2, 1], "text": "t", "raw": b"r"}))


def test_identities_of_data_tell_shared_arrays() -> None:
    arrays_ = ArrayRecord([np.zeros(3), np.ones(3)])
    one = RecordDict({"arrays": arrays_, "config": ConfigRecord({"lr": 0.1})})
    two = RecordDict({"config": ConfigRecord({"lr": 0.2}), "other name": arrays_})
    three = RecordDict({"arrays": ArrayRecord([np.zeros(3), np.ones(3)])})
    assert body_sources(one) == body_sources(two)
    assert body_sources(one) != body_sources(three)


# What an app may hold that cannot travel.


def array_record(array: object, **changes: object) -> Callable[[], RecordDict]:
    def make() -> RecordDict:
        record = ArrayRecord({"w": Array(np.zeros(2))})
        for name, value in changes.items():
            setattr(record["w"], name, value)
        if isinstance(array, np.ndarray):
            record["w"].data = saved(array)
        return RecordDict({"a": record})

    return make


def mutated_list(first: list[object], *more: object) -> Callable[[], RecordDict]:
    """A list that passed Flower's check and was changed later."""

    def make() -> RecordDict:
        record = ConfigRecord({"k": first})
        record["k"].extend(more)
        return RecordDict({"c": record})

    return make


UNENCODABLE = [
    (array_record(None, stype="torch.tensor"), "unencodable", "'a': array 'w': serialised as"),
    (array_record(None, stype=""), "unencodable", "only 'numpy.ndarray' is accepted"),
    (array_record(None, data=b"\x80\x04K\x01."), "bad-npy", "'a': array 'w': the data"),
    (array_record(None, data=b""), "bad-npy", "must be what numpy.save writes"),
    (array_record(np.array(["text"])), "bad-dtype", "elements of type '<U4'"),
    (array_record(np.array(["2020"], dtype="M8[D]")), "bad-npy", "not one of numpy.save"),
    (array_record(np.zeros(2, dtype=[("a", "f4")])), "bad-npy", "not one of numpy.save"),
    (array_record(np.zeros(2, dtype=np.longdouble)), "bad-dtype", "elements of type '<f16'"),
    (lambda: RecordDict({"m": MetricRecord({"k": 1 << 64})}), "unencodable", "'m': entry 'k'"),
    (lambda: RecordDict({"m": MetricRecord({"k": -(1 << 63) - 1})}), "unencodable", "go from"),
    (lambda: RecordDict({"m": MetricRecord({"k": [0, 1 << 64]})}), "unencodable", "0 to 1844"),
    (lambda: RecordDict({"m": MetricRecord({"k": [-1, 1 << 63]})}), "unencodable", "-1 to 922"),
    (lambda: RecordDict({"c": ConfigRecord({"k": "\ud800"})}), "unencodable", "not valid Unicode"),
    (lambda: RecordDict({"c": ConfigRecord({"k": ["\udfff"]})}), "unencodable", "not valid"),
    (lambda: RecordDict({"c": ConfigRecord({"\ud800": 1})}), "unencodable", "not valid Unicode"),
    (lambda: RecordDict({"\ud800": ConfigRecord()}), "unencodable", "not valid Unicode"),
    (
        lambda: RecordDict({"a": ArrayRecord({"\ud800": Array(np.zeros(1))})}),
        "unencodable",
        "not valid Unicode",
    ),
    (mutated_list([1], 2.0), "unencodable", "'c': entry 'k': all members of a list must be int"),
    (mutated_list([1.0], 2), "unencodable", "must be float"),
    (mutated_list([True], 2), "unencodable", "must be bool"),
    (mutated_list(["a"], b"b"), "unencodable", "must be str"),
    (mutated_list([b"a"], None), "unencodable", "must be bytes"),
    (mutated_list([], None), "unencodable", "a list of NoneType cannot be sent"),
    (mutated_list([], [1]), "unencodable", "a list of list cannot be sent"),
]


@pytest.mark.parametrize(("make", "code", "says"), UNENCODABLE)
def test_what_cannot_travel_is_named(make: Callable[[], RecordDict], code: str, says: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        encode_records(make())
    assert caught.value.code == code
    assert says in caught.value.detail
    assert caught.value.detail.startswith("record ")


def test_a_value_set_behind_flowers_back_is_refused() -> None:
    record = ConfigRecord()
    record.__dict__["_data"]["k"] = {"a": 1}
    with pytest.raises(ProtocolError, match="a value of type dict cannot be sent"):
        encode_records(RecordDict({"c": record}))


def test_a_skeleton_has_a_size_limit_on_both_ends() -> None:
    records = RecordDict({"c": ConfigRecord({"k": b"x" * 1000})})
    skeleton, _ = encode_records(records)
    with pytest.raises(ProtocolError, match=r"too-large: .* bytes of names and values"):
        encode_records(records, Limits(max_skeleton=1000))
    with pytest.raises(ProtocolError, match=r"too-large: .* bytes of skeleton"):
        decode_records(skeleton, b"", Limits(max_skeleton=1000))


MANY = {
    "3 records": RecordDict({str(n): ConfigRecord() for n in range(3)}),
    "5 entries": RecordDict(
        {
            "a": ArrayRecord([np.zeros(1)] * 2),
            "c": ConfigRecord({str(n): n for n in range(3)}),
        }
    ),
    "6 members of lists": RecordDict({"c": ConfigRecord({"k": [1] * 3, "l": ["a"] * 3})}),
    "7 bytes of one name": RecordDict({"c": ConfigRecord({"k": 1, "ééé7": 1})}),
    "8 bytes of one name": RecordDict({"8 longer": ConfigRecord()}),
}


@pytest.mark.parametrize("says", MANY)
def test_a_sender_hears_what_the_receiver_would_refuse(says: str) -> None:
    tight = Limits(max_records=2, max_entries=4, max_items=5, max_name=6)
    with pytest.raises(ProtocolError, match=says) as caught:
        encode_records(MANY[says], tight)
    assert caught.value.code == "too-large"
    assert through(MANY[says]) == MANY[says]
