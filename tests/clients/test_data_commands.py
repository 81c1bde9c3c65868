"""`fedsec node data check`, as typed: what is told of a data set, and that no value is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedsec.cli import run as fedsec
from fedsec.data.settings import CONNECTORS

NODE = """
schema = 1
[data.heart]
connector = "csv"
files = "heart.csv"
label = "ill"
missing = "drop"
categories = { sex = ["f", "m"] }
[data.own]
connector = "ecg"
"""
PLAN = """
schema = 1
name = "hearts"
[task]
name = "table"
data = "heart"
[data]
inputs = ["age", "sex=m"]
classes = 2
scaling = "site"
[training]
rounds = 3
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    rows = [f"{40 + i}.25,{'fm'[i % 2]},7,{i % 2}" for i in range(20)]
    (tmp_path / "heart.csv").write_text("\n".join(["age,sex,site,ill", *rows, "?,f,7,0"]), "utf-8")
    (tmp_path / "node.toml").write_text(NODE, encoding="utf-8")
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    return tmp_path


def typed(*words: str | Path) -> int:
    return fedsec([str(word) for word in ("node", "data", "check", *words)])


def test_shapes_names_and_counts(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("heart", "--dir", node) == 0
    told = capsys.readouterr().out
    for row in (
        "records   20, 1 left out",
        "split     16 to train on, 4 to test on\n",
        "inputs    4: age, sex=f, sex=m, site",
        "label     10 of class 0, 10 of class 1",
        "missing   age 1",
        "constant  site: the same in every record",
    ):
        assert row in told
    assert ".25" not in told


def test_for_programs(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("heart", "--dir", node, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["usable"] is True
    assert (told["read"], told["used"], told["classes"]) == (21, 20, [10, 10])
    assert told["inputs"] == ["age", "sex=f", "sex=m", "site"]
    assert (told["train"], told["test"]) == (16, 4)


def test_what_is_for_tests_is_counted_as_the_plan_has_it(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two classes of 10 a quarter is 2 and 2; of 20 numbers it is 5."""
    with (node / "node.toml").open("a") as file:
        file.write("[data.heart.test]\nfraction = 0.25\n")
    assert typed("heart", "--dir", node) == 0
    assert "16 to train on, 4 to test on" in capsys.readouterr().out
    numbers = PLAN.replace("classes = 2\n", "")
    linear = numbers.replace('data = "heart"', 'data = "heart"\noptions = { model = "linear" }')
    (node / "plan.toml").write_text(linear, "utf-8")
    assert typed("heart", "--dir", node, "--plan", node / "plan.toml") == 0
    assert "15 to train on, 5 to test on" in capsys.readouterr().out


def test_of_a_part_of_the_records(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (node / "node.toml").read_text()
    parts = text.replace('label = "ill"', 'label = "ill"\npartitions = 2')
    (node / "node.toml").write_text(parts, "utf-8")
    assert typed("heart", "--dir", node) == 0
    assert "8 to train on, 2 to test on, of this node's part of them" in capsys.readouterr().out


def test_records_that_leave_nothing_for_tests(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (node / "node.toml").read_text()
    tests = '[data.heart.test]\ncolumn = "site"\nvalue = "8"\n'
    (node / "node.toml").write_text(f"{text}{tests}", "utf-8")
    assert typed("heart", "--dir", node) == 1
    assert "of 20 records none is left to test on" in capsys.readouterr().out


def test_problems_hold_no_value(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (node / "heart.csv").read_text("utf-8")
    changed = text.replace("41.25,m", "hush,x").replace("42.25", "hush")
    (node / "heart.csv").write_text(changed, encoding="utf-8")
    assert typed("heart", "--dir", node) == 1
    told = capsys.readouterr().out
    assert told.startswith("[data.heart] 2 problems:\n")
    assert '  heart.csv, row 3, column "age": a number is expected' in told
    assert '  heart.csv, row 3, column "sex": none of the texts in categories.sex' in told
    assert "hush" not in told
    assert typed("heart", "--dir", node, "--json") == 1
    assert json.loads(capsys.readouterr().out)["usable"] is False


def test_a_plan_that_it_fits(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = node / "plan.toml"
    assert typed("heart", "--dir", node, "--plan", plan) == 0
    assert f"It fits {plan}." in capsys.readouterr().out
    plan.write_text(PLAN.replace('"age"', '"chol"'), encoding="utf-8")
    assert typed("heart", "--dir", node, "--plan", plan) == 1
    assert '[data.heart] lacks the plan\'s data.inputs "chol"' in capsys.readouterr().out
    plan.write_text(PLAN.replace('data = "heart"', 'data = "lungs"'), encoding="utf-8")
    assert typed("heart", "--dir", node, "--plan", plan) == 1
    assert 'asks for the data set "lungs", not for "heart"' in capsys.readouterr().out


def test_every_key_of_every_connector_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert fedsec(["node", "data", "reference"]) == 0
    page = capsys.readouterr().out
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for model in CONNECTORS.values():
        for key in model.model_fields:
            row = next(line for line in rows if line.startswith(f"| `{key}` |"))
            assert not row.endswith("|  |"), row
    kept = Path(__file__).parents[2] / "docs" / "reference" / "data.md"
    advice = "run: fedsec node data reference > docs/reference/data.md"
    assert kept.read_text("utf-8") == page, advice


def test_the_agents_process_reads_no_files() -> None:
    """`fedsec node start` comes by these modules; what reads files is for workers."""
    modules = "fedsec_client.start_command, fedsec_client.data_commands"
    heavy = "{'numpy', 'pyarrow', 'pandas', 'sklearn', 'PIL', 'torch'}"
    script = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_data_sets_that_are_not_there(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("hart", "--dir", node) == 2
    assert "no table [data.hart]; data sets there: heart, own" in capsys.readouterr().err
    assert typed("own", "--dir", node) == 2
    assert 'connector = "ecg": only these read files: "csv", "parquet"' in capsys.readouterr().err
    assert typed("heart", "--dir", node / "gone") == 2
    assert "node.toml cannot be read" in capsys.readouterr().err
