"""Where a run's `Context.state` lies between messages, and over the death of a worker.

    file = "fedsec-state-1" NL || SHA-256 of the rest || u64be(n) || skeleton (n bytes) || bodies

in the encoding of messages (docs/spec/wire.md, "Skeleton" and "Arrays"); never a pickle.
"""

import hashlib
import os
from pathlib import Path

from flwr.app import RecordDict

from fedsec.errors import ConfigError, FedsecError
from fedsec.files import read_private
from fedsec.wire.content import Buffer
from fedsec.wire.records import decode_records, encode_records

FILE_NAME = "context"
_MAGIC = b"fedsec-state-1\n"
_HASH = 32
_LENGTH = 8
_HEAD = len(_MAGIC) + _HASH


class StateFile:
    """The state of one run. One process uses it at a time.

    Args:
        directory: Of mode 0700; the file in it is made at the first change.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._digest = b""

    def load(self) -> RecordDict:
        """Returns what was saved last; an empty state when nothing was.

        Raises:
            ConfigError: The file is damaged; what to do is in the message.
        """
        if not self._path.exists():
            state = RecordDict()
            self._digest = _digest(_encode(state))
            return state
        data = read_private(self._path, limit=self._path.stat().st_size)
        rest = data[_HEAD:]
        self._digest = data[len(_MAGIC) : _HEAD]
        if not data.startswith(_MAGIC) or hashlib.sha256(rest).digest() != self._digest:
            raise self._damaged("its checksum does not fit")
        length = int.from_bytes(rest[:_LENGTH], "big")
        try:
            bodies = memoryview(rest)[_LENGTH + length :]
            return decode_records(rest[_LENGTH : _LENGTH + length], bodies)
        except FedsecError as error:
            raise self._damaged(str(error)) from error

    def save(self, state: RecordDict) -> None:
        """Writes `state`, atomically, unless it is what lies there already.

        Raises:
            ProtocolError: It holds what cannot be encoded; the file stays as it was.
            ConfigError: The disk does not take it; likewise.
        """
        parts = _encode(state)
        digest = _digest(parts)
        if digest != self._digest:
            try:
                self._replace([_MAGIC, digest, *parts])
            except OSError as error:
                raise ConfigError(f"cannot write {self._path}: {error.strerror}") from error
            self._digest = digest

    def _replace(self, parts: list[Buffer]) -> None:
        """Puts a new file into the old one's place. Not forced to the disk, which takes long.

        A process that dies leaves the old file or the new one; a machine that loses power may
        leave a damaged one, which the checksum tells.
        """
        made = self._path.with_name(f".{self._path.name}.new")
        made.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(made, flags, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
            file.writelines(parts)
        made.replace(self._path)

    def _damaged(self, why: str) -> ConfigError:
        return ConfigError(
            f"{self._path} is damaged ({why}); remove it, and the run goes on without its state"
        )


def _encode(state: RecordDict) -> list[Buffer]:
    skeleton, bodies = encode_records(state)
    return [len(skeleton).to_bytes(_LENGTH, "big"), skeleton, *bodies]


def _digest(parts: list[Buffer]) -> bytes:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return hashed.digest()
