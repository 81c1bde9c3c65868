"""Every field of a header is checked; a failure can be made from any instruction."""

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ProtocolError
from fedsec.wire import headers
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.generated import message_pb2 as pb
from fedsec.wire.headers import ErrorCode

ID = "0123456789abcdef" * 2
OTHER_ID = "f" * 32


def instruction(**changes: object) -> pb.Header:
    fields: dict[str, object] = {
        "message_id": ID,
        "run_id": 7,
        "src_node_id": headers.COORDINATOR_NODE_ID,
        "dst_node_id": 1 << 63,
        "group_id": "3",
        "created_at": 1.7e9,
        "ttl": 3600.0,
        "message_type": "train",
        "skeleton": b"opaque here",
    }
    return pb.Header(**{**fields, **changes})


def test_a_good_header_comes_through_as_it_is() -> None:
    header = instruction(bulk=Manifest.of(bytes(5)).to_proto(), src_task_id=0)
    parsed = headers.parse_header(header.SerializeToString())
    assert parsed == header
    assert parsed.HasField("src_task_id")
    assert not parsed.HasField("dst_task_id")


def test_a_field_of_a_newer_peer_is_let_pass() -> None:
    newer = instruction().SerializeToString() + bytes([0xFA, 0x01, 3]) + b"new"  # field 31
    assert headers.parse_header(newer).message_id == ID


BAD: list[tuple[str, Callable[[], pb.Header]]] = [
    ("message_id", lambda: instruction(message_id="")),
    ("message_id", lambda: instruction(message_id=ID[:-1])),
    ("message_id", lambda: instruction(message_id=ID + "0")),
    ("message_id", lambda: instruction(message_id=ID.upper())),
    ("message_id", lambda: instruction(message_id=ID + "\n")),
    ("message_id", lambda: instruction(message_id="../" + ID[3:])),
    ("reply_to", lambda: instruction(reply_to="x")),
    ("group_id", lambda: instruction(group_id="g" * 257)),
    ("message_type", lambda: instruction(message_type="")),
    ("message_type", lambda: instruction(message_type="destroy")),
    ("message_type", lambda: instruction(message_type="train.")),
    ("message_type", lambda: instruction(message_type="train.a.b")),
    ("message_type", lambda: instruction(message_type="train.a-b")),
    ("message_type", lambda: instruction(message_type="train." + "a" * 123)),
    ("created_at", lambda: instruction(created_at=math.nan)),
    ("created_at", lambda: instruction(created_at=math.inf)),
    ("created_at", lambda: instruction(created_at=-1.0)),
    ("ttl", lambda: instruction(ttl=math.nan)),
    ("ttl", lambda: instruction(ttl=-math.inf)),
    ("ttl", lambda: instruction(ttl=2e10)),
    ("a failure carries no content", lambda: instruction(failure=pb.Failure(code=1))),
    (
        "a failure carries no content",
        lambda: instruction(skeleton=b"", failure=pb.Failure(), skeleton_tail=1),
    ),
    (
        "a failure carries no content",
        lambda: instruction(skeleton=b"", failure=pb.Failure(), bulk=Manifest.of(b"x").to_proto()),
    ),
    ("a reason", lambda: instruction(skeleton=b"", failure=pb.Failure(reason="r" * 16385))),
    ("an inline skeleton", lambda: instruction(skeleton=bytes(65537))),
    (
        "both inline and in",
        lambda: instruction(skeleton_tail=70_000, bulk=pb.Manifest(length=9, sha256=[bytes(32)])),
    ),
    ("a skeleton in the tail", lambda: instruction(skeleton=b"", skeleton_tail=65536)),
    ("a skeleton in the tail", lambda: instruction(skeleton=b"", skeleton_tail=1 << 63)),
    (
        "a tail of 70000 bytes in a bulk of 0",
        lambda: instruction(skeleton=b"", skeleton_tail=70_000),
    ),
    (
        "a tail of 70000 bytes in a bulk of 9",
        lambda: instruction(
            skeleton=b"", skeleton_tail=70_000, bulk=pb.Manifest(length=9, sha256=[bytes(32)])
        ),
    ),
]


@pytest.mark.parametrize(("says", "make"), BAD)
def test_a_bad_field_is_refused_by_name(says: str, make: Callable[[], pb.Header]) -> None:
    with pytest.raises(ProtocolError, match=says) as caught:
        headers.parse_header(make().SerializeToString())
    assert caught.value.code == "bad-header"


def test_bulk_is_bounded_and_consistent() -> None:
    header = instruction(bulk=pb.Manifest(length=CHUNK_BYTES + 1, sha256=[bytes(32)] * 2))
    headers.check_header(header, max_bytes=CHUNK_BYTES + 1)
    with pytest.raises(ProtocolError, match="too-large"):
        headers.check_header(header, max_bytes=CHUNK_BYTES)
    with pytest.raises(ProtocolError, match="bad-manifest"):
        headers.check_header(instruction(bulk=pb.Manifest(length=1)))


@pytest.mark.parametrize("data", [b"\xff", b"\x0a", b"\x0a\x02\xff\xff", b"\x9b\x01" * 200])
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="bad-header"):
        headers.parse_header(data)


def test_a_huge_header_is_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="too-large"):
        headers.parse_header(bytes(headers.MAX_HEADER_BYTES + 1))


def test_the_largest_content_fits_into_a_header() -> None:
    chunks = -(-headers.MAX_CONTENT // CHUNK_BYTES)
    full = instruction(
        reply_to=OTHER_ID,
        skeleton=bytes(headers.MAX_INLINE_SKELETON),
        group_id="\U0001f33b" * headers.MAX_GROUP,
        bulk=pb.Manifest(length=headers.MAX_CONTENT, sha256=[bytes(32)] * chunks),
    )
    headers.parse_header(full.SerializeToString())


def test_a_failure_goes_back_the_way_the_instruction_came() -> None:
    asked = instruction(src_task_id=5, bulk=Manifest.of(bytes(3)).to_proto())
    reply = headers.reply_failure(
        asked, ErrorCode.NODE_UNAVAILABLE, "node a was lost", now=1.7e9 + 600
    )
    headers.check_header(reply)
    assert reply.message_id != ID
    assert reply == pb.Header(
        message_id=reply.message_id,
        reply_to=ID,
        run_id=7,
        src_node_id=1 << 63,
        dst_node_id=1,
        group_id="3",
        created_at=1.7e9 + 600,
        ttl=3000.0,
        message_type="train",
        dst_task_id=5,
        failure=pb.Failure(code=5, reason="node a was lost"),
    )
    back = headers.reply_failure(instruction(dst_task_id=6), 0, "")
    assert (back.src_task_id, back.HasField("dst_task_id")) == (6, False)
    assert back.created_at > 1.7e9


@given(
    st.builds(
        pb.Header,
        message_id=st.sampled_from([ID, "", "x"]),
        reply_to=st.text(),
        group_id=st.text(max_size=20).map(lambda text: text * 20),
        created_at=st.floats(),
        ttl=st.floats(),
        message_type=st.sampled_from(["train", "", "train." + "a" * 200]),
        skeleton=st.binary(),
        skeleton_tail=st.integers(0, 1 << 63),
    )
)
def test_a_failure_can_be_made_of_any_header(asked: pb.Header) -> None:
    reply = headers.reply_failure(asked, ErrorCode.MESSAGE_UNAVAILABLE, "it cannot be read")
    headers.parse_header(reply.SerializeToString())
    assert reply.reply_to == (ID if asked.message_id == ID else "")


@given(st.text())
def test_any_reason_is_made_to_fit(reason: str) -> None:
    for text in (reason, reason * 2000, "\ud800" + reason):
        clipped = headers.clip_reason(text)
        assert len(clipped.encode()) <= headers.MAX_REASON
        headers.check_header(headers.reply_failure(instruction(), 2, text))
    assert headers.clip_reason(reason) == reason


def test_the_end_of_a_long_reason_is_kept() -> None:
    clipped = headers.clip_reason("start " + "é" * 20_000 + " ValueError: the cause")
    assert clipped.startswith("... ")
    assert clipped.endswith("é ValueError: the cause")


def test_message_ids_are_new_and_valid() -> None:
    made = {headers.new_message_id() for _ in range(1000)}
    assert len(made) == 1000
    for message_id in made:
        headers.check_header(instruction(message_id=message_id))


def test_what_the_coordinator_and_the_agent_need_imports_no_flower() -> None:
    program = (
        "import sys\n"
        "import fedsec.wire.blobs, fedsec.wire.content, fedsec.wire.headers, fedsec.wire.local\n"
        "print([name for name in ('flwr', 'numpy', 'torch') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"
