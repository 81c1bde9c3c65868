"""One agent per directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsec.errors import ConfigError, StateError

FILE_NAME = "agent.lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the directory's lock. It goes with the process, however that ends.

    Raises:
        StateError: Another agent holds it.
        ConfigError: The file cannot be made or written.
    """
    path = directory / FILE_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot open {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            raise StateError(
                f"an agent runs in {directory} already, as process {holder}; "
                "stop that one first, or leave it to its work"
            ) from None
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)


def is_running(directory: Path) -> bool:
    """Whether an agent holds the directory's lock."""
    if not (directory / FILE_NAME).exists():
        return False
    try:
        with locked(directory):
            return False
    except StateError:
        return True
