"""Blobs are immutable, cost what was received, and trust no descriptor."""

import errno
import fcntl
import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fedsec.errors import ProtocolError, StateError
from fedsec.wire import blobs
from fedsec.wire.blobs import Blob, BlobWriter
from tests.wire.descriptors import open_fds

HAVE_MEMFD = blobs.MEMORY_FILES
needs_memfd = pytest.mark.skipif(not HAVE_MEMFD, reason="this system has no sealed memory files")


@pytest.fixture(params=["memory", "temporary"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test on the two kinds of file."""
    if request.param == "temporary":
        monkeypatch.setattr(blobs, "MEMORY_FILES", False)
    elif not HAVE_MEMFD:
        pytest.skip("this system has no sealed memory files")
    return str(request.param)


def file_of(data: bytes, **options: int) -> int:
    """Returns a descriptor of an unsealed file, as a careless peer would send it."""
    fd = os.memfd_create("careless", **options) if HAVE_MEMFD else -1
    os.write(fd, data)
    return fd


def test_what_is_written_is_read(kind: str) -> None:
    parts = [b"one", bytearray(b"two"), b"", memoryview(b"--three--")[2:-2], bytes(3 << 20)]
    with Blob.write(parts) as blob:
        assert blob.view() == b"".join(parts)
        assert blob.view() is blob.view()
        assert blob.view().readonly
        assert blob.length == len(blob.view())
        assert os.fstat(blob.fd).st_nlink == 0


def test_more_parts_than_one_call_takes(kind: str) -> None:
    parts = [bytes([i % 256]) * (i % 5) for i in range(3000)]
    with Blob.write(parts) as blob:
        assert blob.view() == b"".join(parts)


def test_a_short_write_goes_on(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, views, at: real(fd, [views[0][:7]], at))
    with Blob.write([b"0123456789abcdef", b"ghi", b"jklmnopqrstuvw"]) as blob:
        assert blob.view() == b"0123456789abcdefghijklmnopqrstuvw"


def test_wider_elements_are_written_as_bytes(kind: str) -> None:
    with Blob.write([memoryview(bytes(range(16))).cast("d")]) as blob:
        assert blob.view() == bytes(range(16))
    with BlobWriter(16) as writer:
        writer.append(memoryview(bytes(range(16))).cast("d"))
        assert writer.written == 16


def test_nothing_is_no_blob(kind: str) -> None:
    before = open_fds()
    with pytest.raises(StateError, match="at least one byte"):
        Blob.write([b"", b""])
    assert open_fds() == before


@needs_memfd
def test_a_blob_cannot_be_changed() -> None:
    with Blob.write([b"fixed"]) as blob:
        for change in (
            lambda: os.pwrite(blob.fd, b"X", 0),
            lambda: os.ftruncate(blob.fd, 2),
            lambda: os.ftruncate(blob.fd, 9),
            lambda: fcntl.fcntl(blob.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        ):
            with pytest.raises(PermissionError):
                change()
        assert blob.view() == b"fixed"


def test_a_closed_blob_is_gone(kind: str) -> None:
    before = open_fds()
    blob = Blob.write([b"abc"])
    duplicate = blob.duplicate_fd()
    slice_of_it = blob.view()[1:]
    blob.close()
    blob.close()
    assert slice_of_it == b"bc"  # what is still held stays readable
    del slice_of_it
    with pytest.raises(StateError, match="closed"):
        blob.view()
    with pytest.raises(StateError, match="closed"):
        blob.duplicate_fd()
    with Blob.adopt(duplicate, 3) as again:
        assert again.view() == b"abc"
    assert open_fds() == before


def test_a_forgotten_blob_closes_itself(kind: str) -> None:
    before = open_fds()
    Blob.write([b"abc"]).view()
    BlobWriter(3).append(b"a")
    assert open_fds() == before


def test_a_sealed_file_is_adopted_as_it_is() -> None:
    with Blob.write([b"sealed"]) as blob:
        fd = blob.duplicate_fd()
        with Blob.adopt(fd, 6) as adopted:
            assert (adopted.fd == fd) == HAVE_MEMFD
            assert adopted.view() == b"sealed"


@needs_memfd
@pytest.mark.parametrize(
    "seals",
    [None, 0, fcntl.F_SEAL_WRITE, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW],
)
def test_a_file_without_the_seals_is_copied(seals: int | None) -> None:
    before = open_fds()
    if seals is None:
        fd = file_of(b"careless", flags=0)
    else:
        fd = file_of(b"careless", flags=os.MFD_ALLOW_SEALING)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    theirs = os.dup(fd)
    with Blob.adopt(fd, 8) as adopted:
        assert adopted.fd != fd
        if seals != fcntl.F_SEAL_WRITE:
            os.pwrite(theirs, b"CHANGED!", 0)
        assert adopted.view() == b"careless"
    os.close(theirs)
    assert open_fds() == before


@needs_memfd
def test_a_file_that_is_cut_and_sealed_between_the_checks_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Mapped with its former size, it would kill the reader."""
    theirs = file_of(b"careless", flags=os.MFD_ALLOW_SEALING)
    real = blobs._check_file

    def check_then_cut(fd: int, length: int) -> None:
        real(fd, length)
        os.ftruncate(theirs, 2)
        fcntl.fcntl(theirs, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE)

    monkeypatch.setattr(blobs, "_check_file", check_then_cut)
    with pytest.raises(ProtocolError, match="became shorter"):
        Blob.adopt(os.dup(theirs), 8)
    os.close(theirs)


@needs_memfd
def test_a_writable_mapping_keeps_a_file_from_being_sealed() -> None:
    """So a peer that still could change a file cannot pass it off as sealed."""
    fd = file_of(b"careless", flags=os.MFD_ALLOW_SEALING)
    with mmap.mmap(fd, 8), pytest.raises(OSError, match="busy"):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    os.close(fd)


def test_a_large_file_is_copied_whole(tmp_path: Path) -> None:
    data = bytes(range(256)) * (5 << 12) + b"tail"
    (tmp_path / "file").write_bytes(data)
    with Blob.adopt(os.open(tmp_path / "file", os.O_RDONLY), len(data)) as adopted:
        assert adopted.view() == data


@pytest.mark.parametrize("length", [-1, 0, 7, 9, 1 << 60])
def test_a_file_of_another_size_is_refused_and_closed(length: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"8 bytes.")
    before = open_fds()
    with pytest.raises(ProtocolError, match="the file has 8 bytes") as caught:
        Blob.adopt(os.open(tmp_path / "file", os.O_RDONLY), length)
    assert caught.value.code == "bad-blob"
    assert open_fds() == before


@needs_memfd
@pytest.mark.parametrize("sealed", [False, True])
def test_a_file_with_holes_is_refused(*, sealed: bool) -> None:
    """To read a hole would allocate it, here and not where it was announced."""
    fd = os.memfd_create("sparse", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 40)
    os.write(fd, bytes(8192))
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE)
    with pytest.raises(ProtocolError, match="holes"):
        Blob.adopt(fd, 1 << 40)


def test_what_is_no_plain_file_is_refused() -> None:
    before = open_fds()
    reading, writing = os.pipe()
    one, other = socket.socketpair()
    for fd in (reading, writing, one.detach(), other.detach(), os.open("/", os.O_RDONLY)):
        with pytest.raises(ProtocolError, match="not of a plain file"):
            Blob.adopt(fd, 1)
    assert open_fds() == before


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    before = open_fds()
    (tmp_path / "file").write_bytes(b"8 bytes.")
    with pytest.raises(ProtocolError, match="cannot be read: Bad file descriptor"):
        Blob.adopt(os.open(tmp_path / "file", os.O_WRONLY), 8)
    assert open_fds() == before


def test_a_file_that_shrinks_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"8 bytes.")
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, _, at: real(fd, 5, 0) if at == 0 else b"")
    with pytest.raises(ProtocolError, match="became shorter"):
        Blob.adopt(os.open(tmp_path / "file", os.O_RDONLY), 8)


def test_a_writer_makes_a_blob_of_what_arrives(kind: str) -> None:
    writer = BlobWriter(10)
    for piece in (b"0123", b"", memoryview(b"45678"), b"9"):
        writer.append(piece)
    assert writer.written == 10
    with writer.finish() as blob:
        assert blob.view() == b"0123456789"
        writer.close()  # does nothing any more
        assert blob.view() == b"0123456789"
    with pytest.raises(StateError, match="closed or finished"):
        writer.finish()


def test_a_writer_takes_no_more_than_was_announced(kind: str) -> None:
    with BlobWriter(3) as writer:
        writer.append(b"ab")
        with pytest.raises(ProtocolError, match="grew beyond the 3 bytes") as caught:
            writer.append(b"cd")
        assert caught.value.code == "too-large"
        assert writer.written == 2
        with pytest.raises(ProtocolError, match="ended after 2 of 3 bytes") as caught:
            writer.finish()
        assert caught.value.code == "bad-length"
        writer.append(b"c")
        with writer.finish() as blob:
            assert blob.view() == b"abc"


def test_a_writer_that_was_closed_takes_nothing(kind: str) -> None:
    writer = BlobWriter(3)
    writer.close()
    with pytest.raises(StateError, match="closed or finished"):
        writer.append(b"a")


@needs_memfd
def test_a_promise_of_a_terabyte_costs_nothing() -> None:
    with BlobWriter(1 << 40) as writer:
        writer.append(bytes(100))
        assert os.fstat(writer._fd).st_blocks * 512 <= 8192


def test_without_memory_files_the_temporary_one_is_nameless(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(blobs, "MEMORY_FILES", False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Blob.write([b"private"]) as blob:
        assert list(tmp_path.iterdir()) == []
        assert os.fstat(blob.fd).st_nlink == 0
        assert os.fstat(blob.fd).st_mode & 0o077 == 0


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_where_memory_files_are_forbidden_a_temporary_one_serves(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object) -> int:
        raise OSError(code, "forbidden")

    monkeypatch.setattr(os, "memfd_create", forbidden, raising=False)
    with Blob.write([b"abc"]) as blob, Blob.adopt(blob.duplicate_fd(), 3) as copied:
        assert copied.view() == b"abc"


@needs_memfd
def test_other_failures_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "memfd_create", full)
    with pytest.raises(OSError, match="too many open files"):
        Blob.write([b"abc"])
    with pytest.raises(OSError, match="too many open files"):
        BlobWriter(3)
    monkeypatch.undo()

    def busy(*args: object) -> int:
        raise OSError(errno.EBUSY, "busy")

    before = open_fds()
    monkeypatch.setattr(fcntl, "fcntl", busy)
    with pytest.raises(OSError, match="busy"):
        Blob.write([b"abc"])
    monkeypatch.undo()
    assert open_fds() == before


def test_a_descriptor_does_not_leak_into_a_started_program(kind: str) -> None:
    with Blob.write([b"abc"]) as blob:
        program = f"import os; os.fstat({blob.fd})"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=False, close_fds=False
        )
        assert b"Bad file descriptor" in done.stderr


def test_it_says_what_it_is() -> None:
    with Blob.write([b"abc"]) as blob:
        assert repr(blob) == f"Blob(fd={blob.fd}, length=3)"
