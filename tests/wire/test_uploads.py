"""Unfinished uploads: what one peer may hold, how they go on, when they are forgotten."""

import pytest

from fedsec.errors import ConfigError, ProtocolError
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.uploads import Upload, UploadLimits, Uploads

ANN, BOB = "spiffe://fed.example/node/" + "a" * 32, "spiffe://fed.example/node/" + "b" * 32
FIRST, SECOND = "1" * 32, "2" * 32
CONTENT = b"x" * (2 * CHUNK_BYTES + 5)
MANIFEST = Manifest.of(CONTENT)
OTHER = Manifest.of(b"y" * len(CONTENT))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def chunk(number: int) -> memoryview:
    return memoryview(CONTENT)[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]


def begun(uploads: Uploads, chunks: int = 0, owner: str = ANN, reply_to: str = FIRST) -> Upload:
    upload = uploads.begin(owner, reply_to, MANIFEST)
    for number in range(chunks):
        upload.append(upload.holder, chunk(number))
    return upload


def code_of(caught: pytest.ExceptionInfo[ProtocolError]) -> tuple[str, str]:
    return caught.value.peer, caught.value.code


def test_an_upload_from_begin_to_blob() -> None:
    uploads = Uploads(UploadLimits())
    upload = begun(uploads, 3)
    assert upload.complete
    assert upload.next_chunk == 3
    with uploads.finish(upload) as blob:
        assert blob.view() == CONTENT
    assert uploads.unfinished == 0


def test_a_cut_upload_goes_on_where_it_stopped() -> None:
    uploads = Uploads(UploadLimits())
    first = begun(uploads, 2)
    uploads.pause(first, first.holder)
    again = uploads.begin(ANN, FIRST, MANIFEST)
    assert again.next_chunk == 2
    again.append(again.holder, chunk(2))
    with uploads.finish(again) as blob:
        assert blob.view() == CONTENT


def test_a_newer_stream_takes_over_and_the_older_one_may_add_nothing() -> None:
    uploads = Uploads(UploadLimits(), clock := Clock())
    upload = begun(uploads, 1)
    old = upload.holder
    newer = uploads.begin(ANN, FIRST, MANIFEST)
    with pytest.raises(ProtocolError) as caught:
        upload.append(old, chunk(1))
    assert code_of(caught) == (ANN, "replaced")
    uploads.pause(upload, old)  # the old stream's end does not make the new one's upload stale
    clock.now += 10_000
    uploads.sweep()
    assert uploads.unfinished == 1
    newer.append(newer.holder, chunk(1))


def test_resuming_with_other_content_is_refused_and_forgets_what_came() -> None:
    uploads = Uploads(UploadLimits())
    begun(uploads, 1)
    with pytest.raises(ProtocolError, match="begun with other content") as caught:
        uploads.begin(ANN, FIRST, OTHER)
    assert code_of(caught) == (ANN, "other-content")
    assert uploads.begin(ANN, FIRST, OTHER).next_chunk == 0


def test_two_peers_may_answer_under_the_same_name() -> None:
    uploads = Uploads(UploadLimits())
    begun(uploads, 1, ANN)
    assert begun(uploads, 0, BOB).next_chunk == 0
    assert uploads.held_bytes(ANN) == CHUNK_BYTES
    assert uploads.held_bytes(BOB) == 0


@pytest.mark.parametrize(
    ("number", "piece", "code"),
    [
        (0, CONTENT[: CHUNK_BYTES - 1], "bad-chunk"),
        (0, CONTENT[: CHUNK_BYTES + 1], "bad-chunk"),
        (0, b"", "bad-chunk"),
        (2, CONTENT[:CHUNK_BYTES], "bad-chunk"),
        (2, CONTENT[:4], "bad-chunk"),
        (3, b"x", "too-large"),
        (3, b"", "too-large"),
    ],
)
def test_a_chunk_of_a_wrong_length_is_refused_and_adds_nothing(
    number: int, piece: bytes, code: str
) -> None:
    uploads = Uploads(UploadLimits())
    upload = begun(uploads, number)
    before = upload.writer.written
    with pytest.raises(ProtocolError) as caught:
        upload.append(upload.holder, piece)
    assert code_of(caught) == (ANN, code)
    assert upload.writer.written == before


def test_a_cut_upload_is_kept_for_so_long_and_no_longer() -> None:
    uploads = Uploads(UploadLimits(resume_s=60), clock := Clock())
    upload = begun(uploads, 1)
    clock.now += 1000
    uploads.sweep()
    assert uploads.unfinished == 1  # its stream is still there
    uploads.pause(upload, upload.holder)
    clock.now += 59
    uploads.sweep()
    assert uploads.unfinished == 1
    clock.now += 1
    uploads.sweep()
    assert uploads.unfinished == 0
    assert uploads.begin(ANN, FIRST, MANIFEST).next_chunk == 0


def test_one_peer_cannot_hold_more_than_its_share() -> None:
    size = len(CONTENT)
    limits = UploadLimits(max_content=size, max_partial=2 * size, max_uploads=16)
    uploads = Uploads(limits)
    for number in range(2):
        begun(uploads, 0, ANN, f"{number:032x}")
    with pytest.raises(ProtocolError, match="2 uploads are unfinished") as caught:
        begun(uploads, 0, ANN, f"{9:032x}")
    assert code_of(caught) == (ANN, "too-many-uploads")
    begun(uploads, 0, BOB, f"{9:032x}")


def test_what_is_kept_elsewhere_counts_as_well() -> None:
    size = len(CONTENT)
    uploads = Uploads(UploadLimits(max_content=size, max_partial=3 * size))
    begun(uploads, 0, ANN, f"{0:032x}")
    uploads.begin(ANN, f"{1:032x}", MANIFEST, beside=size)
    with pytest.raises(ProtocolError, match=f"and {3 * size} bytes are kept") as caught:
        uploads.begin(ANN, f"{2:032x}", MANIFEST, beside=size)
    assert code_of(caught) == (ANN, "too-many-uploads")
    assert uploads.unfinished == 2


def test_all_peers_together_cannot_hold_more_than_the_total() -> None:
    size = len(CONTENT)
    kept = [0]
    limits = UploadLimits(max_content=size, max_partial=4 * size, max_total=3 * size)
    uploads = Uploads(limits, elsewhere=lambda: sum(kept))
    first, second = begun(uploads, 3, ANN), begun(uploads, 0, BOB)
    uploads.finish(first).close()
    kept[0] = size  # which waits for its reply now
    third = begun(uploads, 1, ANN, SECOND)
    with pytest.raises(ProtocolError, match=f"{3 * size} bytes of all nodes' uploads") as caught:
        begun(uploads, 0, BOB, SECOND)
    assert code_of(caught) == (BOB, "no-room")
    assert begun(uploads, 0, ANN, SECOND) is third  # going on takes no more room
    uploads.drop(second)
    uploads.drop(second)  # which frees its room once
    begun(uploads, 0, BOB, SECOND)
    with pytest.raises(ProtocolError):
        begun(uploads, 0, BOB, FIRST)
    kept[0] = 0
    begun(uploads, 0, BOB, FIRST)


def test_one_upload_is_let_in_where_nothing_else_is_kept() -> None:
    """A total below one model, as on a small machine, makes nodes wait for each other and no more."""
    uploads = Uploads(UploadLimits(max_total=1))
    upload = begun(uploads, 3)
    with pytest.raises(ProtocolError):
        begun(uploads, 0, BOB)
    uploads.finish(upload).close()
    begun(uploads, 0, BOB)


def test_the_number_of_unfinished_uploads_is_limited_too() -> None:
    uploads = Uploads(UploadLimits(max_uploads=3))
    started = [begun(uploads, 0, ANN, f"{number:032x}") for number in range(3)]
    with pytest.raises(ProtocolError) as caught:
        begun(uploads, 0, ANN, f"{9:032x}")
    assert code_of(caught) == (ANN, "too-many-uploads")
    begun(uploads, 1, ANN, f"{0:032x}")  # going on with one is not a further one
    uploads.drop(started[1])
    begun(uploads, 0, ANN, f"{9:032x}")


def test_content_that_is_too_large_is_refused_before_memory_is_taken() -> None:
    uploads = Uploads(UploadLimits(max_content=len(CONTENT) - 1))
    with pytest.raises(ProtocolError) as caught:
        begun(uploads)
    assert code_of(caught) == (ANN, "too-large")
    assert uploads.unfinished == 0


@pytest.mark.parametrize(
    "reply_to", ["", "a" * 33, "A" * 32, "../../etc", "é" * 32, "a" * 32 + "\n"]
)
def test_an_id_that_is_none_is_refused(reply_to: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        Uploads(UploadLimits()).begin(ANN, reply_to, MANIFEST)
    assert code_of(caught) == (ANN, "bad-reply-to")


def test_all_of_a_peers_uploads_can_be_dropped() -> None:
    uploads = Uploads(UploadLimits())
    gone = begun(uploads, 1, ANN)
    begun(uploads, 1, ANN, SECOND)
    begun(uploads, 1, BOB)
    uploads.drop_owner(ANN)
    assert uploads.unfinished == 1
    uploads.drop_owner(ANN)
    uploads.drop(gone)  # its stream ends afterwards, and finds nothing to drop
    uploads.pause(gone, gone.holder)
    assert uploads.unfinished == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_content": 0},
        {"max_content": 2, "max_partial": 1},
        {"max_total": 0},
        {"max_uploads": 0},
        {"resume_s": -1.0},
        {"idle_s": 0.0},
    ],
)
def test_nonsense_limits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        UploadLimits(**wrong)  # type: ignore[arg-type]
