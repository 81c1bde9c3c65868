"""The header of a message: what the coordinator and the agent read, and all that they read.

They pass content through without looking at it, so this module knows nothing of Flower's types.
Spec: docs/spec/wire.md, "Header".
"""

import math
import re
import secrets
import time
from enum import IntEnum

from google.protobuf.message import DecodeError

from fedsec.errors import ProtocolError
from fedsec.wire.content import Manifest
from fedsec.wire.generated import message_pb2 as pb

COORDINATOR_NODE_ID = 1
MAX_HEADER_BYTES = 1 << 20
MAX_INLINE_SKELETON = 64 << 10  # bytes; a larger one goes to the tail of the bulk
MAX_SKELETON = 8 << 20  # bytes; in memory it may take four times as many, and list members more
MAX_CONTENT = 16 << 30  # bytes; the manifest of more would not fit into a header
MAX_GROUP = 256  # characters
MAX_TYPE = 128  # characters
MAX_REASON = 16 << 10  # bytes of UTF-8
LATEST_SECONDS = 1e11  # Unix time, in the year 5138
LONGEST_SECONDS = 1e10

CATEGORIES = frozenset({"train", "evaluate", "query", "system"})
LEGACY_TYPES = frozenset({"get_parameters", "get_properties", "reconnect"})

_MESSAGE_ID = re.compile(r"[0-9a-f]{32}\Z")


class ErrorCode(IntEnum):
    """Flower's codes of an error reply."""

    UNKNOWN = 0
    LOAD_CLIENT_APP_EXCEPTION = 1
    CLIENT_APP_RAISED_EXCEPTION = 2
    MESSAGE_UNAVAILABLE = 3
    REPLY_MESSAGE_UNAVAILABLE = 4
    NODE_UNAVAILABLE = 5
    MOD_FAILED_PRECONDITION = 6
    INVALID_FAB = 7
    CLIENT_APP_CRASHED = 8


def new_message_id() -> str:
    """Returns 32 lower-case hex digits that nobody can guess."""
    return secrets.token_hex(16)


def parse_header(data: bytes, *, max_bytes: int = MAX_CONTENT) -> pb.Header:
    """Returns the header in `data` after `check_header`.

    Raises:
        ProtocolError: see `check_header`, and ``bad-header``: it is no header at all.
    """
    if len(data) > MAX_HEADER_BYTES:
        raise ProtocolError(
            "", "too-large", f"a header of {len(data)} bytes, at most {MAX_HEADER_BYTES} accepted"
        )
    try:
        header = pb.Header.FromString(data)
    except DecodeError as error:
        raise ProtocolError("", "bad-header", "the bytes are no header") from error
    check_header(header, max_bytes=max_bytes)
    return header


def check_header(header: pb.Header, *, max_bytes: int = MAX_CONTENT) -> None:
    """Checks every field of a header that came inside another frame.

    Args:
        header: As parsed; unknown fields, of a newer peer, are let pass.
        max_bytes: The most bulk content that is accepted.

    Raises:
        ProtocolError: ``bad-header``, a field is out of its range or fields contradict each other;
            ``too-large`` or ``bad-manifest``, of the bulk.
    """
    _check_names(header)
    _check_times(header)
    if header.HasField("bulk"):
        Manifest.from_proto(header.bulk, max_bytes)
    if header.HasField("failure"):
        _check_failure(header)
    else:
        _check_skeleton(header)


def reply_failure(
    instruction: pb.Header, code: int, reason: str, *, now: float | None = None
) -> pb.Header:
    """Returns the header of an error reply to `instruction`. It passes `check_header`.

    Args:
        instruction: What cannot be answered otherwise, perhaps for what is in its header.
        code: An `ErrorCode`.
        reason: For a person; cut at 16 KiB.
        now: Unix seconds; the clock's when not given.
    """
    now = time.time() if now is None else now
    left = instruction.created_at + instruction.ttl - now
    reply = pb.Header(
        message_id=new_message_id(),
        reply_to=instruction.message_id if _MESSAGE_ID.match(instruction.message_id) else "",
        run_id=instruction.run_id,
        src_node_id=instruction.dst_node_id,
        dst_node_id=instruction.src_node_id,
        group_id=instruction.group_id[:MAX_GROUP],
        created_at=now,
        ttl=left if abs(left) <= LONGEST_SECONDS else 0.0,
        message_type=instruction.message_type if _is_type(instruction.message_type) else "query",
        failure=pb.Failure(code=code, reason=clip_reason(reason)),
    )
    if instruction.HasField("dst_task_id"):
        reply.src_task_id = instruction.dst_task_id
    if instruction.HasField("src_task_id"):
        reply.dst_task_id = instruction.src_task_id
    return reply


def clip_reason(reason: str) -> str:
    """Returns `reason` as valid Unicode of at most 16 KiB, its end kept: there the cause stands."""
    data = reason.encode("utf-8", "replace")
    if len(data) > MAX_REASON:
        data = b"... " + data[4 - MAX_REASON :]
    return data.decode("utf-8", "ignore")


def is_message_type(text: str) -> bool:
    """Tells whether Flower has messages of this type: ``category`` or ``category.action``."""
    if text in LEGACY_TYPES:
        return True
    category, dot, action = text.partition(".")
    return category in CATEGORIES and (not dot or action.isidentifier())


def _check_names(header: pb.Header) -> None:
    if not _MESSAGE_ID.match(header.message_id):
        raise _bad(f"message_id must be 32 hex digits, got {header.message_id[:40]!r}")
    if header.reply_to and not _MESSAGE_ID.match(header.reply_to):
        raise _bad(f"reply_to must be 32 hex digits or empty, got {header.reply_to[:40]!r}")
    if len(header.group_id) > MAX_GROUP:
        raise _bad(f"group_id has {len(header.group_id)} characters, at most {MAX_GROUP} accepted")
    if not _is_type(header.message_type):
        raise _bad(
            f"message_type must be train, evaluate or query, or one of these with .action, "
            f"got {header.message_type[:40]!r}"
        )


def _is_type(text: str) -> bool:
    return len(text) <= MAX_TYPE and is_message_type(text)


def _check_times(header: pb.Header) -> None:
    if not 0 <= header.created_at <= LATEST_SECONDS:  # false for NaN
        raise _bad(f"created_at must be Unix seconds, got {header.created_at}")
    if not (math.isfinite(header.ttl) and abs(header.ttl) <= LONGEST_SECONDS):
        raise _bad(f"ttl must be seconds, at most 1e10 either way, got {header.ttl}")


def _check_failure(header: pb.Header) -> None:
    if header.skeleton or header.skeleton_tail or header.HasField("bulk"):
        raise _bad("a failure carries no content")
    reason = len(header.failure.reason.encode())
    if reason > MAX_REASON:
        raise _bad(f"a reason has {reason} bytes, at most {MAX_REASON} accepted")


def _check_skeleton(header: pb.Header) -> None:
    inline, tail = len(header.skeleton), header.skeleton_tail
    if inline > MAX_INLINE_SKELETON:
        raise _bad(f"an inline skeleton has {inline} bytes, at most {MAX_INLINE_SKELETON} accepted")
    if not tail:
        return
    if inline:
        raise _bad("the skeleton is both inline and in the bulk's tail")
    if not MAX_INLINE_SKELETON < tail <= MAX_SKELETON:
        raise _bad(
            f"a skeleton in the tail has more than {MAX_INLINE_SKELETON} and at most "
            f"{MAX_SKELETON} bytes, got {tail}"
        )
    if tail > header.bulk.length:  # 0 where there is no bulk
        raise _bad(f"a tail of {tail} bytes in a bulk of {header.bulk.length}")


def _bad(detail: str) -> ProtocolError:
    return ProtocolError("", "bad-header", detail)
