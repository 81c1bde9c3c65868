"""docs/quickstart.md, command by command: four sites' messy files become one model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsec.artifacts import read_model
from tests.end_to_end.quickstart import commands, script

pytestmark = pytest.mark.slow


def test_it_is_short() -> None:
    assert len(commands()) <= 15


@pytest.mark.timeout(600)
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "walk.sh").write_text(script({}), encoding="utf-8")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FEDSEC_CA_PASSPHRASE": "correct horse battery staple",
    }
    done = subprocess.run(
        ["bash", "walk.sh"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "plan.toml is sound." in done.stdout
    assert "federated is better at 4 of 4 sites, by accuracy" in done.stdout
    pooled = re.search(
        r"^all, by records +954 +(\S+) +(\S+) +(\S+) +(\S+)", done.stdout, re.MULTILINE
    )
    assert pooled is not None
    together, alone = float(pooled[3]), float(pooled[4])
    assert together > alone + 0.02
    with Image.open(tmp_path / "run.png") as picture:
        assert picture.size[0] > 1000
        assert np.asarray(picture.convert("L")).std() > 10  # something is drawn on it
    arrays, metadata = read_model(tmp_path / "model.safetensors")
    assert arrays["0.weight"].shape == (2, 16)
    assert metadata["task"] == "table"
