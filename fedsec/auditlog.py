r"""Records that cannot be changed afterwards without it being seen: each names the one before.

    line = JSON of {"body", "hash", "number", "previous", "time"}: sorted keys, no spaces, ASCII; LF
    hash = hex SHA-256("fedsec-v1/log/" || label || NUL || the line without "hash" and LF)

Numbers begin at 1; the first record's `previous` is 64 zeros. Spec: docs/spec/audit-log.md.

A record is on the disk when `append` returns. Any number of processes and threads append to one
log: each holds the file's lock from reading its end to writing the next record. What a process
that died left half written, bytes after the last LF, was never promised to anybody and is cut off.

The chain tells that a record was changed, moved, or taken from the middle. That the newest ones
were taken away it tells only to who knows the hash of one of them: a process that has read it, or
a reader of a statement that quotes it.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedsec.errors import ConfigError, StateError
from fedsec.failpoints import reach
from fedsec.files import check_private_file, sync_directory

MAX_LINE = 1 << 16  # bytes
FIRST = "0" * 64
_KEYS = {"body", "hash", "number", "previous", "time"}


def utc_now() -> datetime:
    """Returns the time, aware UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a log.

    Args:
        number: Counted from 1.
        time: When it was appended, ISO 8601, UTC.
        body: What it says.
        hash: Names it and all before it.
    """

    number: int
    time: str
    body: Mapping[str, Any]
    hash: str


def seal(label: str, previous: str, number: int, time: str, body: Mapping[str, Any]) -> bytes:
    """Returns the line of a record.

    Raises:
        ConfigError: It is longer than a line may be, or no JSON.
    """
    content = {"body": body, "number": number, "previous": previous, "time": time}
    try:
        sealed = {**content, "hash": _hash(label, content)}
        line = _canonical(sealed) + b"\n"
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a record must be JSON: {error}") from error
    if len(line) > MAX_LINE:
        raise ConfigError(f"a record has {len(line)} bytes, max {MAX_LINE}")
    return line


def unseal(label: str, previous: str, number: int, line: bytes) -> Record:
    """Returns the record in `line`, which must be record `number` and follow `previous`.

    Raises:
        ConfigError: It is not, or is not what `seal` wrote; says what is wrong.
    """
    try:
        content = json.loads(line)
        canonical = _canonical(content) + b"\n" == line
    except (ValueError, RecursionError) as error:
        raise ConfigError("it is no JSON") from error
    if not isinstance(content, dict) or set(content) != _KEYS or not canonical:
        raise ConfigError("it is not in the form of a record")
    if type(content["number"]) is not int or content["number"] != number:
        raise ConfigError(f"it says that it is record {content['number']!r:.20}")
    if content["previous"] != previous:
        raise ConfigError("it does not follow from the record before it")
    found = content.pop("hash")
    if found != _hash(label, content):
        raise ConfigError("its content was changed, or it is of another kind of log")
    if not isinstance(content["body"], dict) or not isinstance(content["time"], str):
        raise ConfigError("it is not in the form of a record")
    return Record(number, content["time"], content["body"], found)


class AuditLog:
    """A log in a file of mode 0600, which is made at the first append. Not for several threads.

        with log.hold() as fresh:       # what others appended since
            ...                         # decide; nobody else appends meanwhile
            log.append({"some": "body"})

    Args:
        path: Of the file.
        label: Kind of log; a record of one kind is no record of another.
        clock: Aware UTC.
    """

    def __init__(self, path: Path, label: str, clock: Callable[[], datetime] = utc_now) -> None:
        self.path = path
        self._label = label
        self._clock = clock
        self._known = _Position()
        self._file: int | None = None
        self._torn = False

    @property
    def head(self) -> str:
        """Hash of the newest record that was read or appended; 64 zeros before the first."""
        return self._known.head

    @contextmanager
    def hold(self) -> Iterator[list[Record]]:
        """Holds the log's lock; yields what was appended since the log was read last, verified.

        Raises:
            ConfigError: The file cannot be opened, or others can read it.
            StateError: The log is damaged, or lost records that were read before.
        """
        with _opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, fcntl.LOCK_EX) as file:
            if os.fstat(file).st_size == 0:
                sync_directory(self.path.parent)
                reach("log created")
            self._file = file
            try:
                yield self._fresh(file)
            finally:
                self._file = None

    def append(self, body: Mapping[str, Any]) -> Record:
        """Appends a record to a log that is held; it is on the disk when this returns.

        Raises:
            ConfigError: It is no JSON or too long, or the disk does not take it; then the log is
                as it was.
        """
        file, known = self._held(), self._known
        time = self._clock().astimezone(UTC).isoformat(timespec="milliseconds")
        line = seal(self._label, known.head, known.number + 1, time, body)
        record = unseal(self._label, known.head, known.number + 1, line)
        try:
            self._cut(file)
            self._torn = True  # until it is whole and on the disk
            _write(file, line)
            reach("log written")
            os.fsync(file)
        except OSError as error:
            with suppress(OSError):  # else whoever holds the log next does it
                self._cut(file)
            raise ConfigError(f"cannot append to {self.path}: {error.strerror}") from error
        reach("log synced")
        self._torn = False
        self._known = known.after(record, line)
        return record

    def sync(self) -> None:
        """Returns when all that was read is on the disk: who appended it may have died before.

        Raises:
            ConfigError: The disk does not take it.
        """
        try:
            os.fsync(self._held())
        except OSError as error:
            raise ConfigError(f"cannot force {self.path} to the disk: {error.strerror}") from error

    def read(self) -> list[Record]:
        """Returns what was appended since the log was read last, verified; nothing is written.

        Raises:
            ConfigError: As in `hold`.
            StateError: As in `hold`.
        """
        if self._known.number == 0 and not self.path.exists():
            return []
        with _opened(self.path, os.O_RDONLY, fcntl.LOCK_SH) as file:
            return self._fresh(file)

    def _fresh(self, file: int) -> list[Record]:
        """Returns the records behind the known ones, which are known from now on."""
        size, known = os.fstat(file).st_size, self._known
        self._check_known(file, size)
        found: list[Record] = []
        with open(os.dup(file), "rb") as reader:  # noqa: PTH123 - a descriptor has no path
            reader.seek(known.offset)
            while (line := reader.readline(MAX_LINE + 1)).endswith(b"\n"):
                try:
                    record = unseal(self._label, known.head, known.number + 1, line)
                except ConfigError as error:
                    raise self._damaged(known.number + 1, str(error)) from error
                found.append(record)
                known = known.after(record, line)
        if len(line) > MAX_LINE:
            raise self._damaged(known.number + 1, f"it is longer than {MAX_LINE} bytes")
        self._torn = bool(line)
        self._known = known
        return found

    def _check_known(self, file: int, size: int) -> None:
        """Raises unless the newest known record stands where it stood."""
        known = self._known
        if known.number == 0:
            return
        start = max(0, known.offset - MAX_LINE)
        before = os.pread(file, known.offset - start, start)
        newest = before[:-1].rpartition(b"\n")[2]
        if size < known.offset or f'"hash":"{known.head}"'.encode() not in newest:
            raise self._damaged(known.number, "it is gone, though this program has seen it")

    def _cut(self, file: int) -> None:
        """Cuts off what is no whole record."""
        if self._torn:
            os.ftruncate(file, self._known.offset)
            os.fsync(file)
            self._torn = False

    def _held(self) -> int:
        if self._file is None:
            raise StateError(f"{self.path} is not held: append inside `with log.hold():`")
        return self._file

    def _damaged(self, number: int, why: str) -> StateError:
        return StateError(
            f"{self.path}, record {number}: {why}. Nothing is appended to a damaged log; restore "
            "it from a copy that holds every record, or ask whoever changed it"
        )


@dataclass(frozen=True, slots=True)
class _Position:
    """How far a log is known: bytes, records, and the hash of the newest one."""

    offset: int = 0
    number: int = 0
    head: str = FIRST

    def after(self, record: Record, line: bytes) -> "_Position":
        return _Position(self.offset + len(line), record.number, record.hash)


@contextmanager
def _opened(path: Path, flags: int, lock: int) -> Iterator[int]:
    try:
        file = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot open {path}: {error.strerror}") from error
    try:
        check_private_file(path, os.fstat(file))
        fcntl.flock(file, lock)
        yield file
    finally:
        os.close(file)  # and with it the lock


def _write(file: int, line: bytes) -> None:
    left = memoryview(line)
    while left:
        left = left[os.write(file, left) :]


def _hash(label: str, content: Mapping[str, Any]) -> str:
    return hashlib.sha256(
        b"fedsec-v1/log/" + label.encode() + b"\x00" + _canonical(content)
    ).hexdigest()


def _canonical(content: object) -> bytes:
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()
