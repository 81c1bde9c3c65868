"""A log that cannot fill the disk."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedsec.errors import ConfigError
from fedsec_client.logs import BoundedLog


def test_it_keeps_the_newest_within_twice_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = BoundedLog(path, 100)
    for number in range(50):
        log.write(b"%09d\n" % number)
    log.close()
    assert path.read_bytes().endswith(b"000000049\n")
    assert path.stat().st_size <= 100
    kept = path.with_name("a.log.1").read_bytes() + path.read_bytes()
    assert kept == b"".join(b"%09d\n" % number for number in range(50))[-len(kept) :]
    assert len(kept) > 100


def test_a_single_write_cannot_pass_the_bound(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "a.log", 100)
    log.write(b"x" * 1000)
    log.close()
    assert (tmp_path / "a.log").stat().st_size == 100


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "a.log", 100)
    log.note("begins", now=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    log.close()
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a.log").read_text() == "--- 2026-01-02 03:04:05 UTC: begins\n"


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    for _ in range(3):
        log = BoundedLog(tmp_path / "a.log", 100)
        log.write(b"x" * 40)
        log.close()
    assert (tmp_path / "a.log").stat().st_size == 40
    assert (tmp_path / "a.log.1").stat().st_size == 80


def test_a_full_disk_loses_lines_and_stops_nobody(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "a.log", 1 << 20)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._descriptor)
    log.write(b"lost")
    log.close()
    os.close(full)
    assert log.lost == 4


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "a.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot write"):
        BoundedLog(tmp_path / "a.log", 100)
