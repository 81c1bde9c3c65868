"""Uploads that are under way or were cut, so that they can go on where they stopped.

    begin --> held --append*--> held --finish--> gone, as a Blob
                |  ^
    cut: pause  v  | begin, same content: resumes
              paused --resume_s pass--> gone
                |
                +-- begin, other content: refused, gone

A second `begin` while the first stream still seems to live takes the upload over: the old
connection of a peer that came back may take a while to be noticed dead. No input or output here.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fedsec.errors import ConfigError, ProtocolError
from fedsec.wire.blobs import Blob, BlobWriter
from fedsec.wire.content import CHUNK_BYTES, Buffer, Manifest

_MESSAGE_ID = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What peers may ask of the coordinator's memory: each one, and all together.

    Args:
        max_content: Bytes of one upload, >= 1.
        max_partial: Bytes that the peer's unfinished uploads may promise, together with what else
            of the peer is kept, >= max_content.
        max_total: Bytes that all peers' unfinished uploads may promise, together with what else is
            kept of any peer, >= 1. When nothing is kept, one upload is let in whatever this says.
        max_uploads: Unfinished uploads of the peer, >= 1.
        resume_s: Seconds that a cut upload is kept, >= 0.
        idle_s: Seconds that the next chunk may take, > 0.

    Raises:
        ConfigError: A value is out of range.
    """

    max_content: int = 2 << 30
    max_partial: int = 4 << 30
    max_total: int = 16 << 30
    max_uploads: int = 16
    resume_s: float = 300.0
    idle_s: float = 30.0

    def __post_init__(self) -> None:
        if not 1 <= self.max_content <= self.max_partial:
            raise ConfigError(
                f"1 <= max_content <= max_partial must hold, got {self.max_content} and "
                f"{self.max_partial} bytes"
            )
        for name, value in (("max_total", self.max_total), ("max_uploads", self.max_uploads)):
            if value < 1:
                raise ConfigError(f"{name} must be >= 1, got {value}")
        if self.resume_s < 0 or self.idle_s <= 0:
            raise ConfigError(
                f"resume_s must be >= 0 and idle_s > 0, got {self.resume_s} and {self.idle_s}"
            )


@dataclass(eq=False, slots=True)
class Upload:
    """One upload, from its first chunk to its last. Made by `Uploads.begin`.

    Args:
        owner: SPIFFE id of the peer.
        reply_to: The message that it answers.
        manifest: What was promised.
        writer: What has come.
        holder: Number of the stream that may append; a later one takes over.
        paused_at: When its stream was cut; None while one holds it.
    """

    owner: str
    reply_to: str
    manifest: Manifest
    writer: BlobWriter
    holder: int = 0
    paused_at: float | None = field(default=None)

    @property
    def next_chunk(self) -> int:
        """Number of the chunk that is wanted next; the number of all chunks when complete."""
        return -(-self.writer.written // CHUNK_BYTES)

    @property
    def complete(self) -> bool:
        """Whether all bytes have come."""
        return self.writer.written == self.manifest.length

    def append(self, holder: int, chunk: Buffer) -> None:
        """Adds the next chunk.

        Raises:
            ProtocolError: ``too-large``, all had come; ``bad-chunk``, not the length that is due;
                ``replaced``, another stream has taken the upload over. Nothing was added.
        """
        if holder != self.holder:
            raise ProtocolError(self.owner, "replaced", "a newer stream goes on with this upload")
        if self.complete:
            raise ProtocolError(
                self.owner, "too-large", f"more came than the {self.manifest.length} bytes promised"
            )
        want = self.manifest.chunk_length(self.next_chunk)
        if len(chunk) != want:
            raise ProtocolError(
                self.owner,
                "bad-chunk",
                f"chunk {self.next_chunk} must have {want} bytes, got {len(chunk)}",
            )
        self.writer.append(chunk)


class Uploads:
    """All unfinished uploads of a coordinator, by peer and message.

    Args:
        limits: Per peer, and for all of them.
        clock: Monotonic seconds.
        elsewhere: Returns the bytes of finished uploads of all peers that are kept elsewhere.
    """

    def __init__(
        self,
        limits: UploadLimits,
        clock: Callable[[], float] = time.monotonic,
        *,
        elsewhere: Callable[[], int] = lambda: 0,
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._elsewhere = elsewhere
        self._promised = 0  # bytes, of all peers
        self._uploads: dict[str, dict[str, Upload]] = {}

    def begin(self, owner: str, reply_to: str, manifest: Manifest, *, beside: int = 0) -> Upload:
        """Returns the upload for a new stream to go on with; it now holds `upload.holder`.

        Args:
            owner: SPIFFE id of the peer.
            reply_to: The message that it answers.
            manifest: What is promised.
            beside: Bytes of finished uploads of the peer that are kept elsewhere.

        Raises:
            ProtocolError: ``bad-reply-to``; ``other-content``, it was begun with another manifest,
                and is forgotten now; ``too-large``; ``too-many-uploads``, of this peer;
                ``no-room``, the uploads of all peers leave none now.
        """
        self.sweep()
        if not _MESSAGE_ID.match(reply_to):
            raise ProtocolError(owner, "bad-reply-to", "reply_to must be the id of a message")
        known = self._uploads.get(owner, {}).get(reply_to)
        if known is None:
            known = self._new(owner, reply_to, manifest, beside)
        elif known.manifest != manifest:
            self.drop(known)
            raise ProtocolError(
                owner,
                "other-content",
                f"the upload for {reply_to} was begun with other content; it is forgotten now, "
                "so begin again",
            )
        known.holder += 1
        known.paused_at = None
        return known

    def pause(self, upload: Upload, holder: int) -> None:
        """Keeps an upload whose stream was cut, for `resume_s`. Not if another one holds it."""
        if upload.holder == holder and self._is_known(upload):
            upload.paused_at = self._clock()

    def drop(self, upload: Upload) -> None:
        """Forgets an upload and frees its memory."""
        if self._is_known(upload):
            self._forget(upload)
        upload.writer.close()

    def finish(self, upload: Upload) -> Blob:
        """Returns the content of a complete upload, which is no longer kept here."""
        self._forget(upload)
        return upload.writer.finish()

    def sweep(self) -> None:
        """Drops what was cut longer than `resume_s` ago."""
        latest = self._clock() - self.limits.resume_s
        for uploads in list(self._uploads.values()):
            for upload in list(uploads.values()):
                if upload.paused_at is not None and upload.paused_at <= latest:
                    self.drop(upload)

    def drop_owner(self, owner: str) -> None:
        """Drops all uploads of a peer, e.g. because it was revoked."""
        for upload in list(self._uploads.get(owner, {}).values()):
            self.drop(upload)

    def held_bytes(self, owner: str) -> int:
        """Returns how many bytes of unfinished uploads of `owner` lie in memory."""
        return sum(upload.writer.written for upload in self._uploads.get(owner, {}).values())

    @property
    def unfinished(self) -> int:
        """How many uploads are kept now, of all peers together."""
        return sum(map(len, self._uploads.values()))

    def _new(self, owner: str, reply_to: str, manifest: Manifest, beside: int) -> Upload:
        theirs = self._uploads.get(owner, {})
        limits = self.limits
        if manifest.length > limits.max_content:
            raise ProtocolError(
                owner, "too-large", f"{manifest.length} bytes, at most {limits.max_content} allowed"
            )
        kept = beside + sum(upload.manifest.length for upload in theirs.values())
        if len(theirs) >= limits.max_uploads or kept + manifest.length > limits.max_partial:
            raise ProtocolError(
                owner,
                "too-many-uploads",
                f"{len(theirs)} uploads are unfinished and {kept} bytes are kept; with these "
                f"{manifest.length} more, at most {limits.max_uploads} uploads and "
                f"{limits.max_partial} bytes together are allowed",
            )
        self._check_room(owner, manifest)
        upload = Upload(owner, reply_to, manifest, BlobWriter(manifest.length))
        self._promised += manifest.length
        self._uploads.setdefault(owner, {})[reply_to] = upload
        return upload

    def _check_room(self, owner: str, manifest: Manifest) -> None:
        """Counts what is promised: what came already would be thrown away when it is too much."""
        used, most = self._promised + self._elsewhere(), self.limits.max_total
        if used and used + manifest.length > most:
            raise ProtocolError(
                owner,
                "no-room",
                f"{used} bytes of all nodes' uploads are kept; with these {manifest.length} more, "
                f"at most {most} bytes together are allowed; try again later",
            )

    def _is_known(self, upload: Upload) -> bool:
        return self._uploads.get(upload.owner, {}).get(upload.reply_to) is upload

    def _forget(self, upload: Upload) -> None:
        self._promised -= upload.manifest.length
        theirs = self._uploads[upload.owner]
        del theirs[upload.reply_to]
        if not theirs:
            del self._uploads[upload.owner]
