"""`fedsec privacy statement`: what is guaranteed, what it rests on, and what it does not say."""

import json
import os
from pathlib import Path

import pytest

from fedsec.cli import run
from fedsec.commands.statements import markdown, statement, unescaped
from fedsec.ledgerfile import LedgerFile
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms

PLAN = """
schema = 1
name = "clinics | [of] a *town*"
[task]
name = "digits"
[training]
rounds = 50
[nodes]
min_available = 20
"""
PRIVACY = """
[privacy]
model = "central"
epsilon = 8.0
delta = 1e-6
noise_multiplier = 5.0
clip = 0.5
"""
CENTRAL = FederationPlan.parse(PLAN + PRIVACY)


@pytest.fixture
def coordinator(tmp_path: Path) -> Path:
    """Run 3 has charged all its rounds, run 10 has no privacy."""
    for number, text in ((3, PLAN + PRIVACY), (10, PLAN)):
        (tmp_path / "runs" / str(number)).mkdir(parents=True)
        (tmp_path / "runs" / str(number) / "plan.toml").write_text(text)
    ledger = LedgerFile(tmp_path / "privacy.ledger")
    of = terms(CENTRAL)
    for number in range(1, 51):
        ledger.charge(of.charge(run="3/ab", plan=CENTRAL.digest, round_number=number, attempt=1))
    return tmp_path


def test_the_figures_are_those_of_the_field_s_table(
    coordinator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["privacy", "statement", "3", "--dir", str(coordinator), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["epsilon_charged"]["1e-05"] == pytest.approx(6.5730, abs=2e-3)
    assert said["epsilon_charged"] == said["epsilon_of_the_whole_plan"]
    assert set(said["epsilon_charged"]) == {"1e-06", "1e-05"}
    assert said["releases_charged"] == said["releases_at_most"] == 50
    assert said["guarantee"]["unit"] == "node"
    assert said["guarantee"]["against"] == ["other nodes", "holders of the model"]
    assert "sees each node's update" in " ".join(said["not_covered"])
    stored = json.loads((coordinator / "runs/3/privacy-statement.json").read_text())
    assert stored == said
    newest = LedgerFile(coordinator / "privacy.ledger").entries()[-1][0]
    assert said["ledger"]["hash"] == newest.hash


def test_the_page_says_the_same_and_takes_names_literally(
    coordinator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    words = ["privacy", "statement", "3", "--dir", str(coordinator), "-o", str(tmp_path / "out")]
    assert run(words) == 0
    page = (tmp_path / "out" / "privacy-statement.md").read_text()
    shown = capsys.readouterr().out
    assert shown.startswith("# Privacy statement: run 3, clinics | [of] a *town*\n")
    assert "\\" not in shown  # which only a program that reads Markdown takes away again
    assert unescaped(page) in shown
    assert page.startswith("# Privacy statement: run 3, clinics \\| \\[of\\] a \\*town\\*\n")
    for part in ("at delta 1e-05: 6.573", "Gaussian, multiplier 5", "## Assumptions", "zero-out"):
        assert part in page


def test_a_run_without_privacy_is_told_so(
    coordinator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["privacy", "statement", "last", "--dir", str(coordinator), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["run"] == 10
    assert said["guarantee"] is None
    assert "no differential privacy" in said["not_covered"][0]


def test_the_last_run_is_the_newest_one(
    coordinator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The numbers of runs are drawn at random: a later one may be smaller."""
    os.utime(coordinator / "runs" / "10" / "plan.toml", (1e9, 1e9))
    (coordinator / "runs" / "99").mkdir()  # which was never begun
    assert run(["privacy", "statement", "last", "--dir", str(coordinator), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == 3


@pytest.mark.parametrize(
    ("model", "unit", "against", "sentence"),
    [
        ("local", "node", 3, "a node's operator runs the node's software"),
        ("example", "example", 3, "how many examples a node has is public"),
    ],
)
def test_each_model_states_its_own_assumptions(
    model: str, unit: str, against: int, sentence: str
) -> None:
    plan = FederationPlan.parse(PLAN + PRIVACY.replace("central", model).replace("5.0", "30.0"))
    made = statement(plan, 1, [])
    assert made["guarantee"]["unit"] == unit  # type: ignore[index]
    assert len(made["guarantee"]["against"]) == against  # type: ignore[index]
    assert sentence in " ".join(made["assumptions"])  # type: ignore[arg-type]
    assert sentence in markdown(made)


def test_a_coordinator_that_sees_sums_alone_is_not_said_to_clip_or_to_see_updates() -> None:
    sums = '[secure_aggregation]\nmode = "semi-honest"\nmax_nodes = 20\n'
    said = statement(FederationPlan.parse(PLAN + PRIVACY + sums), 1, [])
    assumed, uncovered = (" ".join(said[key]) for key in ("assumptions", "not_covered"))
    assert "each node's own software clips its update" in assumed
    assert "the coordinator clips" not in assumed
    assert "sees sums of nodes' updates" in uncovered
    assert "sees each node's update" not in uncovered


def test_secrecy_of_the_draw_is_part_of_the_statement() -> None:
    plan = FederationPlan.parse(PLAN + PRIVACY + "sampling = 0.25\n")
    made = statement(plan, 1, [])
    assert made["guarantee"]["against"] == ["holders of the model"]  # type: ignore[index]
    assert "probability 0.25, in secret" in str(made["sampling"])
    assert made["mechanism"]["divided_by"] == 5.0  # type: ignore[index]


@pytest.mark.parametrize("words", [["7"], ["x"]])
def test_a_run_that_is_not_there_is_named(
    coordinator: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert run(["privacy", "statement", *words, "--dir", str(coordinator)]) == 2
    assert "there is no run" in capsys.readouterr().err


def test_what_is_no_coordinator_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["privacy", "statement", "1", "--dir", str(tmp_path)]) == 2
    assert "no coordinator's directory" in capsys.readouterr().err


def test_figures_that_are_told_stand_in_the_statement_with_their_noise() -> None:
    told = "metrics = { train-loss = [0.0, 4.0] }\nmetrics_noise = 10.0\n"
    made = statement(FederationPlan.parse(PLAN + PRIVACY + told), 3, [])
    mechanism = made["mechanism"]
    assert isinstance(mechanism, dict)
    assert mechanism["figures"] == {"train-loss": [0.0, 4.0]}
    assert mechanism["noise_multiplier_of_figures"] == 10.0
    assert mechanism["noise_multiplier_of_updates"] == pytest.approx((1 / 25 - 1 / 100) ** -0.5)
    assert mechanism["release"] == "Gaussian, multiplier 5"  # of both together
