"""Every command's help has an example, and no page names a command or an option that there is not."""

import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from typer.main import get_command

from fedsec import cli

CHECKOUT = Path(__file__).parents[1]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "SECURITY.md", *sorted(CHECKOUT.glob("docs/**/*.md"))]
USED = re.compile(r"(?:^|[`|;&(]|\$ |do )\s*fedsec ([a-z][^`|;&>\n]*)", re.MULTILINE)


@cache
def commands() -> dict[str, click.Command]:
    """Returns every command by its words, groups too."""
    points = entry_points(group=cli.GROUP)
    lazy = cli.collect(points)
    whole = cli.collect(points)
    whole.fill([*lazy._later, *lazy._commands])
    return dict(walk(get_command(whole.root), ""))


def walk(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
    yield words, command
    for name, each in getattr(command, "commands", {}).items():
        yield from walk(each, f"{words} {name}".strip())


def help_of(words: str) -> str:
    command = commands()[words]
    return command.get_help(click.Context(command, info_name=words, max_content_width=100))


def problem(line: str) -> str:
    """Returns what is wrong with a command line without its `fedsec`; nothing if all is there."""
    words = line.replace("\\", " ").split()
    found = ""
    while words and f"{found} {words[0]}".strip() in commands():
        found = f"{found} {words.pop(0)}".strip()
    command = commands()[found]
    if getattr(command, "commands", None):
        return f"there is no `fedsec {line}`" if words and words[0].isidentifier() else ""
    known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    known |= {name for parameter in command.params for name in parameter.secondary_opts}
    options = [word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][^ ]*", word)]
    return ", ".join(f"fedsec {found} has no {each}" for each in options if each not in known)


def test_every_command_says_what_it_does_and_has_an_example() -> None:
    for words, command in commands().items():
        if not getattr(command, "commands", None):
            shown = help_of(words)
            assert "\n  Example" in shown, words
            assert command.help, words
            assert command.help.split("\n\n")[0].rstrip().endswith("."), words


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_list_of_commands_holds_whole_sentences(width: int) -> None:
    for words, command in commands().items():
        context = click.Context(command, info_name=words, terminal_width=width)
        shown = " ".join(command.get_help(context).split())
        assert "..." not in shown.partition(" Commands: ")[2], words


def test_what_a_help_shows_can_be_typed() -> None:
    for words in commands():
        for line in USED.findall(help_of(words)):
            assert not problem(line), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_what_a_page_shows_can_be_typed(page: Path) -> None:
    text = page.read_text("utf-8").replace("\\\n", " ")
    assert not [wrong for line in USED.findall(text) if (wrong := problem(line))]


def test_a_wrong_word_or_option_would_be_found() -> None:
    assert problem("node lst") == "there is no `fedsec node lst`"
    assert problem("node list --jsn") == "fedsec node list has no --jsn"
    assert problem("node list --json") == ""
    assert len([line for page in PAGES for line in USED.findall(page.read_text("utf-8"))]) > 80
