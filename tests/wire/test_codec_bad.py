"""Messages that a peer must not send are refused with a code, whatever is wrong with them."""

import pytest

from fedsec.errors import ProtocolError
from fedsec.wire import headers
from fedsec.wire.codec import decode, encode
from fedsec.wire.content import Manifest
from fedsec.wire.generated import message_pb2 as pb
from fedsec.wire.records import Limits
from tests.wire.instructions import become_coordinator, instruction


@pytest.fixture(autouse=True)
def _coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    become_coordinator(monkeypatch)


def encoded() -> tuple[pb.Header, bytes]:
    header, blob = encode(instruction())
    assert blob is not None
    with blob:
        return header, bytes(blob.view())


def code_of(header: pb.Header, bulk: bytes | None, **limits: int) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode(header, bulk, limits=Limits(**limits))
    return caught.value.code


def test_one_changed_bit_anywhere_in_the_bulk_is_found() -> None:
    header, bulk = encoded()
    for at in (0, 1, len(bulk) // 2, len(bulk) - 1):
        changed = bytearray(bulk)
        changed[at] ^= 0x40
        assert code_of(header, bytes(changed)) == "bad-hash"


@pytest.mark.parametrize("cut", [1, 4000])
def test_a_cut_or_longer_bulk_is_refused(cut: int) -> None:
    header, bulk = encoded()
    assert code_of(header, bulk[:-cut]) == "bad-length"
    assert code_of(header, bulk + bytes(cut)) == "bad-length"


def test_header_and_bulk_must_belong_together() -> None:
    header, bulk = encoded()
    assert code_of(header, None) == "no-content"
    header.ClearField("bulk")
    assert code_of(header, bulk) == "unexpected-content"
    assert code_of(header, b"") == "unexpected-content"
    assert code_of(header, None) == "bad-length"  # the arrays miss their bodies
    failure = headers.reply_failure(header, 1, "no")
    assert code_of(failure, bulk) == "unexpected-content"


def test_a_bulk_that_is_well_named_but_not_what_the_skeleton_needs() -> None:
    header, bulk = encoded()
    for other in (bulk[:-4], bulk + bytes(4)):
        header.bulk.CopyFrom(Manifest.of(other).to_proto())
        assert code_of(header, other) == "bad-length"


def test_a_header_is_checked_before_all_else() -> None:
    header, bulk = encoded()
    assert code_of(header, bulk, max_content=3999) == "too-large"
    header.message_type = "explode"
    assert code_of(header, bulk) == "bad-header"


def test_limits_reach_the_skeleton() -> None:
    header, bulk = encoded()
    assert code_of(header, bulk, max_records=2) == "too-large"
    assert code_of(header, bulk, max_entries=5) == "too-large"
    assert code_of(header, bulk, max_items=1) == "too-large"
    assert code_of(header, bulk, max_skeleton=20) == "too-large"


def test_a_tail_that_is_no_skeleton_is_refused() -> None:
    header, _ = encoded()
    bulk = bytes(100_000)
    header.skeleton = b""
    header.skeleton_tail = 70_000
    header.bulk.CopyFrom(Manifest.of(bulk).to_proto())
    assert code_of(header, bulk) == "bad-skeleton"
