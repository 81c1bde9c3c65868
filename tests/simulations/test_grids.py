"""Experiments: every cell once, refused ones drawn as refused, tables that say what they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedsec.cli import run
from fedsec.errors import ConfigError
from fedsec.tasks.digits import Digits
from fedsec_sim.grids.grid import Cell, read_grid
from fedsec_sim.grids.report import summarise
from fedsec_sim.grids.running import lab_of, plan_of, run_cells

PLAN = """\
schema = 1
name = "small"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 2
local_steps = 1
learning_rate = 0.1
[nodes]
min_available = 7
"""
GRID = """\
schema = 1
name = "Small"
plans = ["small.plan.toml"]
rules = ["none", { label = "krum 2", rule = "krum" }]
attacks = ["none", { name = "ipm", epsilon = 2.0 }, "label-flip"]
splits = ["gamma:gamma=0.5"]
byzantine = [2, 3]
honest = 5
columns = "byzantine"
worst = ["attack"]
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    (tmp_path / "small.plan.toml").write_text(PLAN)
    path = tmp_path / "small.toml"
    path.write_text(GRID)
    return path


def test_a_grid_runs_once_and_shows_what_a_plan_refuses(
    grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["grid", str(grid), "--workers", "2"]) == 0
    shown = capsys.readouterr().out
    assert "12/12  small.plan, " in shown
    folder = grid.with_suffix("")
    assert {path.name for path in folder.iterdir()} == {
        "cells", "curves.png", "heatmap.png", "results.json", "tables.md",
    }  # fmt: skip
    results = json.loads((folder / "results.json").read_text())
    refused = [each for each in results if each["status"] == "refused"]
    assert {(each["rule"], each["byzantine"]) for each in refused} == {("krum 2", "3")}
    assert "need n >= 2f+3 = 9" in refused[0]["reason"]
    table = (folder / "tables.md").read_text()
    assert "| krum 2 | 0." in table
    assert "| refused |" in table
    assert "worst over attack. Seeds 1; commit " in table
    assert run(["grid", str(grid)]) == 0
    again = capsys.readouterr().out
    assert "12/12  " not in again  # nothing was run a second time
    assert "12 cells; results in " in again


def test_the_worst_attack_counts(grid: Path, tmp_path: Path) -> None:
    asked, cells = read_grid(grid)
    chosen = [cell for cell in cells if not cell.rule and cell.byzantine == 2]
    found = [outcome for outcome, _ in run_cells(chosen, tmp_path, workers=1, research=False)]
    values = [outcome.value for outcome in found if outcome.value is not None]
    assert len(values) == 3
    assert summarise(asked, found, "none", "2").value == min(values)
    assert all(outcome.seed == 1 and outcome.versions["torch"] for outcome in found)


def test_research_runs_what_a_plan_refuses_and_says_so(grid: Path, tmp_path: Path) -> None:
    text = GRID.replace('rules = ["none", ', 'rules = [{ rule = "median", weight_cap = 2.0 }, ')
    grid.write_text(text.replace("byzantine = [2, 3]", "byzantine = [2]"))
    _, cells = read_grid(grid)
    cell = [each for each in cells if each.rule.get("rule") == "median"][:1]
    ((kept, _),) = run_cells(cell, tmp_path / "x", workers=1, research=False)
    assert kept.status == "refused"
    ((again, was_there),) = run_cells(cell, tmp_path / "x", workers=1, research=True)
    assert not was_there
    assert again.status == "done"
    assert again.research


def test_machines_are_an_axis_and_their_time_a_figure(grid: Path, tmp_path: Path) -> None:
    text = GRID.replace('["none", { name = "ipm", epsilon = 2.0 }, "label-flip"]', '["none"]')
    text = text.replace('["none", { label = "krum 2", rule = "krum" }]', '["none"]')
    text = text.replace("byzantine = [2, 3]", "byzantine = [0]").replace('"byzantine"', '"systems"')
    text = text.replace("honest = 5", 'honest = 7\nfigure = "simulated_s"')
    grid.write_text(
        text + 'systems = [{ examples_per_s = 100.0 }, "examples_per_s=100,stragglers=1.0"]\n'
    )
    _, cells = read_grid(grid)
    assert [cell.labels["systems"] for cell in cells] == [
        "examples_per_s=100.0",
        "examples_per_s=100,stragglers=1.0",
    ]
    found = [o.value for o, _ in run_cells(cells, tmp_path / "x", workers=1, research=False)]
    assert all(found)
    assert max(found) > 5 * min(found)  # type: ignore[operator,type-var]
    assert run(["grid", str(grid)]) == 0
    assert "| none | " in (grid.with_suffix("") / "tables.md").read_text()


def test_adversaries_may_hold_no_examples_of_their_own(grid: Path) -> None:
    grid.write_text(GRID.replace("honest = 5", 'honest = 5\nholders = "honest"'))
    cells = [cell for cell in read_grid(grid)[1] if cell.attack.get("name") == "ipm"]
    parts = {}
    for cell in cells:
        lab = lab_of(cell)
        made = lab.populate(plan_of(cell)[0], Digits())
        assert lab.threat is not None
        assert lab.threat.members(made, cell.seed) == made.ids[5:]
        train = made.train
        own = [set(train.part(node).tolist()) for node in range(5 + cell.byzantine)]
        assert own[5:] == own[: cell.byzantine]
        assert sum(map(len, own[:5])) == len(train.pool)
        parts[cell.byzantine] = own[:5]
    assert parts[2] == parts[3]  # however many are hostile
    assert not {cell.key for cell in cells} & {cell.key for cell in at_all(grid)}


def at_all(grid: Path) -> list[Cell]:
    grid.write_text(GRID)
    return read_grid(grid)[1]


def test_words_of_a_kept_cell_may_change(grid: Path, tmp_path: Path) -> None:
    cells = [cell for cell in read_grid(grid)[1] if not cell.rule and not cell.attack][:1]
    list(run_cells(cells, tmp_path / "x", workers=1, research=False))
    renamed = [replace(cells[0], labels={**cells[0].labels, "rule": "the mean"})]
    ((kept, there),) = run_cells(renamed, tmp_path / "x", workers=1, research=False)
    assert there
    assert kept.labels["rule"] == "the mean"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('columns = "byzantine"', 'columns = "rule"', "must be different axes"),
        ("honest = 5", "honest = 5\nnodes = 7", "nodes and honest both say"),
        ('"label-flip"', "3", "attacks: want a name or a table with a name, got 3"),
        ('"small.plan.toml"', '"missing.toml"', "missing.toml cannot be read"),
        ("honest = 5", 'honest = 5\nsystems = ["speed=3"]', "systems: speed: unknown; known: ex"),
        ("honest = 5", "honest = 5\nsystems = [{ dropout = 1.5 }]", "dropout must be in"),
        ("honest = 5", "honest = 5\nsystems = [3]", "systems: want a table, got 3"),
        ("honest = 5", 'nodes = 5\nholders = "honest"', "needs honest = N and a split"),
        ("worst =", "best =", "best: unknown key"),
        ("[2, 3]", "[-1]", "byzantine"),
    ],
)
def test_a_wrong_grid_is_refused(grid: Path, old: str, new: str, text: str) -> None:
    grid.write_text(GRID.replace(old, new))
    with pytest.raises(ConfigError, match=text):
        read_grid(grid)


def test_cells_are_named_by_content(grid: Path) -> None:
    _, cells = read_grid(grid)
    assert len({cell.key for cell in cells}) == 12
    grid.write_text(GRID.replace('name = "Small"', 'name = "Other"'))
    assert [cell.key for cell in read_grid(grid)[1]] == [cell.key for cell in cells]
    plan = grid.with_name("small.plan.toml")
    plan.write_text(PLAN.replace("rounds = 2", "rounds = 3"))
    assert not {cell.key for cell in read_grid(grid)[1]} & {cell.key for cell in cells}


def test_the_experiments_of_this_repository_are_sound() -> None:
    folder = Path(__file__).parents[2] / "simulations" / "experiments"
    found = [read_grid(path) for path in folder.glob("*.toml") if ".plan" not in path.name]
    assert found
    assert all(cells for _, cells in found)
