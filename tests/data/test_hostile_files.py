"""Whatever a file holds, reading it ends with records or with a `DataError` that shows no value."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.data.reading import read
from fedsec.errors import DataError

OPTIONS: dict[str, dict[str, Any]] = {
    "csv": {"files": "f", "label": "y"},
    "csv, blanks": {"connector": "csv", "files": "f", "label": "y", "separator": "whitespace"},
    "csv, no header": {"connector": "csv", "files": "f", "label": "y", "header": False},
    "parquet": {"files": "f", "label": "y"},
    "idx": {"images": "f", "labels": "f"},
    "npz": {"file": "f"},
}
HEADS = (b"", b"x,y\n", b"x y\n", b"PAR1", b"PK\3\4", b"\0\0\x08\x01", b"\x93NUMPY", b"\x1f\x8b")
SECRET = "hidden-value"


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.sampled_from(sorted(OPTIONS)),
    st.sampled_from(HEADS),
    st.one_of(st.binary(max_size=200), st.text("0123456789,;.\"'\n \t?-e", max_size=100)),
)
def test_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, kind: str, head: bytes, tail: bytes | str
) -> None:
    directory = tmp_path_factory.mktemp("bytes")
    content = tail if isinstance(tail, bytes) else tail.encode()
    (directory / "f").write_bytes(head + content)
    options = {"connector": kind, "directory": str(directory), **OPTIONS[kind]}
    if "no header" in kind:
        options["columns"] = ["x", "y"]
    try:
        records = read(options)[1]
    except DataError:
        return
    assert len(records.inputs) == len(records.targets) > 0
    assert np.isfinite(records.inputs).all()
    assert np.isfinite(records.targets).all()


@pytest.mark.parametrize(
    "text",
    [
        f"x,y\n1,0\n{SECRET},1\n",
        f"x,y\n1,{SECRET}\n",
        f"x,y\n1,0\n{SECRET}\n",
        f"x,y\n1,0\n2,1,{SECRET}\n",
        f'x,y\n1,0\n"{SECRET},1\n',
        f"1,2\n{SECRET},1\n",
    ],
)
@pytest.mark.parametrize("kind", ["csv", "csv, blanks", "csv, no header"])
def test_no_problem_shows_a_value(tmp_path: Path, text: str, kind: str) -> None:
    text = text.replace(",", " ") if "blanks" in kind else text
    (tmp_path / "f").write_text(text, encoding="utf-8")
    options = {"connector": kind, "directory": str(tmp_path), **OPTIONS[kind]}
    if "no header" in kind:
        options["columns"] = ["x", "y"]
    with pytest.raises(DataError) as caught:
        read(options)
    assert SECRET not in str(caught.value)


def test_what_a_library_says_stays_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise pa.ArrowKeyError(SECRET)

    monkeypatch.setattr("fedsec.data.reading.read_frame", fail)
    with pytest.raises(DataError, match=r"the files cannot be read \(ArrowKeyError\)"):
        read({"connector": "csv", "directory": str(tmp_path), "files": "f", "label": "y"})
