"""Noised vectors that are published once and for all: made, stored, paid for, and only then out.

    made --> stored --> paid --> published
       crash  |   crash  |  crash   |
      nothing |   is paid for next  |  the same vector again, not paid again

To draw new noise for the same release and publish both would halve the noise. So a release has a
name, and whoever asks for that name again, e.g. after a restart, gets the vector that was stored.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedsec.errors import ConfigError, StateError
from fedsec.failpoints import reach
from fedsec.files import make_private_directory, read_private, write_private
from fedsec.vectors import Vector

_MAGIC = b"fedsec-release-1\n"
_DIGEST = 32


class Releases:
    """The releases of one run. One process at a time.

    Args:
        directory: Of mode 0700; made if missing. Holds one file per release until it is removed
            together with the run.
    """

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self._directory = directory

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
        path = self._directory / f"{hashlib.sha256(key.encode()).hexdigest()}.release"
        if not path.exists():
            body = np.asarray(make(), np.float32).tobytes()
            reach("release made")
            write_private(path, b"".join((_MAGIC, hashlib.sha256(body).digest(), body)))
            reach("release stored")
        stored = _read(path)
        pay()
        reach("release paid")
        return stored


def _read(path: Path) -> Vector:
    """Returns what is stored; also right after it was, so that it is this that is published."""
    try:
        content = memoryview(read_private(path, limit=path.stat().st_size))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
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
