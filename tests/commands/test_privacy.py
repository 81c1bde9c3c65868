"""`fedsec privacy spend` and `calibrate`, through the command line's own door."""

import json
import math
import re
import sys
from pathlib import Path

import pytest

from fedsec.cli import run as fedsec
from fedsec.plan import FederationPlan
from fedsec.plan.privacy import population
from fedsec.plan.terms import terms
from fedsec.privacy.accounting import spent
from tests.server.commandrig import MAIN, on_terminal

PLAN = """
schema = 1
name = "a private plan"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 20
[round]
attempts = 2
[nodes]
min_available = 10
[privacy]
epsilon = 20.0
delta = 1e-5
noise_multiplier = 2.0
clip = 0.5
"""
SUM = '[secure_aggregation]\nmode = "semi-honest"\nmax_nodes = 10\n'


def test_a_long_search_is_seen_on_a_terminal_and_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["privacy", "calibrate", str(written(tmp_path, 'model = "central"\n'))]
    seen = on_terminal([sys.executable, "-c", MAIN, *words], [])
    tries = {int(each) for each in re.findall(rb"looking for the least noise: (\d+), mul", seen)}
    assert len(tries) > 1
    assert b"noise_multiplier = " in seen
    assert fedsec(words) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "looking" not in told.out


def written(tmp_path: Path, more: str, tables: str = "", text: str = PLAN) -> Path:
    path = tmp_path / "private.plan.toml"
    path.write_text(text + more + tables, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("model", "tables", "who"),
    [
        ("central", "", "other nodes and everybody but the coordinator"),
        ("local", "", "the coordinator and everybody else"),
        ("distributed", SUM, "at least 9 honest nodes"),
    ],
)
def test_spending_is_told_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, tables: str, who: str
) -> None:
    path = written(tmp_path, f'model = "{model}"\n', tables)
    code = fedsec(["privacy", "spend", str(path)])
    told = capsys.readouterr()
    plan = FederationPlan.parse(path.read_text())
    epsilon = spent([terms(plan).whole], 1e-5)
    assert code == (1 if epsilon > 20 else 0)
    assert ("more than privacy.epsilon = 20" in told.err) == (epsilon > 20)
    assert f"{epsilon:.4g}" in told.out
    assert who in told.out
    assert "times as long as the longest mean" in told.out
    assert "by attempt" in told.out if model == "distributed" else "by round" in told.out


def test_figures_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, 'model = "central"\n')
    assert fedsec(["privacy", "spend", str(path), "--json", "--size", "400"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["epsilon"] == pytest.approx(spent([terms(FederationPlan.parse(path.read_text())).whole], 1e-5))  # fmt: skip
    assert told["noise"]["sensitivity"] == pytest.approx(0.05)
    assert told["noise"]["std"] == pytest.approx(0.1, rel=2e-3)
    assert told["noise"]["to_signal"] == pytest.approx(0.1 * 20 / 0.5, rel=2e-3)
    assert list(told["epsilon_after"])[-1] == "20"
    assert told["epsilon_without_sampling"] is None


def test_the_noise_on_figures_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = "metrics = { train-loss = [0, 4] }\nmetrics_noise = 6.0\n"
    path = written(tmp_path, 'model = "central"\n' + keys)
    assert fedsec(["privacy", "spend", str(path), "--json", "--size", "400"]) == 0
    told = json.loads(capsys.readouterr().out)
    nodes = population(FederationPlan.parse(path.read_text()))
    assert told["noise_of_figures"]["train-loss"] == pytest.approx(6 * 4 / 2 / nodes, rel=2e-3)


@pytest.mark.parametrize(("sampling", "condition"), [("", True), ("sampling = 0.5\n", False)])
def test_noise_that_depends_on_who_answers_is_told_with_that_condition(
    sampling: str, condition: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A secret number is no divisor."""
    path = written(tmp_path, 'model = "central"\nmetrics = { train-loss = [0, 4] }\n' + sampling)
    assert fedsec(["privacy", "spend", str(path), "--size", "400"]) == 0
    assert ("if all answer: train-loss std" in capsys.readouterr().out) is condition


def test_the_noise_of_a_sum_is_told_of_figures_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The share of nine honest nodes covers the sum; all ten add theirs."""
    keys = "metrics = { train-loss = [0, 4] }\nmetrics_noise = 6.0\n"
    path = written(tmp_path, 'model = "distributed"\n' + keys, SUM)
    assert fedsec(["privacy", "spend", str(path), "--json", "--size", "400"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = 6 * 4 / 2 / 10 * math.sqrt(10 / 9)
    assert expected <= told["noise_of_figures"]["train-loss"] <= 1.02 * expected


def test_the_multiplier_of_updates_is_told_where_figures_take_their_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, 'model = "central"\nmetrics = { train-loss = [0, 4] }\n')
    assert fedsec(["privacy", "spend", str(path), "--size", "400"]) == 0
    assert "noise          multiplier 2, of the updates 2.121, std" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["metrics_noise", "clip_noise"])
def test_calibration_names_what_takes_all_of_the_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    keys = {
        "metrics_noise": "metrics = { train-loss = [0, 4] }\nmetrics_noise = 6.0\n",
        "clip_noise": "clip_quantile = 0.5\nclip_noise = 3.0\n",
    }
    path = written(tmp_path, 'model = "central"\n' + keys[key])
    assert fedsec(["privacy", "calibrate", str(path), "--epsilon", "0.2"]) == 2
    told = capsys.readouterr().err
    assert "would keep the whole within epsilon 0.2, but what it must cover" in told
    assert f"raise or leave out privacy.{key}" in told


@pytest.mark.slow
def test_what_amplification_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, 'model = "central"\nsampling = 0.2\n')
    assert fedsec(["privacy", "spend", str(path), "--json", "--size", "400"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["epsilon_without_sampling"] > 3 * told["epsilon"]
    assert told["accountant"].startswith("privacy loss distribution")


def test_calibration_finds_the_least_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, 'model = "central"\n')
    assert fedsec(["privacy", "calibrate", str(path), "--epsilon", "3", "--size", "400"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    key, _, value = line.partition(" = ")
    assert key == "noise_multiplier"
    found = float(value)
    text = PLAN.replace("noise_multiplier = 2.0", line)
    prices = [terms(FederationPlan.parse(text + 'model = "central"\n')).whole]
    assert spent(prices, 1e-5) <= 3
    assert found == pytest.approx(6.7, rel=0.1)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (PLAN[: PLAN.index("[privacy]")], [], "no table [privacy]"),
        (PLAN + 'model = "example"\n', [], "how many examples a node has"),
        (PLAN + 'model = "central"\n', ["--size", "0"], "--size must be >= 1, got 0"),
    ],
)
def test_what_cannot_be_told_says_why(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    options: list[str],
    message: str,
) -> None:
    path = written(tmp_path, "", text=text)
    assert fedsec(["privacy", "spend", str(path), *options]) == 2
    assert message in capsys.readouterr().err


AUDITED = """model = "central"
metrics = { train-loss = [0.0, 4.0] }
metrics_noise = 3.0
[robust]
rule = "median"
byzantine = 2
before = [{ name = "bucketing", size = 2 }]
"""


def audit(tmp_path: Path, *options: str, of: str = AUDITED) -> int:
    path = written(tmp_path, of)
    return fedsec(
        [
            "privacy",
            "audit",
            str(path),
            "--size",
            "5000",
            "--canaries",
            "20",
            "--rounds",
            "1",
            *options,
        ]
    )


def test_an_audit_measures_every_part_of_a_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(tmp_path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {each["of"] for each in told["noise"]} == {"updates", "figures"}
    assert all(each["passed"] for each in told["noise"])
    assert all(each["reach"] > 0.85 for each in told["noise"] if each["survivors"] == 10)
    assert told["cost"] == {"together": pytest.approx(2.0), "charged": 2.0}
    assert audit(tmp_path) == 0
    text = capsys.readouterr().out
    assert "Nothing was found." in text
    assert "Measured in part" not in text


def test_an_audit_says_what_it_measured_in_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a third: a step of wide clipping of as many as the bound counts."""
    options = 'rule = "centered-clipping"\noptions = { radius = 5.0, iterations = 3 }\n'
    wide = AUDITED.replace('rule = "median"\n', options).partition("before")[0]
    assert audit(tmp_path, of=wide) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Measured in part, updates: the rows that were found move them by 33% of" in text


def test_an_audit_of_half_the_noise_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fedsec.flower.private.central_sensitivity", lambda _plan, _clip: 0.5 / 2 / 2 / 2
    )
    assert audit(tmp_path) == 1
    text = capsys.readouterr().out
    assert "TOO LITTLE" in text
    assert "The plan is less private than it says." in text


def test_an_audit_sees_a_round_that_costs_more_than_its_charge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Updates under all of the plan's multiplier, and figures beside them for nothing."""
    for module in ("fedsec.flower.audited", "fedsec.flower.private"):
        monkeypatch.setattr(f"{module}.update_multiplier", lambda _plan: 2.0)
    assert audit(tmp_path) == 1
    assert "multiplier 1.664; the ledger is charged for 2: TOO LITTLE" in capsys.readouterr().out
