"""Bulk content in memory files, which processes of one machine hand to each other.

A blob is an anonymous file: a sealed memfd on Linux, an unlinked temporary file elsewhere. Between
processes only its descriptor travels (fedsec.wire.local), so that a model of a gigabyte crosses
without a copy. Seals make it immutable: nobody can change or shorten a blob under a reader's
hands, which for a mapped file would be a crash. A file that comes without seals is copied.
Spec: docs/spec/wire.md, "Local hop".
"""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable
from typing import Self

from fedsec.errors import ProtocolError, StateError
from fedsec.wire.content import CHUNK_BYTES, Buffer, Manifest, chunks_of, hash_of, length_of
from fedsec.wire.mapped import map_file
from fedsec.wire.parallel import for_each

_COPY_BYTES = 1 << 20
_IOV_MAX = 512  # buffers in one writev; POSIX promises 16, Linux takes 1024

# Whether the system has memory files with seals. Read at each use: a test takes it away.
MEMORY_FILES = hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")


class Blob:
    """Immutable content behind a file descriptor. The one who holds it closes it.

    Not safe for use from several threads at once.

    Args:
        fd: Of a file that nobody else writes. Owned from now on.
        length: Bytes, > 0.
    """

    def __init__(self, fd: int, length: int) -> None:
        self.fd = fd
        self.length = length
        self._view: memoryview | None = None

    @classmethod
    def write(cls, parts: Iterable[Buffer]) -> "Blob":
        """Returns a sealed blob of `parts` end to end, > 0 bytes. One copy, into the file."""
        fd = _make_file()
        try:
            length = _write_all(fd, parts)
            _seal(fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, length)

    @classmethod
    def write_named(cls, parts: Iterable[Buffer]) -> tuple[Self, Manifest]:
        """Returns what `write` does, and its manifest: a chunk is hashed beside another's copy."""
        chunks = chunks_of(parts)
        fd = _make_file()

        def write_one(index: int) -> bytes:
            _write_all(fd, chunks[index], at=index * CHUNK_BYTES)
            return hash_of(chunks[index])

        try:
            hashes = for_each(write_one, range(len(chunks)))
            manifest = Manifest(length_of(chunks), tuple(hashes))
            _seal(fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, manifest.length), manifest

    @classmethod
    def adopt(cls, fd: int, length: int) -> "Blob":
        """Returns a blob of the `length` bytes in `fd`, which another process sent.

        `fd` is owned from now on, also where this raises. A file sealed against writing and
        shrinking is taken as it is; from any other its bytes are copied, once, into a file of ours.

        Raises:
            ProtocolError: ``bad-blob``, `fd` is no plain file that can be read, is sparse, or its
                size is not `length`.
        """
        try:
            sealed = _is_sealed(fd)  # first: what is sealed now keeps the size that is found next
            _check_file(fd, length)
            if sealed:
                return cls(fd, length)
            with BlobWriter(length) as writer:
                _copy(fd, writer)
                copied = writer.finish()
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return copied

    def view(self) -> memoryview:
        """Returns the content, read-only and mapped, until `close`.

        Raises:
            StateError: The blob was closed.
        """
        if self.fd < 0:
            raise StateError("the blob was closed before its content was read")
        if self._view is None:
            self._view = map_file(self.fd, self.length)
        return self._view

    def own_view(self) -> memoryview | None:
        """Returns the content mapped once more, to be written to by the caller alone.

        The blob stays as it is: a page is copied when it is written to. None where the system maps
        no more.

        Raises:
            StateError: The blob was closed.
        """
        if self.fd < 0:
            raise StateError("the blob was closed before its content was read")
        try:
            return map_file(self.fd, self.length, own=True)
        except OSError:
            return None

    def duplicate_fd(self) -> int:
        """Returns a new descriptor of the same file, for the caller to close."""
        if self.fd < 0:
            raise StateError("the blob was closed before its descriptor was duplicated")
        return os.dup(self.fd)

    def close(self) -> None:
        """Lets the content go. Who still holds the view, or a slice of it, may go on reading."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        self._view = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Blob(fd={self.fd}, length={self.length})"


class BlobWriter:
    """Takes content as it arrives. Memory grows with what was received, not with what was promised.

    Args:
        length: Bytes that are to come, > 0.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.written = 0
        self._fd = _make_file()

    def append(self, buffer: Buffer) -> None:
        """Adds `buffer` at the end.

        Raises:
            ProtocolError: ``too-large``, more came than was promised; nothing is written.
        """
        size = memoryview(buffer).nbytes
        if self.written + size > self.length:
            raise ProtocolError(
                "", "too-large", f"content grew beyond the {self.length} bytes that were announced"
            )
        if size:
            self.written += _write_all(self._open_fd(), (buffer,), at=self.written)

    def finish(self) -> Blob:
        """Returns the sealed blob; the writer is done.

        Raises:
            ProtocolError: ``bad-length``, less came than was promised.
        """
        if self.written != self.length:
            raise ProtocolError(
                "", "bad-length", f"content ended after {self.written} of {self.length} bytes"
            )
        fd = self._open_fd()
        _seal(fd)
        self._fd = -1
        return Blob(fd, self.length)

    def close(self) -> None:
        """Drops what was received. Does nothing after `finish`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise StateError("the blob's writer was closed or finished before")
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            self.close()


def _make_file() -> int:
    if MEMORY_FILES:
        try:
            return os.memfd_create("fedsec-content", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:  # a sandbox may forbid the call
            if error.errno not in {errno.ENOSYS, errno.EPERM, errno.EINVAL}:
                raise
    with tempfile.TemporaryFile(prefix="fedsec-") as unlinked:
        return os.dup(unlinked.fileno())


def _seal(fd: int) -> None:
    if not MEMORY_FILES:
        return
    try:
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a temporary file: nobody else has its descriptor yet
            raise


def _is_sealed(fd: int) -> bool:
    if not MEMORY_FILES:
        return False
    want = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & want == want
    except OSError:  # not a memory file
        return False


def _check_file(fd: int, length: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ProtocolError("", "bad-blob", "the descriptor is not of a plain file")
    if length <= 0 or status.st_size != length:
        raise ProtocolError(
            "", "bad-blob", f"the file has {status.st_size} bytes, {length} were announced"
        )
    # Reading a hole would allocate it here: who sends content pays for its memory.
    if MEMORY_FILES and status.st_blocks * 512 < length:
        raise ProtocolError("", "bad-blob", f"the file of {length} bytes has holes")


def _copy(fd: int, writer: BlobWriter) -> None:
    while writer.written < writer.length:
        want = min(_COPY_BYTES, writer.length - writer.written)
        try:
            piece = os.pread(fd, want, writer.written)
        except OSError as error:
            raise ProtocolError(
                "", "bad-blob", f"the file cannot be read: {error.strerror}"
            ) from error
        if not piece:
            raise ProtocolError("", "bad-blob", "the file became shorter while it was read")
        writer.append(piece)


def _write_all(fd: int, parts: Iterable[Buffer], *, at: int = 0) -> int:
    """Writes all of `parts` from byte `at` of the file and returns how many bytes they are."""
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    total = sum(map(len, views))
    if not total:
        raise StateError("a blob holds at least one byte, got none")
    position = 0
    while position < len(views):
        written = os.pwritev(fd, views[position : position + _IOV_MAX], at)
        at += written
        while position < len(views) and written >= len(views[position]):
            written -= len(views[position])
            position += 1
        if written:
            views[position] = views[position][written:]
    return total
