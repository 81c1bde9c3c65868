"""What is printed: nothing from a peer reaches the terminal as a command, JSON is JSON."""

import io
import json
import sys

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from fedsec import console
from fedsec.errors import ConfigError


@given(st.text())
def test_safe_text_is_one_printable_line(text: str) -> None:
    shown = console.safe(text)
    assert shown.isprintable()
    assert console.safe(shown) == shown or len(text) > 400


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\r\nnode north: ok", "a\\r\\nnode north: ok"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("\x9b2J", "\\x9b2J"),
        ("x" * 500, "x" * 400 + "... (500 characters)"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(hostile: str, shown: str) -> None:
    assert console.safe(hostile) == shown


def test_cells_are_taken_literally(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["[red]north[/red]", ":boom:", None], ["\x1b[2J", 7, "x" * 100]]
    console.show(console.table(["name", "state", ">left"], rows))
    out = capsys.readouterr().out
    assert "[red]north[/red]" in out
    assert ":boom:" in out
    assert "\\x1b[2J" in out
    assert "\x1b" not in out
    assert "x" * 100 in out  # no terminal, so nothing is cut or wrapped


def test_a_table_without_headings_has_no_line_for_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.show(console.table(["", ""], [["name", "north"]]))
    assert capsys.readouterr().out == "name  north\n"


def test_a_long_line_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("fedsec-invite-1:" + "A" * 300 + " [bold]")
    assert capsys.readouterr().out == "fedsec-invite-1:" + "A" * 300 + " [bold]\n"


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit_json({"loss": float("nan"), 3: [float("inf"), 1.5], "name": "\x1bZürich"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"loss": None, "3": [None, 1.5], "name": "\x1bZürich"}


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit_json({"a": {"b": 1}}, one_line=True)
    console.emit_json(None, one_line=True)
    assert capsys.readouterr().out == '{"a": {"b": 1}}\nnull\n'


def test_confirm_needs_somebody_or_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    console.confirm("This revokes north.", yes=True)
    with pytest.raises(ConfigError, match=r"revokes north\. Nobody is there to ask; say --yes"):
        console.confirm("This revokes north.", yes=False)


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_confirm_asks(monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    if goes_on:
        console.confirm("This revokes north.", yes=False)
    else:
        with pytest.raises(typer.Abort):
            console.confirm("This revokes north.", yes=False)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (3.5 * 1024**3, "3.5 GiB"),
        (2 * 1024**4, "2.0 TiB"),
    ],
)
def test_bytes(count: float, shown: str) -> None:
    assert console.format_bytes(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.99949, "999.5 ms"),
        (0.9999, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (-75, "-1 min 15 s"),
        (86_400, "1 d 0 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert console.format_duration(seconds) == shown


def test_times() -> None:
    assert console.format_time(1_700_000_000.9) == "2023-11-14 22:13:20 UTC"
    assert console.format_time(None) == "-"


def test_lines_of_a_table_in_a_file_do_not_end_with_spaces(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [("a", "it is so"), ("long", "")]
    console.show(console.table(["name", "why"], rows, title="\nRows"))
    assert capsys.readouterr().out == "\nRows\nname  why\na     it is so\nlong\n"
