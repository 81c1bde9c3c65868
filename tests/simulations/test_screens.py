"""What a demo shows: lines in a pipe, tables on a terminal, nothing for JSON."""

import io
import re

import pytest
from rich.console import Console

from fedsec_sim import screens
from fedsec_sim.screens import Lines, Round, Screen, Silence, Tables

DONE = Round(
    number=5,
    rounds=30,
    answered=("node-0", "node-1"),
    missing={"node-2": "was lost\x1b[2J"},
    loss=0.25,
    accuracy=None,
    seconds=0.1234,
    moved=2048,
)


def show_all(screen: Screen) -> None:
    screen.step("the coordinator listens")
    with screen.running():
        screen.step("training begins")
        screen.round(DONE)
        screen.node("node-2", "was killed")


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show_all(Lines())
    lines = [re.sub(r"^ *\d+\.\d s  ", "", line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "the coordinator listens",
        "training begins",
        "round  5/30   2 of  3 answered  loss 0.2500  accuracy -  123.4 ms; node-2: was lost\\x1b[2J",
        "node-2 was killed",
    ]


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    show_all(Silence())
    assert capsys.readouterr().out == ""


def test_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=100, height=40)
    monkeypatch.setattr(screens, "console", lambda: terminal)
    show_all(Tables(["node-0", "node-1", "node-2"]))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "training begins" in text
    last = text[text.rindex("node   ") :]
    assert re.search(r"node-0 +is ready +1 +5", last)
    assert re.search(r"node-2 +was killed +0 +-", last)
    assert re.search(r"5/30 +2 of 3 +0\.2500 +- +123\.4 ms +2\.0 KiB +node-2", last)
    assert "round 6: node-2 was killed" in last
