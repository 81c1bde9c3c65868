"""Noised vectors that are published once and for all: made, stored, paid for, and only then out.

    made --> stored --> paid --> published
       crash  |   crash  |  crash   |
      nothing |   is paid for next  |  the same vector again, not paid again

To draw new noise for the same release and publish both would halve the noise. So a release has a
key, and whoever asks for that key again, e.g. after a restart, gets the vector that was stored. The
newest two are kept; of an older one remains that it was, so that it is never made again.
"""

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedsec.errors import ConfigError, StateError
from fedsec.failpoints import reach
from fedsec.files import make_private_directory, read_private, write_private
from fedsec.vectors import Vector

_MAGIC = b"fedsec-release-1\n"
_DIGEST = 32
_SUFFIX = ".release"
_NAME = 32  # hex digits
_KEPT = 2


class Releases:
    """The releases of one run. One process at a time.

    Args:
        directory: Of mode 0700; made if missing, and removed by who owns it, as a whole.
    """

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self._directory = directory
        path = directory / "name"
        if not path.exists():
            write_private(path, secrets.token_hex(_NAME // 2).encode())
        self.name = read_private(path, limit=_NAME).decode("ascii", "replace")
        """Random, made with the directory: whoever lost the releases cannot reuse their keys."""

    def once(self, key: str, make: Callable[[], Vector], pay: Callable[[], None]) -> Vector:
        """Returns the vector (d,) of release `key`: the same one whenever it is asked for.

        Args:
            key: Names the release within the run, e.g. ``"round 3"``.
            make: Returns the noised vector; called if none is stored.
            pay: Charges the ledger; called every time, since a charge that stands there already
                is not made again. If it raises, the vector stays where it is, unpublished.

        Raises:
            BudgetExhausted: `pay` was refused; nothing was published.
            ConfigError: The disk does not take the vector.
            StateError: What is stored is damaged.
        """
        path = self._directory / f"{hashlib.sha256(key.encode()).hexdigest()}{_SUFFIX}"
        if not path.exists():
            body = np.asarray(make(), np.float32).tobytes()
            reach("release made")
            write_private(path, b"".join((_MAGIC, hashlib.sha256(body).digest(), body)))
            reach("release stored")
            self._clear()
        stored = _read(path)
        pay()
        reach("release paid")
        return stored

    def _clear(self) -> None:
        """Empties all but the newest files, which stay as a sign that the release was made."""
        files = [each for each in self._directory.glob(f"*{_SUFFIX}") if each.stat().st_size]
        files.sort(key=lambda each: each.stat().st_mtime_ns, reverse=True)
        for each in files[_KEPT:]:
            write_private(each, b"")


def _read(path: Path) -> Vector:
    """Returns what is stored; also right after it was, so that it is this that is published."""
    try:
        content = memoryview(read_private(path, limit=path.stat().st_size))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if not content:
        raise StateError(f"{path}: this release is over; what is asked for is an older round's")
    start = len(_MAGIC) + _DIGEST
    body = content[start:]
    if (
        content[: len(_MAGIC)] != _MAGIC
        or len(body) % 4
        or hashlib.sha256(body).digest() != content[len(_MAGIC) : start]
    ):
        raise StateError(
            f"{path} is damaged: the release cannot be repeated, and another one must not be made "
            "in its place; start a new run"
        )
    return np.frombuffer(body, np.float32)
