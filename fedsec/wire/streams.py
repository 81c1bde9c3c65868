"""Bulk content between node and coordinator: 1 MiB chunks, in order, resumable, never all at once.

    fetch    node: FetchRequest(first_chunk)      coordinator: chunk*  end
    store    node: begin                          coordinator: resume(n)
             node: chunk n, n+1, ...  end         coordinator: stored

Each chunk is written only when gRPC has taken the one before, so a slow peer slows the other; what
is under way is bounded by gRPC's windows (21 MiB seen on loopback). Lengths are checked here, chunk
by chunk; hashes by the far end alone, which is the only one that uses the content. Spec:
docs/spec/wire.md, "Content streams".
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc.aio

from fedsec.errors import ProtocolError
from fedsec.wire.blobs import Blob, BlobWriter
from fedsec.wire.call import Call, parse
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.duplex import Duplex
from fedsec.wire.generated import fleet_pb2 as pb
from fedsec.wire.uploads import Upload, UploadLimits, Uploads

__all__ = ["Upload", "UploadLimits", "Uploads", "fetch", "serve_fetch", "serve_store", "store"]

FETCH = "/fedsec.v1.Fleet/Fetch"
STORE = "/fedsec.v1.Fleet/Store"
IDLE_S = 30.0

_COORDINATOR = "coordinator"
_CHUNK_TAG = 0x12  # field 2, length-delimited
_CONTINUES, _SEVEN_BITS = 0x80, 0x7F
_MAX_PREFIX = 5  # bytes of tag and length of a frame of at most 4 MiB
_SETTLE_S = 0.05  # a cut connection looks like the end of the requests, this long at most

# Both ways of an upload that may go on later; any other break of the protocol ends it for good.
_RESUMABLE = frozenset({"stalled", "too-short", "replaced"})


def encode_chunk(view: memoryview) -> bytes:
    """Returns the `ContentFrame` that carries `view`, 1 byte to 1 MiB. One copy."""
    length = len(view)
    prefix = bytearray([_CHUNK_TAG])
    while length > _SEVEN_BITS:
        prefix.append(length & _SEVEN_BITS | _CONTINUES)
        length >>= 7
    prefix.append(length)
    return b"".join((prefix, view))


def decode_frame(data: bytes) -> pb.StoreBegin | memoryview:
    """Returns what a `ContentFrame` carries: a begin, or the chunk as a view into `data`.

    Raises:
        ProtocolError: ``malformed``, it is no such frame, or an empty one.
    """
    if (start := _start_of_chunk(data)) is not None:
        return memoryview(data)[start:]
    frame = parse(pb.ContentFrame, data, "")  # also a chunk that another encoder wrote its own way
    match frame.WhichOneof("kind"):
        case "begin":
            return frame.begin
        case "chunk":
            return memoryview(frame.chunk)
        case _:
            raise ProtocolError("", "malformed", "the frame carries nothing")


def _start_of_chunk(data: bytes) -> int | None:
    """Returns where the chunk begins, if `data` is one chunk field and nothing else."""
    if not data or data[0] != _CHUNK_TAG:
        return None
    length = shift = 0
    for position, byte in enumerate(data[1:_MAX_PREFIX], start=1):
        length |= (byte & _SEVEN_BITS) << shift
        shift += 7
        if not byte & _CONTINUES:
            start = position + 1
            return start if start + length == len(data) else None
    return None


async def serve_fetch(
    call: Call, view: memoryview, manifest: Manifest, first_chunk: int, *, idle_s: float = IDLE_S
) -> None:
    """Sends content from `first_chunk` on. For the handler of a long-lived method.

    Args:
        call: Whose one request was read already.
        view: The content; may be closed by its owner while this runs.
        manifest: Of it.
        first_chunk: 0 to the number of chunks; the latter sends nothing.
        idle_s: Seconds that the peer may take to accept a chunk.

    Raises:
        ProtocolError: ``bad-chunk``, there is none of this number; ``stalled``.
    """
    if first_chunk > len(manifest.chunks):
        raise ProtocolError(
            call.who,
            "bad-chunk",
            f"first_chunk must be at most {len(manifest.chunks)}, got {first_chunk}",
        )
    whole = view[:]  # a slice of our own keeps the content alive
    for index in range(first_chunk, len(manifest.chunks)):
        start = index * CHUNK_BYTES
        frame = encode_chunk(whole[start : start + CHUNK_BYTES])
        async with _idle(idle_s, call.who, "accepted no chunk"):
            await call.write(frame)


async def serve_store(
    call: Call,
    uploads: Uploads,
    admit: Callable[[str, Manifest], int | None],
    keep: Callable[[str, Manifest, Blob], Awaitable[None]],
) -> None:
    """Takes the content of one reply. For the handler of a long-lived method.

    Args:
        call: Nothing read yet.
        uploads: Where unfinished ones are kept.
        admit: Gets reply_to and manifest; raises unless the content is wanted from this caller.
            None where it is held already, so that nothing need be sent; else how many bytes of
            this caller are kept beside `uploads`.
        keep: Gets reply_to, manifest and the complete content, which is its own from then on; the
            caller is told ``stored`` when it returns.

    Raises:
        ProtocolError: ``malformed``, ``bad-manifest``, ``too-large``, ``too-many-uploads``,
            ``no-room``, ``other-content``, ``bad-chunk``, ``too-short``, ``stalled`` or
            ``replaced``.
    """
    limits = uploads.limits
    begin = await _next_frame(call, limits.idle_s)
    if not isinstance(begin, pb.StoreBegin):
        raise ProtocolError(call.who, "malformed", "the first frame must be a begin")
    reply_to = begin.reply_to
    manifest = Manifest.from_proto(begin.manifest, limits.max_content)
    beside = admit(reply_to, manifest)
    if beside is None:
        await call.send(pb.StoreFrame(resume=len(manifest.chunks)))
        await _expect_end(call, limits.idle_s)
    else:
        upload = uploads.begin(call.caller().spiffe_id, reply_to, manifest, beside=beside)
        await keep(reply_to, manifest, await _receive(call, uploads, upload))
    await call.send(pb.StoreFrame(stored=True))


async def _receive(call: Call, uploads: Uploads, upload: Upload) -> Blob:
    holder, idle_s = upload.holder, uploads.limits.idle_s
    try:
        await call.send(pb.StoreFrame(resume=upload.next_chunk))
        while not upload.complete:
            upload.append(holder, await _next_chunk(call, idle_s))
        await _expect_end(call, idle_s)
        return uploads.finish(upload)
    except ProtocolError as error:
        if error.code in _RESUMABLE:
            _pause(uploads, upload, holder)
        else:
            uploads.drop(upload)
        raise
    except BaseException:  # cancelled: the connection was cut, or the caller was shut out
        _pause(uploads, upload, holder)
        raise


def _pause(uploads: Uploads, upload: Upload, holder: int) -> None:
    uploads.pause(upload, holder)
    asyncio.get_running_loop().call_later(uploads.limits.resume_s + 0.01, uploads.sweep)


async def _next_frame(call: Call, idle_s: float) -> pb.StoreBegin | memoryview:
    async with _idle(idle_s, call.who, "sent no whole chunk"):
        data = await call.read()
    if data is None:
        # A connection that was cut ends the requests too, a moment before we are cancelled here.
        await asyncio.sleep(_SETTLE_S)
        raise ProtocolError(call.who, "too-short", "the upload ended before its last chunk")
    return decode_frame(data)


async def _next_chunk(call: Call, idle_s: float) -> memoryview:
    frame = await _next_frame(call, idle_s)
    if not isinstance(frame, memoryview):
        raise ProtocolError(call.who, "malformed", "a second begin in one upload")
    return frame


async def _expect_end(call: Call, idle_s: float) -> None:
    async with _idle(idle_s, call.who, "did not end the upload"):
        data = await call.read()
    if data is not None:
        raise ProtocolError(call.who, "too-large", "more came than was promised")


async def fetch(
    channel: grpc.aio.Channel,
    digest: bytes,
    manifest: Manifest,
    run_id: int,
    writer: BlobWriter,
    *,
    idle_s: float = IDLE_S,
) -> None:
    """Fetches content into `writer`, from where it stands. After a cut, call it again.

    Args:
        channel: To the coordinator.
        digest: Which content, 32 bytes.
        manifest: Of it, from the delivered header.
        run_id: Whose content it is.
        writer: For `manifest.length` bytes; holds whole chunks only.
        idle_s: Seconds that the next chunk may take.

    Raises:
        AioRpcError: The connection was cut, or the coordinator refused: see `answers.error_of`.
        ProtocolError: ``bad-chunk``, ``too-short``, ``too-large``, ``malformed``, ``stalled``.
    """
    count = len(manifest.chunks)
    done = -(-writer.written // CHUNK_BYTES)
    request = pb.FetchRequest(digest=digest, run_id=run_id, first_chunk=done)
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(FETCH)
    call = method(request.SerializeToString())
    try:
        while (data := await _read(call, idle_s)) is not None:
            writer.append(_fetched_chunk(data, manifest, done))
            done += 1
        if done != count:
            raise ProtocolError(
                _COORDINATOR, "too-short", f"the content ended after {done} of {count} chunks"
            )
    finally:
        call.cancel()


def _fetched_chunk(data: bytes, manifest: Manifest, index: int) -> memoryview:
    """Returns the chunk that a frame carries, if it is as long as the one of that number."""
    if index == len(manifest.chunks):
        raise ProtocolError(_COORDINATOR, "too-large", "more came than was promised")
    chunk, want = decode_frame(data), manifest.chunk_length(index)
    if not isinstance(chunk, memoryview) or len(chunk) != want:
        raise ProtocolError(_COORDINATOR, "bad-chunk", f"chunk {index} must have {want} bytes")
    return chunk


async def store(
    channel: grpc.aio.Channel,
    reply_to: str,
    manifest: Manifest,
    view: memoryview,
    *,
    idle_s: float = IDLE_S,
) -> None:
    """Sends content, from where the coordinator says. After a cut, call it again.

    Args:
        channel: To the coordinator.
        reply_to: The message that it answers.
        manifest: Of `view`.
        view: The content.
        idle_s: Seconds that the coordinator may take to accept a chunk or to answer.

    Raises:
        AioRpcError: The connection was cut, or the coordinator refused: see `answers.error_of`.
        ProtocolError: ``malformed``, ``bad-chunk``, ``ended-early`` or ``stalled``, which are
            the coordinator's fault.
    """
    begin = pb.StoreBegin(reply_to=reply_to, manifest=manifest.to_proto())
    call = Duplex(channel, STORE)
    try:
        await _write(call, pb.ContentFrame(begin=begin).SerializeToString(), idle_s)
        for index in range(await _resume_at(call, manifest, idle_s), len(manifest.chunks)):
            start = index * CHUNK_BYTES
            await _write(call, encode_chunk(view[start : start + CHUNK_BYTES]), idle_s)
        await call.done_writing()
        answer = await _read(call, idle_s)
        if answer is None or not parse(pb.StoreFrame, answer, _COORDINATOR).stored:
            raise ProtocolError(_COORDINATOR, "malformed", "the upload was not acknowledged")
    finally:
        call.cancel()


async def _resume_at(call: Duplex, manifest: Manifest, idle_s: float) -> int:
    data = await _read(call, idle_s)
    frame = pb.StoreFrame() if data is None else parse(pb.StoreFrame, data, _COORDINATOR)
    if frame.WhichOneof("kind") != "resume" or frame.resume > len(manifest.chunks):
        raise ProtocolError(_COORDINATOR, "bad-chunk", "it asked for no chunk that there is")
    return frame.resume


async def _read(
    call: "Duplex | grpc.aio.UnaryStreamCall[bytes, bytes]", idle_s: float
) -> bytes | None:
    async with _idle(idle_s, _COORDINATOR, "sent nothing"):
        data = await call.read()
    return data if isinstance(data, bytes) else None  # gRPC's own mark for the end


async def _write(call: Duplex, frame: bytes, idle_s: float) -> None:
    async with _idle(idle_s, _COORDINATOR, "accepted no chunk"):
        await call.write(frame)


@asynccontextmanager
async def _idle(seconds: float, who: str, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ProtocolError(who, "stalled", f"{who} {what} within {seconds:g} s") from None
