"""Bulk content over mutual TLS on loopback: whole, cut, resumed, and every way of doing it wrong."""

import asyncio

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ProtocolError, StateError
from fedsec.wire.blobs import Blob, BlobWriter
from fedsec.wire.call import Call, Method
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.generated import fleet_pb2 as pb
from fedsec.wire.streams import (
    FETCH,
    STORE,
    UploadLimits,
    Uploads,
    decode_frame,
    encode_chunk,
    fetch,
    serve_fetch,
    serve_store,
    store,
)
from tests.pki import Leaf
from tests.wire.depot import (
    BEGIN,
    CONTENT,
    ID,
    MANIFEST,
    SIZES,
    VIEW,
    Depot,
    begin_frame,
    chunk,
    depot,
)
from tests.wire.gated import NODES, WHO, World, gated, refused, run, stream, unary, until


@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 16383, 16384, *SIZES[1:3]])
def test_a_hand_made_frame_is_protobufs_own(length: int) -> None:
    piece = memoryview(CONTENT)[:length]
    encoded = encode_chunk(piece)
    assert pb.ContentFrame.FromString(encoded) == pb.ContentFrame(chunk=bytes(piece))
    assert encoded == pb.ContentFrame(chunk=bytes(piece)).SerializeToString()
    decoded = decode_frame(encoded)
    assert isinstance(decoded, memoryview)
    assert decoded == piece
    assert decoded.obj is encoded  # no copy


def test_a_begin_is_told_from_a_chunk() -> None:
    assert decode_frame(begin_frame()) == BEGIN


@pytest.mark.parametrize(
    "data",
    [
        b"\x12\x83\x00abc",  # the length in two bytes where one would do
        b"\x12\x01z\x12\x03abc",  # the field twice: the last one counts
        b"\x18\x07\x12\x03abc",  # a field of a later version before it
        b"\x12\x03abc\x18\x07",  # and after it
    ],
)
def test_frames_that_other_encoders_may_write_are_understood(data: bytes) -> None:
    assert pb.ContentFrame.FromString(data).chunk == b"abc"
    assert decode_frame(data) == b"abc"


@pytest.mark.parametrize("data", [b"", b"\x12", b"\x12\x05abc", b"\xff", b"\x18\x07", b"\x12\x80"])
def test_a_frame_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_frame(data)
    assert caught.value.code == "malformed"


@given(
    st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=40).map(lambda tail: b"\x12" + tail),
        st.binary(max_size=20).map(lambda body: b"\x12" + bytes([len(body)]) + body + b"\x00"),
    )
)
def test_any_bytes_mean_what_protobuf_says_they_mean(data: bytes) -> None:
    try:
        theirs = pb.ContentFrame.FromString(data)
    except Exception:  # noqa: BLE001 - protobuf's own error, whichever it is
        theirs = pb.ContentFrame()
    try:
        ours = decode_frame(data)
    except ProtocolError:
        assert theirs.WhichOneof("kind") is None
        return
    if isinstance(ours, memoryview):
        assert bytes(ours) == theirs.chunk
    else:
        assert ours == theirs.begin


@pytest.mark.parametrize("size", SIZES)
def test_content_arrives_as_it_was_sent(size: int) -> None:
    content = (CONTENT * 2)[:size]
    manifest = Manifest.of(content)

    async def main() -> None:
        async with depot(content=content) as (world, there), world.channel() as channel:
            await store(channel, ID, manifest, memoryview(content))
            assert there.kept == {ID: content}
            assert there.uploads.unfinished == 0
            writer = BlobWriter(size)
            await fetch(channel, manifest.digest, manifest, 1, writer)
            with writer.finish() as blob:
                manifest.check(blob.view())
            assert world.refusals == []

    run(main())


def test_many_at_a_time_over_one_connection() -> None:
    async def main() -> None:
        async with depot() as (world, there), world.channel() as channel:
            ids = [f"{number:032x}" for number in range(8)]
            await asyncio.gather(*(store(channel, key, MANIFEST, VIEW) for key in ids))
            assert there.kept == dict.fromkeys(ids, CONTENT)

    run(main())


async def _cut_upload(world: World, leaf: Leaf, there: Depot, chunks: int) -> None:
    """Uploads some chunks, then the connection breaks."""
    async with world.channel(leaf) as channel:
        call = stream(channel, STORE)
        await call.write(begin_frame())
        await call.read()
        for number in range(chunks):
            await call.write(encode_chunk(chunk(number)))
        await until(lambda: there.uploads.held_bytes(leaf.spiffe_id) == chunks * CHUNK_BYTES)
    await until(lambda: world.gate.open_calls == 0)


def test_an_upload_that_was_cut_goes_on_where_it_stopped() -> None:
    async def main() -> None:
        async with depot() as (world, there):
            leaf = world.pki.node()
            await _cut_upload(world, leaf, there, 2)
            assert (there.received, there.kept) == (2, {})
            async with world.channel(leaf) as channel:
                await store(channel, ID, MANIFEST, VIEW)
            assert there.received == 3  # the last one alone
            assert there.kept == {ID: CONTENT}
            assert world.refusals == []  # a cut is no offence

    run(main())


def test_a_cut_upload_is_forgotten_in_time_without_anyone_asking() -> None:
    async def main() -> None:
        async with depot(UploadLimits(resume_s=0.1)) as (world, there):
            await _cut_upload(world, world.pki.node(), there, 1)
            assert there.uploads.unfinished == 1
            await until(lambda: there.uploads.unfinished == 0)

    run(main())


def test_another_node_cannot_go_on_with_it() -> None:
    async def main() -> None:
        async with depot() as (world, there):
            await _cut_upload(world, world.pki.node(), there, 2)
            async with world.channel() as channel:
                await store(channel, ID, MANIFEST, VIEW)
            assert there.received == 5  # all of its own

    run(main())


def test_resuming_with_other_content_is_refused() -> None:
    other = b"y" * len(CONTENT)

    async def main() -> None:
        async with depot() as (world, there):
            leaf = world.pki.node()
            await _cut_upload(world, leaf, there, 2)
            async with world.channel(leaf) as channel:
                attempt = store(channel, ID, Manifest.of(other), memoryview(other))
                status, details = await refused(attempt)
                assert status is grpc.StatusCode.INVALID_ARGUMENT
                assert details.startswith("other-content: ")
                assert there.uploads.unfinished == 0
                await store(channel, ID, Manifest.of(other), memoryview(other))
            assert there.kept == {ID: other}

    run(main())


def test_a_peer_that_came_back_takes_its_upload_over_from_its_old_connection() -> None:
    async def main() -> None:
        async with depot() as (world, there):
            leaf = world.pki.node()
            async with world.channel(leaf) as old, world.channel(leaf) as new:
                stale = stream(old, STORE)
                await stale.write(begin_frame())
                await stale.read()
                await stale.write(encode_chunk(chunk(0)))
                await until(lambda: there.uploads.held_bytes(leaf.spiffe_id) == CHUNK_BYTES)
                fresh = stream(new, STORE)
                await fresh.write(begin_frame())
                assert await fresh.read() == pb.StoreFrame(resume=1).SerializeToString()
                await stale.write(encode_chunk(chunk(1)))
                _, details = await refused(stale.read())
                assert details.startswith("replaced: ")
                await fresh.write(encode_chunk(chunk(1)))
                await fresh.write(encode_chunk(chunk(2)))
                await fresh.done_writing()
                assert await fresh.read() == pb.StoreFrame(stored=True).SerializeToString()
            assert there.kept == {ID: CONTENT}

    run(main())


def test_what_is_held_already_is_not_sent_again() -> None:
    async def main() -> None:
        async with depot(held={ID}) as (world, there), world.channel() as channel:
            await store(channel, ID, MANIFEST, VIEW)
            assert (there.received, there.kept) == (0, {})

    run(main())


def test_what_nobody_asked_for_is_refused_before_a_chunk_is_sent() -> None:
    def nobody(reply_to: str, manifest: Manifest) -> int | None:
        raise StateError(f"nobody waits for {reply_to}")

    async def handler(call: Call) -> None:
        await serve_store(call, Uploads(UploadLimits()), nobody, Depot(uploads).keep)

    uploads = Uploads(UploadLimits())

    async def main() -> None:
        row = Method(STORE, NODES, handler, long_lived=True)
        async with gated([row]) as world, world.channel() as channel:
            status, details = await refused(store(channel, ID, MANIFEST, VIEW))
            assert status is grpc.StatusCode.FAILED_PRECONDITION
            assert details == f"state: nobody waits for {ID}"

    run(main())


def test_a_fetch_that_was_cut_goes_on_where_it_stopped() -> None:
    async def main() -> None:
        async with depot() as (world, _), world.channel() as channel:
            writer = BlobWriter(len(CONTENT))
            writer.append(chunk(0))
            await fetch(channel, MANIFEST.digest, MANIFEST, 1, writer)
            with writer.finish() as blob:
                assert blob.view() == CONTENT
                complete = BlobWriter(len(CONTENT))
                complete.append(CONTENT)
                await fetch(channel, MANIFEST.digest, MANIFEST, 1, complete)  # nothing is left

    run(main())


def test_fetching_from_beyond_the_end_is_refused() -> None:
    async def main() -> None:
        async with depot() as (world, _), world.channel() as channel:
            request = pb.FetchRequest(first_chunk=4).SerializeToString()
            call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(FETCH)
            status, details = await refused(call(request).read())
            assert status is grpc.StatusCode.INVALID_ARGUMENT
            assert details == "bad-chunk: first_chunk must be at most 3, got 4"

    run(main())


def test_content_that_its_owner_lets_go_is_still_sent_to_the_end() -> None:
    blob = Blob.write([CONTENT])
    half_way = asyncio.Event()

    async def give(call: Call) -> None:
        sent = 0

        async def write(frame: bytes) -> None:
            nonlocal sent
            await call.write(frame)
            sent += 1
            if sent == 1:
                blob.close()
                half_way.set()

        watched = Call(call.principal, call.peer, call.method, call.read, write)
        await serve_fetch(watched, blob.view(), MANIFEST, 0)

    async def main() -> None:
        row = Method(FETCH, NODES, give, long_lived=True)
        async with gated([row]) as world, world.channel() as channel:
            writer = BlobWriter(len(CONTENT))
            await fetch(channel, MANIFEST.digest, MANIFEST, 1, writer)
            assert half_way.is_set()
            with writer.finish() as got:
                assert got.view() == CONTENT

    run(main())


def test_a_peer_that_accepts_nothing_is_cut() -> None:
    async def main() -> None:
        big = bytes(96 * CHUNK_BYTES)  # more than gRPC holds under way to one that does not read
        async with depot(content=big, idle_s=0.3) as (world, _), world.channel() as channel:
            call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(FETCH)
            idle = call(pb.FetchRequest().SerializeToString())
            await until(lambda: world.codes() == ["stalled"], 10)
            idle.cancel()
            assert await unary(channel, WHO.name)

    run(main())
