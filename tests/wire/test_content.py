"""Content is named by its chunks' hashes; the oracle is the formula of the specification."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ProtocolError
from fedsec.wire.content import CHUNK_BYTES, Manifest, chunk_count
from fedsec.wire.generated import message_pb2 as pb


def content(length: int) -> bytes:
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def by_the_formula(data: bytes) -> bytes:
    hashes = [
        hashlib.sha256(data[at : at + 1048576]).digest() for at in range(0, len(data), 1048576)
    ]
    return hashlib.sha256(
        b"fedsec-v1/content\x00" + len(data).to_bytes(8, "big") + b"".join(hashes)
    ).digest()


def code_of(error: pytest.ExceptionInfo[ProtocolError]) -> str:
    return error.value.code


LENGTHS = [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7]


@pytest.mark.parametrize("length", LENGTHS)
def test_the_digest_is_the_formula(length: int) -> None:
    data = content(length)
    manifest = Manifest.of(data)
    assert manifest.digest == by_the_formula(data)
    assert sum(manifest.chunk_length(i) for i in range(len(manifest.chunks))) == length
    manifest.check(memoryview(data))


def test_the_digest_of_a_known_content() -> None:
    assert Manifest.of(b"fedsec").digest.hex() == (
        "48d09ff1c0cc1a1041660da5c9bc837668bb48aaf7d464f09183579685a48fed"
    )


@given(st.lists(st.integers(0, 2 * CHUNK_BYTES + 5), min_size=1, max_size=5))
def test_parts_make_the_same_manifest_as_the_whole(lengths: list[int]) -> None:
    whole = content(sum(lengths) + 1)
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    starts = [0, *ends]
    parts = [whole[a:b] for a, b in zip(starts, [*ends, len(whole)], strict=True)]
    assert Manifest.of_parts(parts) == Manifest.of(whole)


@pytest.mark.parametrize("length", LENGTHS)
def test_it_travels(length: int) -> None:
    manifest = Manifest.of(content(length))
    wire = pb.Manifest.FromString(manifest.to_proto().SerializeToString())
    assert Manifest.from_proto(wire, max_bytes=length) == manifest


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (pb.Manifest(), "bad-manifest"),
        (pb.Manifest(length=0, sha256=[bytes(32)]), "bad-manifest"),
        (pb.Manifest(length=1), "bad-manifest"),
        (pb.Manifest(length=1, sha256=[bytes(32)] * 2), "bad-manifest"),
        (pb.Manifest(length=CHUNK_BYTES + 1, sha256=[bytes(32)]), "bad-manifest"),
        (pb.Manifest(length=CHUNK_BYTES, sha256=[bytes(32)] * 2), "bad-manifest"),
        (pb.Manifest(length=1, sha256=[bytes(31)]), "bad-manifest"),
        (pb.Manifest(length=1, sha256=[b""]), "bad-manifest"),
        (pb.Manifest(length=(10 << 20) + 1, sha256=[bytes(32)] * 11), "too-large"),
        (pb.Manifest(length=(1 << 64) - 1, sha256=[bytes(32)]), "too-large"),
    ],
)
def test_a_manifest_that_does_not_fit_together_is_refused(wire: pb.Manifest, code: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        Manifest.from_proto(wire, max_bytes=10 << 20)
    assert code_of(caught) == code


def test_no_content_has_no_manifest() -> None:
    with pytest.raises(ProtocolError, match="length must be > 0, got 0"):
        Manifest.of(b"")


def test_one_changed_bit_is_found_and_its_chunk_named() -> None:
    data = bytearray(content(2 * CHUNK_BYTES + 9))
    manifest = Manifest.of(data)
    data[CHUNK_BYTES + 5] ^= 1
    manifest.check_chunk(0, data[:CHUNK_BYTES])
    with pytest.raises(ProtocolError, match="chunk 1 of 3 is not what was announced") as caught:
        manifest.check(data)
    assert code_of(caught) == "bad-hash"


@pytest.mark.parametrize("length", [0, 8, 10])
def test_another_length_is_refused(length: int) -> None:
    manifest = Manifest.of(content(9))
    with pytest.raises(ProtocolError) as caught:
        manifest.check(content(length))
    assert code_of(caught) == "bad-length"
    with pytest.raises(ProtocolError) as caught:
        manifest.check_chunk(0, content(length))
    assert code_of(caught) == "bad-chunk"


@pytest.mark.parametrize("index", [-1, 1, 1 << 40])
def test_a_chunk_that_does_not_exist_is_refused(index: int) -> None:
    with pytest.raises(ProtocolError, match="does not exist, there are 1") as caught:
        Manifest.of(b"x").check_chunk(index, b"x")
    assert code_of(caught) == "bad-chunk"


@given(st.integers(1, 1 << 50))
def test_chunks_cover_the_content_and_no_more(length: int) -> None:
    count = chunk_count(length)
    assert (count - 1) * CHUNK_BYTES < length <= count * CHUNK_BYTES
