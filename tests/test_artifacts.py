"""Models on disk: whole, private, readable by safetensors itself, and refused when they are not."""

import hashlib
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from fedsec.artifacts import read_model, write_model
from fedsec.errors import ConfigError
from fedsec.vectors import AnyArray

ARRAYS: dict[str, AnyArray] = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not in C order
    "steps": np.array(3, np.int64),
    "flags": np.array([True, False]),
    "half": np.array([0.5], np.float16),
}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    digest = write_model(path, ARRAYS, {"plan": "abc", "round": "3"})
    arrays, metadata = read_model(path)
    assert metadata == {"plan": "abc", "round": "3"}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(arrays[name], array)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_file_is_plain_safetensors_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_model(path, ARRAYS, {"plan": "abc"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    np.testing.assert_array_equal(load_file(path)["w"], ARRAYS["w"])
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"plan": "abc"}


def test_a_new_model_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_model(path, ARRAYS, {})
    write_model(path, {"x": np.ones(2, np.float32)}, {})
    assert list(read_model(path)[0]) == ["x"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_it_is_not_written_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write"):
        write_model(tmp_path / "nowhere" / "model.safetensors", ARRAYS, {})
    with pytest.raises(ConfigError, match="metadata 'k' has 65537 characters, max 65536"):
        write_model(tmp_path / "model.safetensors", ARRAYS, {"k": "x" * 65_537})


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 8, b"\xff" * 100, b"\x02" + b"\x00" * 7 + b"{}x"]
)
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a model"):
        read_model(path)
    with pytest.raises(ConfigError, match="is not a model"):
        read_model(tmp_path / "missing.safetensors")
