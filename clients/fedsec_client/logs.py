"""What workers print, kept in a file that cannot grow without end."""

import os
from datetime import datetime
from pathlib import Path

from fedsec.errors import ConfigError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class BoundedLog:
    """A log file and the one before it, each of at most `max_bytes`.

    Only its owner may read it: an app may print data. A full disk loses lines and stops nobody.

    Args:
        path: Of the file; the one before it gets ``.1`` at the end.
        max_bytes: Where the file is set aside and a new one begun.

    Raises:
        ConfigError: The file cannot be opened.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        try:
            self._descriptor = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        self._size = os.fstat(self._descriptor).st_size
        self.lost = 0

    def write(self, data: bytes) -> None:
        """Appends `data`; counts it as `lost` (bytes) where the disk does not take it."""
        try:
            if self._size + len(data) > self._max_bytes:
                self._rotate()
            self._size += os.write(self._descriptor, data[: self._max_bytes])
        except OSError:
            self.lost += len(data)

    def note(self, line: str, *, now: datetime) -> None:
        """Appends a line of the agent's own."""
        self.write(f"--- {now:%Y-%m-%d %H:%M:%S} UTC: {line}\n".encode())

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _rotate(self) -> None:
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        fresh = os.open(self._path, _FLAGS, 0o600)
        os.close(self._descriptor)
        self._descriptor, self._size = fresh, 0
