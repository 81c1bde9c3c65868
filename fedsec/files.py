"""Files that hold keys, and files that anyone may read: written whole or not at all.

A private file has mode 0600 and lies in a directory of mode 0700, both of the user who runs the
program; anything else is refused with what to do about it. Links are not followed at the last
component. A write goes to a temporary file beside the target, is forced to the disk and then takes
the target's place, so that a crash leaves the old content or the new.

POSIX only: the checks rest on owners and mode bits.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedsec.errors import ConfigError
from fedsec.failpoints import reach

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
PUBLIC_FILE = 0o644
MAX_FILE = 16 << 20  # bytes; keys, certificates and settings are far smaller

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private_directory(path: Path) -> None:
    """Makes a directory of mode 0700, and its missing parents alike; an existing one must be so.

    Raises:
        ConfigError: It exists and is no directory, a link, another user's or open to others; or
            it cannot be made.
    """
    with _named(path, "make the directory"):
        for missing in reversed([path, *path.parents]):
            if not missing.exists():
                with suppress(FileExistsError):  # a link to nowhere, or somebody was faster
                    missing.mkdir(mode=PRIVATE_DIRECTORY)
    check_private_directory(path)


def check_private_directory(path: Path) -> None:
    """Raises unless `path` is this user's directory and closed to others.

    Raises:
        ConfigError: What is wrong and the command that mends it.
    """
    with _named(path, "look at the directory"):
        status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{path} is not a directory, or a link to one; name a directory itself")
    _check_owner(path, status)
    if status.st_mode & _OTHERS:
        raise ConfigError(
            f"{path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o}): "
            f"chmod 700 {path}"
        )


def write_private(path: Path, content: bytes) -> None:
    """Writes a file of mode 0600, atomically; it is on the disk when this returns.

    Raises:
        ConfigError: The target is a link or no file, or it cannot be written.
    """
    _write(path, content, PRIVATE_FILE)


def write_public(path: Path, content: bytes) -> None:
    """Writes a file of mode 0644, atomically; it is on the disk when this returns.

    Raises:
        ConfigError: The target is a link or no file, or it cannot be written.
    """
    _write(path, content, PUBLIC_FILE)


def read_private(path: Path, *, limit: int = MAX_FILE) -> bytes:
    """Returns the content of a file that only this user can read.

    Raises:
        ConfigError: It is missing, a link, no file, another user's, open to others or over
            `limit` bytes.
    """
    return _read(path, limit, private=True)


def read_public(path: Path, *, limit: int = MAX_FILE) -> bytes:
    """Returns the content of a file.

    Raises:
        ConfigError: It is missing, no file or over `limit` bytes.
    """
    return _read(path, limit, private=False)


def check_private_file(path: Path, status: os.stat_result) -> None:
    """Raises unless an open file, by its `status`, is this user's and closed to others.

    Raises:
        ConfigError: What is wrong and the command that mends it.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a file")
    _check_owner(path, status)
    if status.st_mode & _OTHERS:
        raise ConfigError(
            f"{path} can be read by other users (mode {stat.S_IMODE(status.st_mode):04o}): "
            f"chmod 600 {path}"
        )


def _read(path: Path, limit: int, *, private: bool) -> bytes:
    # non-blocking, lest a named pipe in the file's place hold the program up
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if private else 0)
    if private and path.is_symlink():
        raise ConfigError(f"{path} is a link; put the file itself there")
    with _named(path, "read"):
        descriptor = os.open(path, flags)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            status = os.fstat(descriptor)  # of what was opened, which cannot be swapped any more
            _check_readable(path, status, limit, private=private)
            content = file.read(limit + 1)
    if len(content) > limit:
        raise ConfigError(f"{path} grew over {limit} bytes while it was read")
    return content


def _check_readable(path: Path, status: os.stat_result, limit: int, *, private: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a file")
    if status.st_size > limit:
        raise ConfigError(f"{path} has {status.st_size} bytes, max {limit}")
    if private:
        check_private_file(path, status)


def _write(path: Path, content: bytes, mode: int) -> None:
    with _named(path, "write"):
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise ConfigError(f"{path} is a link or no file; remove it first")
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, PRIVATE_FILE)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
                file.write(content)
                file.flush()
                reach("file written")
                os.fchmod(descriptor, mode)  # whatever the umask is
                os.fsync(descriptor)
                reach("file synced")
            temporary.replace(path)
            reach("file renamed")
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
        reach("file in place")


def sync_directory(path: Path) -> None:
    """Forces the directory itself to the disk: names of new files live there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_owner(path: Path, status: os.stat_result) -> None:
    user = os.geteuid()
    if status.st_uid != user:
        raise ConfigError(
            f"{path} belongs to user {status.st_uid}, not to this one ({user}): "
            f"chown {user} {path}, or run as its owner"
        )


@contextmanager
def _named(path: Path, verb: str) -> Iterator[None]:
    """Turns the system's errors into one sentence that names the path."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot {verb} {path}: {error.strerror or error}") from error
