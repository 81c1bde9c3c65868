"""`fedsec robust list`: everything that a plan may name, with what people choose by."""

import json

import pytest

from fedsec.cli import run
from fedsec.plan.robust import TRUSTING
from fedsec.robust import PREMIXES, RULES


def test_every_rule_is_listed_with_what_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert run(("robust", "list")) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, entry in RULES.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        for word in (entry.paper, entry.precondition, entry.cost, entry.sensitivity):
            assert word in line
    for name, premix in PREMIXES.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert premix.precondition in line


def test_as_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("robust", "list", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    rules = {rule["name"]: rule for rule in found["rules"]}
    assert list(rules) == list(RULES)
    assert {name for name, rule in rules.items() if rule["root"]} == TRUSTING
    assert rules["monna"]["parameters"] == []
    assert [n for n, rule in rules.items() if rule["weights"]] == [
        "mean",
        "trimmed-mean",
        "geometric-median",
    ]
    assert rules["multi-krum"]["parameters"] == ["keep", "neighbours"]
    assert rules["krum"]["sensitivity"] is None
    assert [premix["name"] for premix in found["before"]] == list(PREMIXES)
