"""Mapped content stays readable as long as a view of it lives, and holds no descriptor."""

import gc
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fedsec.wire.mapped import map_file
from tests.wire.descriptors import open_fds


def mapped(name: str) -> bool:
    """Whether this process has the file of that name in its memory (Linux)."""
    return name in Path("/proc/self/maps").read_text()


def test_views_outlive_the_descriptor_and_the_mapping_goes_with_the_last() -> None:
    before = open_fds()
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(range(256)) * 64)
        file.flush()
        view = map_file(file.fileno(), 1 << 14)
    assert open_fds() == before
    assert view.readonly
    assert bytes(view[:300]) == bytes(range(256)) + bytes(range(44))
    array = np.frombuffer(view[256:512], np.uint8)
    del view
    gc.collect()
    assert mapped(file.name)
    assert array.tolist() == list(range(256))
    del array
    gc.collect()
    assert not mapped(file.name)


def test_what_cannot_be_mapped_is_an_error() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w"), pytest.raises(OSError, match="No such dev"):
        map_file(reading, 10)
    with pytest.raises(OSError, match="Bad file descriptor"):
        map_file(-1, 10)


def test_what_is_written_to_a_mapping_of_ones_own_reaches_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "content"
    file.write_bytes(b"a" * 10_000)
    with file.open("rb") as reading:
        own, other, plain = (
            map_file(reading.fileno(), 10_000, own=True),
            map_file(reading.fileno(), 10_000, own=True),
            map_file(reading.fileno(), 10_000),
        )
    own[:5] = b"hello"
    assert bytes(own[:6]) == b"helloa"
    assert bytes(other[:6]) == bytes(plain[:6]) == b"aaaaaa"
    assert file.read_bytes() == b"a" * 10_000
