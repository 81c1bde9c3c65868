"""Flower's messages as a header and a blob, and back. The two ends of the wire alone use this.

A header says where a message goes; the blob beside it holds the arrays. `Encoder` writes the same
content once however many nodes it goes to; `decode` trusts nothing: hashes, lengths, types and
counts are checked before memory is taken for them. Spec: docs/spec/wire.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Error, Message, RecordDict

from fedsec import flwr_compat
from fedsec.errors import ProtocolError
from fedsec.wire.blobs import Blob
from fedsec.wire.content import Buffer, Manifest
from fedsec.wire.generated import message_pb2 as pb
from fedsec.wire.headers import MAX_INLINE_SKELETON, check_header, clip_reason, new_message_id
from fedsec.wire.records import LIMITS, Limits, body_sources, decode_records, encode_records

Encoded = tuple[pb.Header, Blob | None]


def encode(message: Message, limits: Limits = LIMITS) -> Encoded:
    """Returns the header and the blob of one message; see `Encoder.encode_many`."""
    (encoded,) = Encoder(limits).encode_many((message,))
    return encoded


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns messages into headers and blobs. Keeps nothing from one call to the next."""

    limits: Limits = LIMITS

    def encode_many(self, messages: Iterable[Message]) -> list[Encoded]:
        """Returns a header and a blob for each message, in their order.

        Content that messages share is written and hashed once, also where only its arrays are
        shared: such messages come with the same `Blob` object. The caller closes the blobs. A
        message without an id gets one in the header; the message itself stays as it is.

        Raises:
            ProtocolError: ``unencodable``, ``too-large``, or an array's own code, for the first
                message that cannot travel; then nothing is left open.
        """
        work = _Work(self.limits)
        try:
            return [work.encode(message) for message in messages]
        except BaseException:
            work.close()
            raise


def decode(header: pb.Header, bulk: Buffer | Blob | None, *, limits: Limits = LIMITS) -> Message:
    """Returns the message that `header` and the content beside it make.

    The caller may let go of `bulk` afterwards. Of a buffer each array's body is copied; large
    arrays refer to a blob, whose memory then lives as long as one of them.

    Args:
        header: As it came; all its fields are checked here.
        bulk: The content that `header.bulk` names; None where it names none.
        limits: What is accepted.

    Raises:
        ProtocolError: What is wrong, by a code of `check_header`, `Manifest.check` or
            `decode_records`; ``no-content`` or ``unexpected-content``.
    """
    check_header(header, max_bytes=limits.max_content)
    if header.HasField("bulk") != (bulk is not None):
        code = "no-content" if bulk is None else "unexpected-content"
        raise ProtocolError("", code, "the header and what came beside it do not belong together")
    if header.HasField("failure"):
        failure = header.failure
        return flwr_compat.make_message(
            _envelope(header), Error(failure.code, failure.reason or None)
        )
    view = bulk.view() if isinstance(bulk, Blob) else memoryview(bulk or b"")
    if header.HasField("bulk"):
        Manifest.from_proto(header.bulk, limits.max_content).check(view)
    bodies = len(view) - header.skeleton_tail
    skeleton = bytes(view[bodies:]) if header.skeleton_tail else header.skeleton
    lasting = bulk if isinstance(bulk, Blob) else None
    content = decode_records(skeleton, view[:bodies], limits, lasting=lasting)
    return flwr_compat.make_message(_envelope(header), content)


@dataclass(frozen=True, slots=True)
class _Content:
    """One content in wire form."""

    skeleton: bytes  # empty where it is in the blob's tail
    tail: int
    blob: Blob | None
    manifest: pb.Manifest | None


class _Work:
    """What was written so far during one call. Identities hold: the messages keep all alive."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._contents: dict[int, _Content] = {}
        self._blobs: dict[tuple[tuple[int, ...], bytes], tuple[Blob, pb.Manifest]] = {}
        self._alive: list[Message] = []

    def encode(self, message: Message) -> Encoded:
        self._alive.append(message)
        header = _header(flwr_compat.envelope(message))
        if message.has_error():
            header.failure.CopyFrom(_failure(message.error))
            content = None
        else:
            content = self._content(message.content)
            header.skeleton = content.skeleton
            header.skeleton_tail = content.tail
            if content.manifest is not None:
                header.bulk.CopyFrom(content.manifest)
        check_header(header, max_bytes=self._limits.max_content)
        return header, content.blob if content else None

    def close(self) -> None:
        for blob, _ in self._blobs.values():
            blob.close()

    def _content(self, records: RecordDict) -> _Content:
        known = self._contents.get(id(records))
        if known is None:
            known = self._contents[id(records)] = self._write(records)
        return known

    def _write(self, records: RecordDict) -> _Content:
        skeleton, bodies = encode_records(records, self._limits)
        tail = skeleton if len(skeleton) > MAX_INLINE_SKELETON else b""
        parts = [*bodies, *([tail] if tail else [])]
        inline = b"" if tail else skeleton
        if not parts:
            return _Content(inline, 0, None, None)
        key = body_sources(records), tail
        if key not in self._blobs:
            self._check_size(sum(map(len, parts)))
            blob, manifest = Blob.write_named(parts)
            self._blobs[key] = blob, manifest.to_proto()
        blob, wire = self._blobs[key]
        return _Content(inline, len(tail), blob, wire)

    def _check_size(self, length: int) -> None:
        if length > self._limits.max_content:
            raise ProtocolError(
                "",
                "too-large",
                f"the message has {length} bytes of content, at most {self._limits.max_content} go",
            )


def _envelope(header: pb.Header) -> flwr_compat.Envelope:
    return flwr_compat.Envelope(
        message_id=header.message_id,
        reply_to=header.reply_to,
        run_id=header.run_id,
        src_node_id=header.src_node_id,
        dst_node_id=header.dst_node_id,
        group_id=header.group_id,
        created_at=header.created_at,
        ttl=header.ttl,
        message_type=header.message_type,
        src_task_id=header.src_task_id if header.HasField("src_task_id") else None,
        dst_task_id=header.dst_task_id if header.HasField("dst_task_id") else None,
    )


def _failure(error: Error) -> pb.Failure:
    try:
        return pb.Failure(code=error.code, reason=clip_reason(error.reason or ""))
    except (AttributeError, TypeError, ValueError) as wrong:  # an app may make it of anything
        raise ProtocolError("", "unencodable", f"the message's error: {wrong}") from wrong


def _header(of: flwr_compat.Envelope) -> pb.Header:
    try:
        header = pb.Header(
            message_id=of.message_id or new_message_id(),
            reply_to=of.reply_to,
            run_id=of.run_id,
            src_node_id=of.src_node_id,
            dst_node_id=of.dst_node_id,
            group_id=of.group_id,
            created_at=of.created_at,
            ttl=of.ttl,
            message_type=of.message_type,
        )
        if of.src_task_id is not None:
            header.src_task_id = of.src_task_id
        if of.dst_task_id is not None:
            header.dst_task_id = of.dst_task_id
    except (TypeError, ValueError) as error:  # an app may set what it likes
        raise ProtocolError("", "unencodable", f"the message's metadata: {error}") from error
    return header
