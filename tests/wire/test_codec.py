"""Messages of Flower's survive the wire; what is shared is written once; nothing bad gets through."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app import Metadata as FlowerMetadata
from hypothesis import given
from hypothesis import strategies as st

from fedsec import flwr_compat
from fedsec.errors import ProtocolError
from fedsec.flwr_arrays import body_of
from fedsec.wire import blobs, codec, headers
from fedsec.wire.blobs import Blob
from fedsec.wire.codec import Encoder, decode, encode
from fedsec.wire.content import CHUNK_BYTES
from fedsec.wire.records import LARGE, Limits
from tests.wire.descriptors import open_fds
from tests.wire.instructions import NODE, RUN, become_coordinator, content, instruction, weights


@pytest.fixture(autouse=True)
def _coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    become_coordinator(monkeypatch)


def through(message: Message, limits: Limits = codec.LIMITS) -> Message:
    """Sends a message over the wire, by bytes and a descriptor."""
    header, blob = encode(message, limits)
    wire = headers.parse_header(header.SerializeToString())
    if blob is None:
        return decode(wire, None, limits=limits)
    with blob, Blob.adopt(blob.duplicate_fd(), wire.bulk.length) as arrived:
        return decode(wire, arrived.view(), limits=limits)


def data_of(message: Message) -> list[bytes]:
    return [
        array.data for record in message.content.array_records.values() for array in record.values()
    ]


def metadata_of(message: Message) -> dict[str, object]:
    return {
        name: value
        for name, value in message.metadata.__dict__.items()
        if name not in {"_message_id", "_delivered_at"}
    }


def same_metadata(one: Message, other: Message) -> bool:
    return metadata_of(one) == metadata_of(other)


def test_an_instruction_and_its_answer_go_there_and_back() -> None:
    asked = instruction()
    arrived = through(asked)
    assert same_metadata(arrived, asked)
    assert len(arrived.metadata.message_id) == 32
    assert data_of(arrived) == data_of(asked)
    assert arrived.content["config"] == asked.content["config"]

    flwr_compat.become(RUN, NODE, 9)
    answer = Message(content(50), reply_to=arrived)
    back = through(answer)
    assert same_metadata(back, answer)
    assert back.metadata.reply_to_message_id == arrived.metadata.message_id
    assert (back.metadata.src_node_id, back.metadata.dst_node_id) == (NODE, 1)
    assert (back.metadata.src_task_id, back.metadata.dst_task_id) == (None, 3)
    assert back.metadata.group_id == "3"


@pytest.mark.slow
@given(
    st.builds(
        flwr_compat.Envelope,
        message_id=st.sampled_from(["0" * 32, "0123456789abcdef" * 2]),
        reply_to=st.sampled_from(["", "f" * 32]),
        run_id=st.integers(0, (1 << 64) - 1),
        src_node_id=st.integers(0, (1 << 64) - 1),
        dst_node_id=st.integers(0, (1 << 64) - 1),
        group_id=st.text(max_size=256),
        created_at=st.floats(0, 1e11),
        ttl=st.floats(-1e10, 1e10),
        message_type=st.sampled_from(["train", "evaluate.b", "query.été", "get_properties"]),
        src_task_id=st.none() | st.integers(0, (1 << 64) - 1),
        dst_task_id=st.none() | st.integers(0, (1 << 64) - 1),
    ),
    st.one_of(
        st.just(RecordDict()),
        st.just(RecordDict({"c": ConfigRecord({"k": 1})})),
        st.builds(Error, st.integers(0, 1 << 31), st.none() | st.text(min_size=1)),
    ),
)
def test_all_metadata_comes_through(
    envelope: flwr_compat.Envelope, what: RecordDict | Error
) -> None:
    message = flwr_compat.make_message(envelope, what)
    back = through(message)
    assert flwr_compat.envelope(back) == envelope
    assert isinstance(back.metadata, FlowerMetadata)
    if isinstance(what, Error):
        assert back.error == what
    else:
        assert back.content == what


def test_a_long_traceback_is_cut_in_front() -> None:
    error = Message(
        Error(2, "x" * 50_000 + "\ud800 KeyError: the cause"), reply_to=through(instruction())
    )
    back = through(error)
    assert back.error.code == 2
    assert back.error.reason is not None
    assert back.error.reason.endswith(" KeyError: the cause")
    assert len(back.error.reason.encode()) <= headers.MAX_REASON


@pytest.mark.parametrize("length", [CHUNK_BYTES // 4, CHUNK_BYTES // 4 + 1, 3 * CHUNK_BYTES // 4])
def test_content_of_whole_and_broken_chunks(length: int) -> None:
    message = instruction(content(length))
    assert data_of(through(message)) == data_of(message)


def test_a_large_skeleton_goes_to_the_tail_of_the_bulk() -> None:
    records = content(10)
    records["big"] = ConfigRecord({"blob": bytes(range(256)) * 256})
    header, blob = encode(instruction(records))
    assert blob is not None
    assert header.skeleton == b""
    assert header.skeleton_tail == blob.length - 40 > 1 << 16
    assert decode(header, blob.view()).content["big"] == records["big"]
    blob.close()

    inline, nothing = encode(instruction(RecordDict({"c": ConfigRecord({"k": b"x" * 60_000})})))
    assert nothing is None
    assert not inline.HasField("bulk")
    assert len(inline.skeleton) > 60_000


def test_a_tail_without_arrays() -> None:
    records = RecordDict({"c": ConfigRecord({"k": b"x" * 70_000})})
    assert through(instruction(records)).content == records


def test_the_same_content_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(
        blobs,
        "_write_all",
        lambda fd, parts, at=0, real=blobs._write_all: written.append(fd) or real(fd, parts, at=at),
    )
    records = content()
    encoded = Encoder().encode_many(instruction(records, dst_node_id=node) for node in range(2, 9))
    assert len(written) == 1
    assert len({id(blob) for _, blob in encoded}) == 1
    assert len({header.message_id for header, _ in encoded}) == 7
    assert len({header.bulk.SerializeToString() for header, _ in encoded}) == 1
    for header, blob in encoded:
        assert blob is not None
        assert data_of(decode(header, blob.view())) == data_of(instruction(records))


def test_shared_arrays_are_written_once_though_configs_differ() -> None:
    arrays = ArrayRecord([weights()])
    messages = [
        instruction(
            RecordDict({"arrays": arrays, "config": ConfigRecord({"node": node})}), dst_node_id=node
        )
        for node in range(2, 6)
    ]
    # a copy has other objects, but Python shares what cannot change: the data
    messages.append(copy.deepcopy(messages[0]))
    messages.append(instruction(RecordDict({"other name": arrays})))
    encoded = Encoder().encode_many(messages)
    assert len({id(blob) for _, blob in encoded}) == 1
    for (header, blob), message in zip(encoded, messages, strict=True):
        assert blob is not None
        assert decode(header, blob.view()).content == message.content


def test_other_arrays_or_another_tail_are_written_apart() -> None:
    arrays = ArrayRecord([weights()])
    big = [bytes([n]) * 70_000 for n in range(2)]
    records = [
        RecordDict({"a": arrays}),
        RecordDict({"a": ArrayRecord([weights()])}),  # equal, but another object
        RecordDict({"a": arrays, "c": ConfigRecord({"k": big[0]})}),
        RecordDict({"a": arrays, "c": ConfigRecord({"k": big[1]})}),
        RecordDict({"a": arrays, "c": ConfigRecord({"k": bytes(big[1])})}),
        RecordDict({"a": ArrayRecord({"x": arrays["0"], "y": arrays["0"]})}),
    ]
    encoded = Encoder().encode_many([instruction(one) for one in records])
    assert len({id(blob) for _, blob in encoded}) == 5
    assert encoded[0][0].bulk == encoded[1][0].bulk  # the same bytes have the same name
    for (header, blob), one in zip(encoded, records, strict=True):
        assert blob is not None
        assert decode(header, blob.view()).content == one


def test_every_node_gets_its_own_copy() -> None:
    header, blob = encode(instruction())
    assert blob is not None
    one, other = decode(header, blob.view()), decode(header, blob.view())
    del one.content["config"]
    one.content.array_records["arrays"]["0"].data = b""
    assert other.content["config"] == content()["config"]
    assert data_of(other) == data_of(instruction())
    blob.close()
    assert data_of(other) == data_of(instruction())  # nothing refers to the blob any more


def test_large_arrays_stay_in_the_blob_and_small_ones_do_not() -> None:
    large, small = np.arange(LARGE // 4, dtype=np.float32), np.ones(10)
    header, blob = encode(instruction(RecordDict({"a": ArrayRecord([large, small])})))
    assert blob is not None
    message = decode(header, blob)
    blob.close()
    arrays = message.content.array_records["a"]
    assert [body_of(array) is not None for array in arrays.values()] == [True, False]
    np.testing.assert_array_equal(arrays["0"].numpy(), large)
    assert arrays == ArrayRecord([large, small])


def test_what_came_goes_out_again_without_a_copy() -> None:
    records = RecordDict({"a": ArrayRecord([np.arange(LARGE, dtype=np.float32)])})
    header, blob = encode(instruction(records))
    assert blob is not None
    with blob:
        came = decode(header, blob).content
    there, again = Encoder().encode_many(
        instruction(RecordDict({"a": came.array_records["a"], "c": ConfigRecord({"n": node})}))
        for node in range(2)
    )
    assert again[1] is there[1]
    assert body_of(came.array_records["a"]["0"]) is not None
    assert there[0].bulk == header.bulk
    assert decode(*there).content["a"] == records["a"]


@pytest.mark.parametrize("at", [0, LARGE, 3 * LARGE - 1])
def test_a_blob_with_a_changed_bit_is_refused(at: int) -> None:
    arrays = ArrayRecord([np.zeros(3 * LARGE, dtype=np.uint8)])
    header, blob = encode(instruction(RecordDict({"a": arrays})))
    assert blob is not None
    with blob:
        data = bytearray(blob.view())
    data[at] ^= 1
    with Blob.write([data]) as bad, pytest.raises(ProtocolError, match="bad-hash"):
        decode(header, bad)


def test_encoding_changes_nothing_and_keeps_an_id() -> None:
    message = instruction()
    header, _ = encode(message)
    assert message.metadata.message_id == ""
    flwr_compat.set_message_id(message, header.message_id)
    assert encode(message)[0].message_id == header.message_id


def test_a_failure_in_the_middle_leaves_nothing_open() -> None:
    before = open_fds()
    bad = RecordDict({"a": ArrayRecord({"w": Array("float32", (1,), "torch", b"x")})})

    def messages() -> Iterator[Message]:
        yield instruction()
        yield instruction(content(10))
        yield instruction(bad)

    with pytest.raises(ProtocolError, match=r"unencodable: record 'a': array 'w': serialised as"):
        Encoder().encode_many(messages())
    assert open_fds() == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dst_node_id": -1}, "metadata"),
        ({"dst_node_id": 1 << 64}, "metadata"),
        ({"group_id": "\ud800"}, "metadata"),
        ({"group_id": "g" * 300}, "group_id has 300 characters"),
        ({"ttl": float("inf")}, "ttl must be seconds"),
        ({"message_type": "train." + "a" * 200}, "message_type"),
    ],
)
def test_metadata_that_cannot_travel_is_refused(changes: dict[str, object], says: str) -> None:
    before = open_fds()
    with pytest.raises(ProtocolError, match=says):
        encode(instruction(**changes))
    assert open_fds() == before


@pytest.mark.parametrize("error", [Error("five"), Error(-1), Error(1, 7), Error(1 << 32)])
def test_an_error_that_cannot_travel_is_refused(error: Error) -> None:
    with pytest.raises(ProtocolError, match="unencodable: the message's error"):
        encode(Message(error, reply_to=through(instruction())))


def test_content_beyond_the_limit_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="has 4000 bytes of content, at most 3999 go"):
        encode(instruction(), Limits(max_content=3999))
    with pytest.raises(ProtocolError, match="too-large"):
        through(instruction(), Limits(max_content=3999))
