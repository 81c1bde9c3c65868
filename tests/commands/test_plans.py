"""`fedsec plan ...` and `fedsec version`, through the command line's own door."""

import json
from pathlib import Path

import pytest

from fedsec import __version__
from fedsec.cli import CommandTree, run
from fedsec.commands import register
from fedsec.plan import FederationPlan, toml_example


def fedsec(*words: str) -> int:
    return run(words)


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(toml_example(), encoding="utf-8")
    return path


def test_registering_is_light_and_complete() -> None:
    tree = CommandTree()
    register(tree)
    tree.fill(["plan", "robust", "version"])
    assert {command.name for command in tree.group("plan", "").registered_commands} == {
        "check",
        "example",
        "new",
        "reference",
    }
    assert [command.name for command in tree.root.registered_commands] == ["version"]


def test_the_example_passes_its_check(plan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedsec("plan", "example") == 0
    plan_file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert fedsec("plan", "check", str(plan_file)) == 0
    out = capsys.readouterr().out
    assert f"{plan_file} is sound." in out
    assert "30 rounds of FedAvg" in out
    assert FederationPlan.parse(toml_example()).digest in out


def test_json_is_the_canonical_plan_and_its_digest(
    plan_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedsec("plan", "check", "--json", str(plan_file)) == 0
    said = json.loads(capsys.readouterr().out)
    plan = FederationPlan.parse(toml_example())
    assert said == {"digest": plan.digest, "plan": json.loads(plan.canonical_json())}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            toml_example().replace("rounds = 30", "rounds = 0"),
            "plan.toml: training.rounds = 0: allowed: an",
        ),
        (
            toml_example().replace('name = "digits" ', 'name = "digit"'),
            'task.name: "digit": built in',
        ),
        ("schema = ", "plan.toml is not TOML"),
    ],
)
def test_a_bad_plan_is_refused_in_a_sentence(
    text: str, sentence: str, plan_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_file.write_text(text, encoding="utf-8")
    assert fedsec("plan", "check", str(plan_file)) == 2
    assert sentence in capsys.readouterr().err


PRIVATE = """
[privacy]
model = "MODEL"
epsilon = 3.0
delta = 1e-5
noise_multiplier = 1.0
clip = 1.0
"""


def test_a_plan_that_costs_more_than_it_says_is_not_sound(
    plan_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dear = toml_example() + PRIVATE.replace("MODEL", "central")
    plan_file.write_text(dear, encoding="utf-8")
    assert fedsec("plan", "check", str(plan_file)) == 2
    captured = capsys.readouterr()
    assert "sound" not in captured.out
    assert "the plan costs epsilon = " in captured.err
    assert "more than its privacy.epsilon = 3" in captured.err

    plan_file.write_text(dear.replace("epsilon = 3.0", "epsilon = 50.0"), encoding="utf-8")
    assert fedsec("plan", "check", str(plan_file)) == 0
    assert "costs        epsilon " in capsys.readouterr().out
    assert fedsec("plan", "check", "--json", str(plan_file)) == 0
    assert 3 < json.loads(capsys.readouterr().out)["epsilon"] < 50

    plan_file.write_text(dear.replace('"central"', '"example"'), encoding="utf-8")
    assert fedsec("plan", "check", str(plan_file)) == 0  # its price depends on a node's examples
    assert "epsilon 3 at" in capsys.readouterr().out


def test_a_file_that_is_missing_or_no_text_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedsec("plan", "check", str(tmp_path / "nothing.toml")) == 2
    assert "cannot read" in capsys.readouterr().err
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert fedsec("plan", "check", str(tmp_path / "binary.toml")) == 2
    assert "is not UTF-8 text" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert fedsec("version", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["fedsec"] == __version__
    assert said["flwr"].startswith("1.41.")
    assert fedsec("version") == 0
    assert f"fedsec        {__version__}" in capsys.readouterr().out


def test_what_is_not_installed_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedsec.commands.versions.PACKAGES", ("no-such-package",))
    assert fedsec("version") == 0
    assert "no-such-package not installed" in capsys.readouterr().out


UNDER_NOISE = """
schema = 1
name = "all three"
visibility = "groups"
[task]
name = "digits"
[training]
rounds = 10
[round]
attempts = 1
[nodes]
min_available = {}
[privacy]
model = "distributed"
epsilon = 50.0
delta = 1e-5
noise_multiplier = {}
clip = 1.0
[secure_aggregation]
mode = "malicious"
max_nodes = 1000
group_size = 5
[robust]
rule = "median"
byzantine = 2
"""


@pytest.mark.parametrize(("nodes", "noise", "code"), [(25, 2.0, 1), (1000, 1.0, 0)])
def test_a_plan_whose_noise_takes_the_rule_s_promise_away_is_not_called_robust(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nodes: int, noise: float, code: int
) -> None:
    path = tmp_path / "all.toml"
    path.write_text(UNDER_NOISE.format(nodes, noise), encoding="utf-8")
    assert fedsec("plan", "check", str(path), "--size", "650") == code
    told = " ".join(capsys.readouterr().out.split())
    assert "under noise the noise of one group mean is" in told
    assert "times as long as the clip" in told
    assert ("not at this epsilon: 2 of 5 rows" in told) is (code == 1)
    assert ("NOT ROBUST under the noise" in told) is (code == 1)
    assert ("median; withstands 2 of the nodes" in told) is (code == 0)
    assert fedsec("plan", "check", str(path), "--size", "650", "--json") == code
    under = json.loads(capsys.readouterr().out)["under_noise"]
    assert under["robust"] is (code == 0)
    assert (under["bias"] > under["clip"]) is (code == 1)
