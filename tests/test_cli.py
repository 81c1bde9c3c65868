"""One command from many packages: shared groups, one-line errors, a quick start."""

import json
import resource
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import typer

from fedsec import cli
from fedsec.errors import ConfigError, StateError

HERE = __name__


def point(name: str, function: str) -> EntryPoint:
    return EntryPoint(name, f"{HERE}:{function}", cli.GROUP)


def register_first(tree: cli.CommandTree) -> None:
    @tree.group("node", "Nodes.").command("invite")
    def invite(name: str) -> None:
        typer.echo(f"invited {name}")

    @tree.root.command("refuse")
    def refuse() -> None:
        raise ConfigError("rounds must be >= 1, got 0\nseed must be >= 0, got \x1b[2J")


def register_second(tree: cli.CommandTree) -> None:
    @tree.group("node", "Nothing that counts.").command("join")
    def join() -> None:
        typer.echo("joined")

    @tree.root.command("interrupted")
    def interrupted() -> None:
        raise KeyboardInterrupt

    @tree.root.command("wrong")
    def wrong() -> None:
        raise AssertionError("a fault of ours")


def register_broken(tree: cli.CommandTree) -> None:
    raise RuntimeError("this package was built for another version")


def register_later(tree: cli.CommandTree) -> None:
    tree.extend("node", "Nodes.", f"{HERE}:fill_node")
    tree.extend("heavy", "Never asked for.", f"{HERE}:fill_heavy")
    tree.command("demo", "Shows it.", f"{HERE}:demo")
    tree.command("gone", "Cannot be loaded.", f"{HERE}:nothing")


def fill_node(group: typer.Typer) -> None:
    @group.command("doctor")
    def doctor() -> None:
        raise StateError("nothing listens on 127.0.0.1:1")


def register_parts(tree: cli.CommandTree) -> None:
    tree.extend("node", "Nodes.", f"{HERE}:fill_node", ("doctor",))
    tree.extend("node", "Nodes.", f"{HERE}:fill_heavy", ("start",))


def fill_heavy(group: typer.Typer) -> None:
    raise AssertionError("was loaded though nobody asked")


def demo(nodes: int = 3) -> None:
    """Shows all of it."""
    typer.echo(f"{nodes} nodes")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[HERE])


POINTS = [point("a", "register_first"), point("b", "register_second"), point("c", "register_later")]


def test_one_group_takes_commands_of_several_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["node", "invite", "north"], POINTS) == 0
    assert cli.run(["node", "join"], POINTS) == 0
    assert cli.run(["node", "--help"], POINTS) == 0
    out, err = capsys.readouterr()
    assert out.startswith("invited north\njoined\n")
    assert all(word in out for word in ("Nodes.", "invite", "join", "doctor"))
    assert err == ""


def test_an_error_is_one_sentence_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["refuse"], POINTS) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "Error: rounds must be >= 1, got 0\n"
        "  seed must be >= 0, got \\x1b[2J\n"  # nothing that the terminal would obey
    )


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--debug", "node", "doctor"], POINTS) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("Error: nothing listens on 127.0.0.1:1\n")


def test_an_interrupt_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["interrupted"], POINTS) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_fault_of_ours_is_not_dressed_up() -> None:
    with pytest.raises(AssertionError, match="a fault of ours"):
        cli.run(["wrong"], POINTS)


def test_a_broken_package_is_named_and_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = [point("aa", "register_broken"), EntryPoint("gone", "no.such:thing", cli.GROUP)]
    assert cli.run(["node", "invite", "north"], [*broken, *POINTS]) == 0
    out, err = capsys.readouterr()
    assert out == "invited north\n"
    assert f"aa ({HERE}:register_broken)" in err
    assert "built for another version" in err
    assert "gone (no.such:thing)" in err


def test_a_broken_group_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["heavy"], POINTS) == 2
    assert "was loaded though nobody asked" in capsys.readouterr().err


def test_a_command_is_loaded_when_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([], POINTS) == 0
    assert "Shows it." in capsys.readouterr().out
    assert cli.run(["demo", "--nodes", "7"], POINTS) == 0
    assert capsys.readouterr().out == "7 nodes\n"
    assert cli.run(["demo", "--help"], POINTS) == 0
    assert "Shows all of it." in capsys.readouterr().out
    assert cli.run(["gone"], POINTS) == 2
    assert f"'gone' ({HERE}:nothing)" in capsys.readouterr().err


def test_of_a_group_only_the_part_that_has_the_command_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = [point("a", "register_parts")]
    assert cli.run(["node", "doctor"], parts) == 2
    assert capsys.readouterr().err == "Error: nothing listens on 127.0.0.1:1\n"
    for words in (["node", "start"], ["node", "--help"], ["node", "stop"]):
        cli.run(words, parts)
        assert "was loaded though nobody asked" in capsys.readouterr().err


def test_each_part_adds_the_commands_that_it_names() -> None:
    tree = cli.collect(entry_points(group=cli.GROUP))
    named = 0
    for parts in tree._later.values():
        for part in parts:
            alone = typer.Typer()
            cli._load(part.fill)(alone)
            groups = {each.name for each in alone.registered_groups}
            added = {each.name for each in alone.registered_commands} | groups
            assert part.commands in (frozenset(), added), part
            named += bool(part.commands)
    assert named >= 6


def test_a_command_does_not_import_what_another_one_needs() -> None:
    script = (
        "import sys; from fedsec.cli import run; code = run(sys.argv[1:]); "
        "print(code, [each for each in ('fedsec_client.agent', 'sqlalchemy') if each in sys.modules])"
    )
    for words in (["node", "list", "--dir", "/no/such"], ["ca", "init", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1].endswith(" []"), done


def test_a_wrong_word_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["nodes"], POINTS) == 2
    assert "No such command 'nodes'" in capsys.readouterr().err


def test_alone_it_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([], POINTS) == 0
    out = capsys.readouterr().out
    assert "fedsec demo" in out
    assert "Nodes." in out


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    script = (
        "import sys, typer\nfrom fedsec import cli\nfrom fedsec.console import say, emit_json\n"
        "from importlib.metadata import EntryPoint\n"
        "def register(tree):\n"
        "    @tree.root.command('flood')\n"
        "    def flood(json: bool = False):\n"
        "        for n in range(100_000): emit_json(n, one_line=True) if json else say(n)\n"
        "    @tree.root.command('other')\n"
        "    def other(): pass\n"
        "sys.modules['flood'] = sys.modules['__main__']\n"
        "sys.exit(cli.run(sys.argv[1:], [EntryPoint('x', 'flood:register', cli.GROUP)]))\n"
    )
    (tmp_path / "flood.py").write_text(script)
    for options in ([], ["--json"]):
        command = [sys.executable, str(tmp_path / "flood.py"), "flood", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as flood:
            assert flood.stdout is not None
            assert flood.stderr is not None
            assert flood.stdout.readline() == b"0\n"
            flood.stdout.close()
            assert flood.stderr.read() == b""
            assert flood.wait() == 1


def test_help_starts_fast_and_imports_nothing_heavy() -> None:
    """By processor time, best of five: the machine may be busy, the command may not be slow."""
    script = (
        "import contextlib, io, json, sys\nfrom fedsec import cli\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n    code = cli.run(['--help'])\n"
        "heavy = {'torch', 'flwr', 'grpc', 'sqlalchemy', 'sklearn', 'numpy', 'pydantic'}\n"
        "print(json.dumps([code, out.getvalue(), sorted(heavy & set(sys.modules))]))\n"
    )
    took = []
    for _ in range(5):
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
    code, text, heavy = json.loads(done.stdout)
    assert done.stderr == ""
    assert code == 0
    assert heavy == []
    for group in ("ca", "server", "node", "person", "run", "plan", "demo", "version"):
        assert f"\n  {group} " in text
    assert min(took) < 0.4
