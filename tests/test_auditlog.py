"""The chain: every change of what was written is seen, every half-written record is cut off."""

import fcntl
import hashlib
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.auditlog import FIRST, MAX_LINE, AuditLog, seal, unseal
from fedsec.errors import ConfigError, StateError

VECTORS = json.loads((Path(__file__).parent / "vectors" / "audit-log.json").read_text())
NOW = datetime(2030, 1, 2, 3, 4, 5, 678000, UTC)
BODIES = [{"a": 1}, {"b": [1.5, None, "ä"]}, {}]


def log_at(path: Path, label: str = "test") -> AuditLog:
    return AuditLog(path, label, lambda: NOW)


def written(path: Path, count: int = 3) -> list[bytes]:
    log = log_at(path)
    for body in BODIES[:count]:
        with log.hold():
            log.append(body)
    return path.read_bytes().splitlines(keepends=True)


def test_the_form_is_that_of_the_spec() -> None:
    line = seal("test", FIRST, 1, "2030-01-02T03:04:05.678+00:00", {"b": 2, "a": "ä"})
    unhashed = (
        b'{"body":{"a":"\\u00e4","b":2},"number":1,"previous":"' + b"0" * 64 + b'",'
        b'"time":"2030-01-02T03:04:05.678+00:00"}'
    )
    digest = hashlib.sha256(b"fedsec-v1/log/test\x00" + unhashed).hexdigest()
    assert line == unhashed.replace(b'"number"', f'"hash":"{digest}","number"'.encode()) + b"\n"
    assert unseal("test", FIRST, 1, line).hash == digest


def from_vector(path: Path, vector: dict[str, list[str]]) -> AuditLog:
    path.write_text("".join(vector["lines"]))
    path.chmod(0o600)
    return log_at(path, VECTORS["label"])


@pytest.mark.parametrize("vector", VECTORS["good"], ids=lambda vector: vector["name"])
def test_good_vectors_are_read(tmp_path: Path, vector: dict[str, list[str]]) -> None:
    assert len(from_vector(tmp_path / "log", vector).read()) == vector["records"]


@pytest.mark.parametrize("vector", VECTORS["bad"], ids=lambda vector: vector["name"])
def test_failing_vectors_are_refused(tmp_path: Path, vector: dict[str, list[str]]) -> None:
    with pytest.raises(StateError, match="Nothing is appended to a damaged log"):
        from_vector(tmp_path / "log", vector).read()


def test_records_come_back_in_order_with_time_and_chain(tmp_path: Path) -> None:
    lines = written(tmp_path / "log")
    records = log_at(tmp_path / "log").read()
    assert [record.body for record in records] == BODIES
    assert [record.number for record in records] == [1, 2, 3]
    assert {record.time for record in records} == {"2030-01-02T03:04:05.678+00:00"}
    assert [json.loads(line)["previous"] for line in lines] == [
        FIRST,
        *(record.hash for record in records[:2]),
    ]
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_a_log_that_does_not_exist_is_empty_and_not_made_by_reading(tmp_path: Path) -> None:
    assert log_at(tmp_path / "log").read() == []
    assert not (tmp_path / "log").exists()


@pytest.mark.slow
@settings(derandomize=True, max_examples=200)
@given(st.data())
def test_any_flipped_bit_is_seen(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    content = bytearray(b"".join(written(path)))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    last_newline = place == len(content) - 1  # then the last record counts as half written
    if last_newline:
        assert len(log_at(path).read()) == 2
    else:
        with pytest.raises(StateError, match="record"):
            log_at(path).read()


def test_a_record_taken_out_moved_or_repeated_is_seen(tmp_path: Path) -> None:
    first, second, third = written(tmp_path / "log")
    for lines in ([first, third], [second, third], [second, first, third], [first, first]):
        (tmp_path / "log").write_bytes(b"".join(lines))
        with pytest.raises(StateError, match=r"record [12]: it "):
            log_at(tmp_path / "log").read()


def test_a_record_of_another_kind_of_log_is_none_here(tmp_path: Path) -> None:
    written(tmp_path / "log")
    with pytest.raises(StateError, match="another kind of log"):
        log_at(tmp_path / "log", "other").read()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"\xff\n",
        b"[" * 60_000 + b"\n",
        b'{"body":{},"hash":"","number":1,"previous":"","time":"", "more":1}\n',
    ],
)
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(ConfigError, match=r"no JSON|not in the form"):
        unseal("test", FIRST, 1, line)


def test_a_body_must_be_json_and_short() -> None:
    with pytest.raises(ConfigError, match="must be JSON"):
        seal("test", FIRST, 1, "", {"a": float("nan")})
    with pytest.raises(ConfigError, match="max 65536"):
        seal("test", FIRST, 1, "", {"a": "x" * MAX_LINE})


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_half_written_record_is_cut_off_by_the_next(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "log"
    lines = written(path)
    path.write_bytes(lines[0] + lines[1] + lines[2][:kept])
    assert len(log_at(path).read()) == 2
    log = log_at(path)
    with log.hold() as fresh:
        assert len(fresh) == 2
        log.append({"c": 3})
    assert [record.body for record in log_at(path).read()] == [*BODIES[:2], {"c": 3}]


def test_a_line_without_end_is_damage_not_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path)
    with path.open("ab") as file:
        file.write(b"x" * (MAX_LINE + 1))
    with pytest.raises(StateError, match="longer than"):
        log_at(path).read()


def test_several_logs_of_one_file_see_each_other(tmp_path: Path) -> None:
    one, other = log_at(tmp_path / "log"), log_at(tmp_path / "log")
    with one.hold() as fresh:
        assert fresh == []
        one.append({"a": 1})
    with other.hold() as fresh:
        assert [record.body for record in fresh] == [{"a": 1}]
        other.append({"b": 2})
    with one.hold() as fresh:
        assert [record.body for record in fresh] == [{"b": 2}]
    assert one.head == other.head


@pytest.mark.parametrize("left", [0, 1, 2])
def test_records_that_were_seen_cannot_be_taken_away(tmp_path: Path, left: int) -> None:
    path = tmp_path / "log"
    lines = written(path)
    log = log_at(path)
    log.read()
    path.write_bytes(b"".join(lines[:left]))
    with pytest.raises(StateError, match=r"record 3: it is gone"):
        log.read()
    # not even where others take their place
    other = log_at(path)
    for _ in range(5):
        with other.hold():
            other.append({"other": 1})
    with pytest.raises(StateError, match=r"record 3: it is gone"):
        log.read()


def test_a_disk_that_is_full_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    before = b"".join(written(path))
    log, real = log_at(path), os.write

    def half(file: int, data: bytes) -> int:
        real(file, bytes(data)[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedsec.auditlog.os.write", half)
    with log.hold(), pytest.raises(ConfigError, match="No space left"):
        log.append({"c": 3})
    monkeypatch.undo()
    assert path.read_bytes() == before
    with log.hold():
        log.append({"c": 3})
    assert len(log_at(path).read()) == 4


def test_a_failed_fsync_takes_the_record_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    before = b"".join(written(path))
    log, calls = log_at(path), []

    def fails_once(file: int) -> None:
        calls.append(file)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("fedsec.auditlog.os.fsync", fails_once)
    with log.hold(), pytest.raises(ConfigError, match="Input/output error"):
        log.append({"c": 3})
    assert path.read_bytes() == before
    assert len(calls) == 2  # the cut was forced too


def test_what_others_can_read_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "log")
    (tmp_path / "log").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        log_at(tmp_path / "log").read()
    (tmp_path / "link").symlink_to(tmp_path / "log")
    with pytest.raises(ConfigError, match="cannot open"), log_at(tmp_path / "link").hold():
        pass


def test_nothing_is_appended_without_the_lock(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="not held"):
        log_at(tmp_path / "log").append({})


def test_the_lock_is_held_from_reading_to_writing(tmp_path: Path) -> None:
    log = log_at(tmp_path / "log")
    with log.hold(), (tmp_path / "log").open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / "log").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
