"""`fedsec ledger ...`: figures from closed forms, exit codes that scripts can use."""

import json
from pathlib import Path

import pytest

from fedsec.cli import run
from fedsec.ledgerfile import LedgerFile
from fedsec.privacy.events import Gaussian, Price, Skellam
from fedsec.privacy.ledger import Guarantee, Terms

CENTRAL = Guarantee("node", "zero-out", "model-holders", "the coordinator adds the noise")
LOCAL = Guarantee("node", "replace-one", "coordinator", "nodes add the noise", "promised")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Five uses of multiplier 5 in one run, a promise in another."""
    made = LedgerFile(tmp_path / "privacy.ledger")
    terms = Terms(CENTRAL, Price(Gaussian(5.0)), 5)
    for number in range(1, 6):
        made.charge(terms.charge(run="3/ab", plan="9f" * 32, round_number=number, attempt=1))
    made.charge(Terms(LOCAL, Price(Gaussian(5.0)), 50).reservation(run="4/cd", plan="8a" * 32))
    (tmp_path / "node.toml").write_text("schema = 1\n")
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert run(["ledger", *words, "--json"]) == 0
    read: dict[str, object] = json.loads(capsys.readouterr().out)
    return read


def test_totals_are_those_of_the_field_s_table(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = shown(capsys, "show", str(ledger))
    enforced, promised = said["accounts"]  # type: ignore[misc]
    # sigma 5, 50 uses, delta 1e-5: 6.5730; 5 uses are one Gaussian of multiplier sqrt(5).
    assert promised["epsilon"] == pytest.approx(6.5730, abs=2e-3)
    assert enforced["curve"][-1] == [5, pytest.approx(enforced["epsilon"])]
    assert [number for number, _ in enforced["curve"]] == [1, 2, 3, 4, 5]
    assert enforced["curve"][0][1] == pytest.approx(0.7255, abs=2e-3)
    assert enforced["holds_against"] == ["model-holders"]
    assert promised["holds_against"] == ["coordinator", "nodes", "model-holders"]
    assert said["records"] == 6


def test_people_read_who_what_whom_and_how_much(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ledger", "show", str(ledger), "--delta", "1e-6"]) == 0
    out = capsys.readouterr().out
    for part in (
        "6 charges",
        "enforced by who keeps this ledger",
        "promised to who keeps this ledger",
        "at delta 1e-06",
        "holders of the model",
        "5 x Gaussian, multiplier 5",
        "the coordinator adds the noise",
        "dp-accounting",
        "epsilon at delta 1e-06, by charge",
    ):
        assert part in out


def test_a_plot_is_drawn(ledger: Path) -> None:
    assert run(["ledger", "show", str(ledger), "--plot", str(ledger / "spent.png")]) == 0
    assert (ledger / "spent.png").read_bytes().startswith(b"\x89PNG")
    assert run(["ledger", "show", str(ledger), "--plot", str(ledger / "no" / "spent.png")]) == 2


def test_what_costs_infinitely_much_is_told_and_left_out_of_the_drawing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each release loses so much of delta that two of them leave none."""
    made = LedgerFile(tmp_path / "privacy.ledger")
    terms = Terms(CENTRAL, Price(Gaussian(5.0), delta=6e-6), 3)
    for number in (1, 2, 3):
        made.charge(terms.charge(run="3/ab", plan="9f" * 32, round_number=number, attempt=1))
    png = tmp_path / "spent.png"
    assert run(["ledger", "show", str(tmp_path), "--plot", str(png)]) == 0
    assert run(["ledger", "show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "inf at delta 1e-05" in out
    assert "by charge (2 not finite, left out)" in out


def test_integers_are_in_the_words_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = LedgerFile(tmp_path / "l")
    price = Price(Skellam(l1=65536, l2=256, variance=1e6))
    made.charge(Terms(CENTRAL, price, 1).charge(run="1", plan="a", round_number=1, attempt=1))
    assert run(["ledger", "show", str(tmp_path / "l")]) == 0
    out = capsys.readouterr().out
    assert "1 x Skellam, variance 1e+06, L2 256, L1 6.554e+04" in out
    assert "Renyi" in out


def test_a_directory_without_charges_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "server.toml").write_text("")
    assert run(["ledger", "show", str(tmp_path)]) == 0
    assert "nothing was charged yet" in capsys.readouterr().out
    assert shown(capsys, "verify", str(tmp_path))["records"] == 0


@pytest.mark.parametrize("command", ["show", "verify"])
def test_what_is_no_ledger_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(["ledger", command, str(tmp_path / "none")]) == 2
    assert "there is no ledger at" in capsys.readouterr().err


def test_verify_finds_what_was_changed(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ledger", "verify", str(ledger)]) == 0
    assert "6 records, whole" in capsys.readouterr().out
    path = ledger / "privacy.ledger"
    path.write_bytes(path.read_bytes().replace(b"round 2", b"round 9"))
    for command in ("verify", "show"):
        assert run(["ledger", command, str(ledger)]) == 2
        assert "record 2" in capsys.readouterr().err


def test_verify_finds_that_the_newest_are_missing(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ledger / "privacy.ledger"
    newest = str(shown(capsys, "verify", str(ledger))["hash"])
    assert run(["ledger", "verify", str(ledger), "--contains", newest]) == 0
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert run(["ledger", "verify", str(ledger)]) == 0  # nothing in it tells
    assert run(["ledger", "verify", str(ledger), "--contains", newest]) == 1
    assert "newer ones may be missing" in capsys.readouterr().out
