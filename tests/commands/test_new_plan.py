"""`fedsec plan new`, `fedsec plan reference` and `fedsec task new`, as typed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from fedsec.cli import run as fedsec
from fedsec.commands import new_plan
from fedsec.plan import FederationPlan
from fedsec.plan.reference import reference_page
from fedsec.plan.writing import Answers, write_plan
from fedsec.tasks.names import BUILT_IN

CHECKOUT = Path(__file__).parents[2]


def typed(*words: str | Path) -> int:
    return fedsec([str(word) for word in words])


@pytest.mark.parametrize("task", BUILT_IN)
def test_every_built_in_task_has_a_plan_that_passes(task: str, tmp_path: Path) -> None:
    more = {
        "table": ("--data", "trial", "--inputs", "age, sex=m", "--classes", "2"),
        "images": ("--data", "scans", "--shape", "1,28,28", "--classes", "10"),
    }.get(task, ())
    file = tmp_path / "plan.toml"
    assert typed("plan", "new", file, "--task", task, *more, "--compare", "--nodes", "5") == 0
    plan = FederationPlan.parse(file.read_text("utf-8"))
    assert plan.learning[0].name == task
    assert (plan.nodes.min_available, plan.nodes.quorum) == (5, 4)
    assert plan.round.compare_alone is True
    assert typed("plan", "check", file) == 0


def test_a_number_is_learned_by_a_linear_model(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    words = ("--task", "table", "--data", "t", "--inputs", "a", "--classes", "0")
    assert typed("plan", "new", file, *words) == 0
    plan = FederationPlan.parse(file.read_text("utf-8"))
    assert plan.data is not None
    assert plan.data.classes is None
    assert plan.learning[0].options == {"model": "linear"}


def test_names_that_toml_must_quote() -> None:
    odd = 'größe "in" cm\\'
    text = write_plan(Answers("table", "t", odd, inputs=[odd], classes=2, model="mlp"))
    plan = FederationPlan.parse(text)
    assert plan.name == odd
    assert plan.data is not None
    assert plan.data.inputs == (odd,)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--task is missing, and there is nobody to ask"),
        (("--task", "tabel"), '--task "tabel": built in are digits, table'),
        (("--task", "table"), "--data is missing"),
        (("--task", "table", "--data", "t"), "--inputs is missing"),
        (
            ("--task", "images", "--data", "t", "--shape", "1,x,3", "--classes", "2"),
            "'x' is no whole",
        ),
        (("--task", "digits", "--nodes", "2", "--quorum", "3"), "nodes.quorum: 3 is more than"),
        (("--task", "digits", "--model", "forest"), "task.options.model"),
    ],
)
def test_what_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert typed("plan", "new", tmp_path / "plan.toml", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "plan.toml").exists()


def test_a_file_is_not_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.toml"
    file.write_text("mine", encoding="utf-8")
    assert typed("plan", "new", file, "--task", "digits") == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert file.read_text("utf-8") == "mine"
    assert typed("plan", "new", file, "--task", "digits", "--force") == 0


def test_a_person_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[str] = iter(["table", "trial", "age,bmi", "3"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: next(answers))
    assert new_plan.typer is typer
    assert typed("plan", "new", tmp_path / "plan.toml") == 0
    plan = FederationPlan.parse((tmp_path / "plan.toml").read_text("utf-8"))
    assert plan.data is not None
    assert (plan.data.inputs, plan.data.classes) == (("age", "bmi"), 3)


def test_the_reference_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("plan", "reference") == 0
    page = capsys.readouterr().out
    for section, key, default in (
        ("nodes", "quorum", "depends, see there"),
        ("round", "deadline_s", "`600.0`"),
        ("round", "attempts", "`3`"),
    ):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{section}.{key}` |"))
        assert default in row
    for name, field in FederationPlan.model_fields.items():
        assert f"`[{name}]`" in page or f"| `{field.alias or name}` |" in page
    assert all(len(row.split(" | ")) == 4 for row in page.splitlines() if row.startswith("| `"))


def test_the_page_in_the_documents_is_up_to_date() -> None:
    kept = (CHECKOUT / "docs" / "reference" / "plan.md").read_text("utf-8")
    advice = "run: fedsec plan reference > docs/reference/plan.md"
    assert kept == reference_page(), advice


def test_a_task_of_ones_own_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("task", "new", "ecg", "--dir", tmp_path) == 0
    assert "fedsec simulate" in capsys.readouterr().out
    place = tmp_path / "ecg"
    lines = [line for path in place.rglob("*.*") for line in path.read_text("utf-8").splitlines()]
    assert len(lines) < 60
    script = "import sys; from fedsec.cli import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "simulate", str(place / "plan.toml")],
        cwd=tmp_path,
        env={"PYTHONPATH": str(place), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "round 5/5" in done.stdout
    assert typed("task", "new", "ecg", "--dir", tmp_path) == 2
    assert "exists; choose another name" in capsys.readouterr().err
    assert typed("task", "new", "My-Task") == 2
    assert "is a-z, 0-9 and _, a letter first" in capsys.readouterr().err


def test_the_built_in_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("task", "list") == 0
    assert capsys.readouterr().out.split() == list(BUILT_IN)
