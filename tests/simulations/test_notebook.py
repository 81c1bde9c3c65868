"""The notebook does what it says: its cells run one after another, as a reader would run them."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "simulation.ipynb"


@pytest.mark.slow
def test_every_cell_runs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 4
    names: dict[str, object] = {}
    for source in code:
        exec(compile(source, str(NOTEBOOK), "exec"), names)  # noqa: S102 - our own file
    honest, runs = names["honest"], names["runs"]
    assert honest.accuracy > 0.5  # type: ignore[attr-defined]
    assert runs["mean"].accuracy < runs["nnm, trimmed mean"].accuracy  # type: ignore[index]
