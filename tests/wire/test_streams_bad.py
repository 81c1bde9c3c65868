"""Bulk content over mutual TLS, and every way of doing it wrong, at either end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import grpc
import grpc.aio
import pytest

from fedsec.errors import ProtocolError, StateError
from fedsec.wire.answers import refusal_of
from fedsec.wire.blobs import BlobWriter
from fedsec.wire.call import Call, Handler, Method
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.duplex import Duplex
from fedsec.wire.generated import fleet_pb2 as pb
from fedsec.wire.generated import message_pb2
from fedsec.wire.streams import (
    FETCH,
    STORE,
    UploadLimits,
    encode_chunk,
    fetch,
    store,
)
from tests.wire.depot import (
    BEGIN,
    CONTENT,
    ID,
    MANIFEST,
    VIEW,
    begin_frame,
    chunk,
    depot,
)
from tests.wire.gated import NODES, gated, refused, run, stream, until


def endless() -> Iterable[bytes]:
    yield begin_frame()
    while True:
        yield encode_chunk(chunk(0))


def manifest_of(length: int, hashes: int, size: int = 32) -> bytes:
    wrong = message_pb2.Manifest(length=length, sha256=[bytes(size)] * hashes)
    return begin_frame(pb.StoreBegin(reply_to=ID, manifest=wrong))


ALL = [encode_chunk(chunk(number)) for number in range(3)]

BAD_UPLOADS: dict[str, tuple[Callable[[], Iterable[bytes]], str]] = {
    "a chunk first": (lambda: [ALL[0]], "malformed"),
    "garbage first": (lambda: [b"\xff\xff"], "malformed"),
    "garbage later": (lambda: [begin_frame(), b"\xff\xff"], "malformed"),
    "a second begin": (lambda: [begin_frame(), begin_frame()], "malformed"),
    "too long": (lambda: [begin_frame(), *ALL, ALL[2]], "too-large"),
    "an empty chunk more": (lambda: [begin_frame(), *ALL, b"\x12\x00"], "too-large"),
    "never ending": (endless, "bad-chunk"),
    "a begin at the end": (lambda: [begin_frame(), *ALL, begin_frame()], "too-large"),
    "too short": (lambda: [begin_frame(), *ALL[:2]], "too-short"),
    "nothing at all": (list, "too-short"),
    "the last chunk too early": (lambda: [begin_frame(), ALL[2]], "bad-chunk"),
    "an empty chunk": (lambda: [begin_frame(), b"\x12\x00"], "bad-chunk"),
    "an overlong chunk": (
        lambda: [begin_frame(), encode_chunk(VIEW[: CHUNK_BYTES + 1])],
        "bad-chunk",
    ),
    "no manifest": (lambda: [begin_frame(pb.StoreBegin(reply_to=ID))], "bad-manifest"),
    "too few hashes": (lambda: [manifest_of(len(CONTENT), 2)], "bad-manifest"),
    "too many hashes": (lambda: [manifest_of(1, 2)], "bad-manifest"),
    "short hashes": (lambda: [manifest_of(1, 1, 31)], "bad-manifest"),
    "too large": (lambda: [manifest_of(1 << 40, 1)], "too-large"),
    "no reply_to": (lambda: [begin_frame(pb.StoreBegin(manifest=BEGIN.manifest))], "bad-reply-to"),
}


async def _send_all(channel: grpc.aio.Channel, frames: Iterable[bytes]) -> None:
    """Uploads blindly, whatever the coordinator says, until it ends the call."""
    call = Duplex(channel, STORE)
    reader = asyncio.ensure_future(_read_on(call))
    with suppress(grpc.aio.AioRpcError):  # the reader gets the same
        for frame in frames:
            await call.write(frame)
    await call.done_writing()
    await reader


async def _read_on(call: Duplex) -> None:
    while await call.read() is not None:
        pass


@pytest.mark.parametrize("name", sorted(BAD_UPLOADS))
def test_a_bad_upload_is_refused_logged_and_leaves_nothing(name: str) -> None:
    frames, code = BAD_UPLOADS[name]

    async def main() -> None:
        async with depot() as (world, there), world.channel() as good:
            leaf = world.pki.node()
            async with world.channel(leaf) as channel:
                _, details = await refused(_send_all(channel, frames()))
            assert details.startswith(f"{code}: ")
            (refusal,) = world.refusals
            assert refusal.code == code
            assert refusal.principal is not None
            assert refusal.principal.spiffe_id == leaf.spiffe_id
            assert there.kept == {}
            if code != "too-short":  # which may be a cut, so it can go on
                assert there.uploads.unfinished == 0
            await store(good, ID, MANIFEST, VIEW)
            assert there.kept == {ID: CONTENT}

    run(main())


@pytest.mark.parametrize("chunks", [0, 2, 3])
def test_a_stalled_upload_is_cut_but_may_go_on(chunks: int) -> None:
    """Nothing after the begin, after a chunk, or no end after the last one."""

    async def main() -> None:
        async with depot(UploadLimits(idle_s=0.2)) as (world, there):
            leaf = world.pki.node()
            async with world.channel(leaf) as channel:
                call = stream(channel, STORE)
                for frame in [begin_frame(), *ALL[:chunks]]:
                    await call.write(frame)
                await call.read()
                status, details = await refused(call.read())
                assert status is grpc.StatusCode.INVALID_ARGUMENT
                assert details.startswith("stalled: node ")
                assert there.uploads.held_bytes(leaf.spiffe_id) == len(VIEW[: chunks * CHUNK_BYTES])
                assert world.codes() == ["stalled"]
                await store(channel, ID, MANIFEST, VIEW)
            assert there.kept == {ID: CONTENT}
            assert there.received == 3

    run(main())


def test_one_peer_cannot_hold_more_than_its_share_and_others_are_not_concerned() -> None:
    limits = UploadLimits(max_content=len(CONTENT), max_partial=2 * len(CONTENT))

    async def main() -> None:
        async with depot(limits) as (world, there), world.channel() as channel:
            for number in range(2):
                call = stream(channel, STORE)
                begin = pb.StoreBegin(reply_to=f"{number:032x}", manifest=MANIFEST.to_proto())
                await call.write(begin_frame(begin))
                await call.read()
            status, details = await refused(store(channel, ID, MANIFEST, VIEW))
            assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details.startswith("too-many-uploads: 2 uploads are unfinished")
            async with world.channel() as other:
                await store(other, ID, MANIFEST, VIEW)
            assert there.kept == {ID: CONTENT}

    run(main())


def says(*frames: bytes, then_hang: bool = False) -> Handler:
    async def handler(call: Call) -> None:
        await call.read()
        for frame in frames:
            await call.write(frame)
        if then_hang:
            await asyncio.Event().wait()

    return handler


BAD_FETCHES: dict[str, tuple[Handler, str]] = {
    "ends early": (says(*ALL[:2]), "too-short"),
    "sends more": (says(*ALL, ALL[2]), "too-large"),
    "wrong length": (says(ALL[2]), "bad-chunk"),
    "a begin": (says(begin_frame()), "bad-chunk"),
    "garbage": (says(b"\xff"), "malformed"),
    "stalls": (says(ALL[0], then_hang=True), "stalled"),
    "stalls before the end": (says(*ALL, then_hang=True), "stalled"),
}

STORED = pb.StoreFrame(stored=True).SerializeToString()
FROM_0 = pb.StoreFrame(resume=0).SerializeToString()
BAD_STORES: dict[str, tuple[Handler, str]] = {
    "says nothing": (says(), "bad-chunk"),
    "stored at once": (says(STORED), "bad-chunk"),
    "asks for a chunk that is none": (
        says(pb.StoreFrame(resume=4).SerializeToString()),
        "bad-chunk",
    ),
    "garbage": (says(b"\xff"), "malformed"),
    "does not confirm": (
        says(pb.StoreFrame(resume=3).SerializeToString(), FROM_0),
        "malformed",
    ),
    "stalls": (says(then_hang=True), "stalled"),
    "stalls at the end": (says(FROM_0, then_hang=True), "stalled"),
}


def _client_fails(
    path: str, handler: Handler, act: Callable[[grpc.aio.Channel], Awaitable[None]]
) -> str:
    async def main() -> str:
        row = Method(path, NODES, handler, long_lived=True)
        async with gated([row]) as world, world.channel() as channel:
            with pytest.raises(ProtocolError, match=r"^coordinator: |^malformed") as caught:
                await act(channel)
            await until(lambda: world.gate.open_calls == 0)  # the client let go of the call
            return caught.value.code

    return run(main())


@pytest.mark.parametrize("name", sorted(BAD_FETCHES))
def test_a_node_does_not_take_bad_content(name: str) -> None:
    handler, code = BAD_FETCHES[name]
    writer = BlobWriter(len(CONTENT))
    assert code == _client_fails(
        FETCH,
        handler,
        lambda channel: fetch(channel, MANIFEST.digest, MANIFEST, 1, writer, idle_s=0.3),
    )
    assert writer.written in {len(VIEW[: number * CHUNK_BYTES]) for number in range(4)}
    writer.close()


@pytest.mark.parametrize("name", sorted(BAD_STORES))
def test_a_node_does_not_believe_a_bad_answer(name: str) -> None:
    handler, code = BAD_STORES[name]
    assert code == _client_fails(
        STORE, handler, lambda channel: store(channel, ID, MANIFEST, VIEW, idle_s=0.3)
    )


def test_a_coordinator_that_accepts_nothing_is_noticed() -> None:
    big = bytes(96 * CHUNK_BYTES)
    assert (
        _client_fails(
            STORE,
            says(FROM_0, then_hang=True),
            lambda channel: store(channel, ID, Manifest.of(big), memoryview(big), idle_s=0.5),
        )
        == "stalled"
    )


def test_a_refusal_in_mid_upload_reaches_the_node_as_it_was_said() -> None:
    async def full(call: Call) -> None:
        await call.read()
        await call.write(FROM_0)
        await call.read()
        raise StateError("the run has ended")

    big = bytes(64 * CHUNK_BYTES)

    async def main() -> None:
        row = Method(STORE, NODES, full, long_lived=True)
        async with gated([row]) as world, world.channel() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await store(channel, ID, Manifest.of(big), memoryview(big))
            assert refusal_of(caught.value) == ("state", "the run has ended")

    run(main())


def test_the_coordinator_dies_in_mid_upload() -> None:
    async def main() -> None:
        started = asyncio.Event()

        async def holds(call: Call) -> None:
            await call.read()
            await call.write(FROM_0)
            started.set()
            await asyncio.Event().wait()

        row = Method(STORE, NODES, holds, long_lived=True)
        async with gated([row]) as world, world.channel() as channel:
            upload = asyncio.ensure_future(store(channel, ID, MANIFEST, VIEW))
            await started.wait()
            await world.listener.server.stop(0)
            status, _ = await refused(upload)
            assert status in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

    run(main())


def test_the_frames_of_these_tests_are_what_a_good_node_sends() -> None:
    async def main() -> None:
        async with depot() as (world, there), world.channel() as channel:
            frames: Sequence[bytes] = [begin_frame(), *ALL]
            await _send_all(channel, frames)
            assert there.kept == {ID: CONTENT}

    run(main())
