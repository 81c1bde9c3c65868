"""A run's state on the disk: equal when it comes back, and damage is told."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedsec.errors import ConfigError, ProtocolError
from fedsec_client.statefile import FILE_NAME, StateFile


def state() -> RecordDict:
    return RecordDict(
        {
            "weights": ArrayRecord([np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(0)]),
            "count": MetricRecord({"n": 3, "loss": [0.5, float("inf")]}),
            "more": ConfigRecord({"text": "Zürich", "raw": b"\x00\xff", "truth": True}),
        }
    )


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    StateFile(tmp_path).save(state())
    found = StateFile(tmp_path).load()
    assert list(found) == ["weights", "count", "more"]
    for before, after in zip(
        state().array_records["weights"].to_numpy_ndarrays(),
        found.array_records["weights"].to_numpy_ndarrays(),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)
    assert found.metric_records == state().metric_records
    assert found.config_records == state().config_records
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_there_is_no_file_before_there_is_a_state(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    found = file.load()
    assert list(found) == []
    file.save(found)
    assert list(tmp_path.iterdir()) == []


def test_an_unchanged_state_is_not_written_again(tmp_path: Path) -> None:
    StateFile(tmp_path).save(state())
    before = (tmp_path / FILE_NAME).stat().st_ino
    file = StateFile(tmp_path)
    found = file.load()
    file.save(found)
    assert (tmp_path / FILE_NAME).stat().st_ino == before
    found["count"] = MetricRecord({"n": 4})
    file.save(found)
    assert (tmp_path / FILE_NAME).stat().st_ino != before
    assert StateFile(tmp_path).load().metric_records["count"]["n"] == 4


def test_what_a_crash_left_half_written_does_not_matter(tmp_path: Path) -> None:
    StateFile(tmp_path).save(state())
    (tmp_path / f".{FILE_NAME}.new").write_bytes(b"half")
    file = StateFile(tmp_path)
    found = file.load()
    found["count"] = MetricRecord({"n": 5})
    file.save(found)
    assert StateFile(tmp_path).load().metric_records["count"]["n"] == 5


@pytest.mark.parametrize("at", [0, 15, 30, 47, 60, -1])
def test_any_changed_byte_is_noticed(tmp_path: Path, at: int) -> None:
    StateFile(tmp_path).save(state())
    path = tmp_path / FILE_NAME
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match=r"is damaged \(.*; remove it"):
        StateFile(tmp_path).load()


@pytest.mark.parametrize("length", [0, 10, 47, 60])
def test_a_file_that_is_cut_short_is_noticed(tmp_path: Path, length: int) -> None:
    StateFile(tmp_path).save(state())
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ConfigError, match="is damaged"):
        StateFile(tmp_path).load()


def test_what_would_have_to_be_pickled_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.save(state())
    before = (tmp_path / FILE_NAME).read_bytes()
    bad = RecordDict({"a": ArrayRecord({"x": Array("object", (1,), "pickle", b"N.")})})
    with pytest.raises(ProtocolError, match="unencodable"):
        file.save(bad)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "gone")
    with pytest.raises(ConfigError, match="cannot write"):
        file.save(state())
