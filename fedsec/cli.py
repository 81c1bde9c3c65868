"""The `fedsec` command: made of what the installed packages register, errors as one line.

Each package names a function in the entry-point group ``fedsec.commands``; it receives the
`CommandTree` and adds its commands. So the library never imports the programs above it.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

import click
import typer
import typer.core
from typer.main import get_command

from fedsec import __version__
from fedsec.console import examples, safe, warn
from fedsec.errors import FedsecError

GROUP = "fedsec.commands"
REFUSED = 2  # exit code of a command that could not be carried out
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # no fault of the program
_LINE = 2000  # longest line of an error or of a command's help, in characters

_HELP = """Federated learning over mutual TLS.

\b
Examples:
  fedsec demo                              three defences in one round, on this machine
  fedsec simulate PLAN.toml                a plan with simulated nodes
  fedsec ca init ROOT                      the federation's root, apart from the coordinator
  fedsec server init DIR --root ROOT --host NAME
  fedsec server start DIR                  run the coordinator
  fedsec node invite clinic-1              one string that lets one machine join, once
  fedsec node join INVITE --dir DIR        on that machine
  fedsec node start DIR
  fedsec run submit PLAN.toml              train; then: run watch, run show, run model
"""

# Else typer imports what draws frames, for 0.1 s, and escapes the brackets of "[required]".
typer.core.HAS_RICH = False


class CommandGroup(typer.core.TyperGroup):
    """A group whose list of commands holds whole sentences, on as many lines as they take."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list; click's own cuts each sentence to what fits on its line."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        shown = [(name, each) for name, each in found if each is not None and not each.hidden]
        rows = [(name, each.get_short_help_str(_LINE)) for name, each in shown]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@dataclass(frozen=True)
class _Part:
    """What one package adds to a group: by which function, and, if it says so, which commands."""

    fill: str
    commands: frozenset[str]


@dataclass
class CommandTree:
    """The commands of all packages while they are collected.

    Every package may add to every group. A `register` function runs at each start of `fedsec`,
    whatever the command is, so it and what its module imports must be light: no torch, flwr, grpc.

    Attributes:
        root: Takes commands without a group, such as ``fedsec demo``.
        debug: The operator wants tracebacks.
    """

    root: typer.Typer = field(default_factory=lambda: _typer(_HELP))
    debug: bool = False
    _groups: dict[str, typer.Typer] = field(default_factory=dict)
    _later: dict[str, list[_Part]] = field(default_factory=dict)
    _commands: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def group(self, name: str, help: str) -> typer.Typer:  # noqa: A002 - typer's own word for it
        """Returns the group `name`, the same one for every caller; the first one's help counts."""
        if name not in self._groups:
            self._groups[name] = _typer(help)
            self.root.add_typer(self._groups[name], name=name, help=help)
        return self._groups[name]

    def extend(
        self,
        name: str,
        help: str,  # noqa: A002 - typer's own word for it
        fill: str,
        commands: Collection[str] = (),
    ) -> None:
        """Adds to the group `name` later, when somebody asks for that group.

        Args:
            name: Of the group.
            help: One line.
            fill: ``"module:function"``; imported then and called with the group's `typer.Typer`.
                So its module may import what it likes at the top.
            commands: All that it adds. A command that one part names is had from that part alone,
                without what the others import.
        """
        self.group(name, help)
        self._later.setdefault(name, []).append(_Part(fill, frozenset(commands)))

    def command(
        self,
        name: str,
        help: str,  # noqa: A002 - typer's own word for it
        function: str,
        *lines: str,
    ) -> None:
        """Adds a command without a group, imported when somebody asks for it.

        Args:
            name: Of the command.
            help: One line, for the list of commands.
            function: ``"module:function"`` with typer's parameters; its docstring is its own help.
            lines: Examples, which end that help.
        """
        self._commands[name] = (help, function, examples(*lines))

    def fill(self, words: Sequence[str]) -> None:
        """Loads those groups and commands that are named in `words`; the others stay a line."""
        asked = set(words)
        for name in self._later.keys() & asked:
            parts = self._later.pop(name)
            after = words[words.index(name) + 1 :][:1]
            for part in [each for each in parts if each.commands.intersection(after)] or parts:
                with _named(f"{name!r} ({part.fill})"):
                    _load(part.fill)(self._groups[name])
        for name, (line, reference, epilog) in self._commands.items():
            if name not in asked:
                self.root.command(name, help=line)(_placeholder)
                continue
            with _named(f"{name!r} ({reference})"):
                self.root.command(name, epilog=epilog)(_load(reference))


def _load(reference: str) -> Callable[..., object]:
    module, _, function = reference.partition(":")
    loaded: Callable[..., object] = getattr(import_module(module), function)
    return loaded


def _placeholder() -> None:
    """Stands in the list of commands for one that nobody asked for."""


def _typer(text: str) -> typer.Typer:
    return typer.Typer(
        cls=CommandGroup,
        help=text,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        no_args_is_help=True,
    )


def collect(points: Iterable[EntryPoint]) -> CommandTree:
    """Returns the tree of all commands; a package whose part fails is named and left out."""
    tree = CommandTree()
    _add_root_options(tree)
    for point in sorted(points, key=lambda point: point.name):
        with _named(f"{point.name} ({point.value})"):
            point.load()(tree)
    return tree


@contextmanager
def _named(part: str) -> Iterator[None]:
    """Reports what goes wrong inside, names `part`, and goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - somebody else's package may fail in any way
        reason = safe(f"{type(error).__name__}: {error}")
        warn(f"Warning: the commands of {part} are missing: {reason}")


def _add_root_options(tree: CommandTree) -> None:
    @tree.root.callback(invoke_without_command=True, no_args_is_help=False, help=_HELP)
    def options(
        context: typer.Context,
        *,
        debug: Annotated[
            bool, typer.Option("--debug", help="Show where in the program an error arose.")
        ] = False,
        version: Annotated[
            bool, typer.Option("--version", help="Print fedsec's version; see `fedsec version`.")
        ] = False,
    ) -> None:
        tree.debug = debug
        if version:
            typer.echo(f"fedsec {__version__}")
            raise typer.Exit
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())


def run(arguments: Sequence[str], points: Iterable[EntryPoint] | None = None) -> int:
    """Carries out one command line.

    Args:
        arguments: Without the program's name.
        points: Where the commands come from; by default every installed package.

    Returns:
        The exit code: 0 done; 1 the answer was no, or nobody reads the output any more;
        2 refused, or wrong usage; 130 interrupted.
    """
    tree = collect(entry_points(group=GROUP) if points is None else points)
    tree.fill(arguments)
    try:
        get_command(tree.root).main(args=list(arguments), prog_name="fedsec")
    except FedsecError as error:
        if tree.debug:
            traceback.print_exception(error)
        _complain(error)
        return REFUSED
    except OSError as error:
        if tree.debug or error.errno not in _DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _complain(FedsecError(f"{where}the disk does not take it: {error.strerror}"))
        return REFUSED
    except SystemExit as end:  # how typer ends, also after success
        return end.code if isinstance(end.code, int) else 0


def _complain(error: FedsecError) -> None:
    first, *more = str(error).splitlines() or [type(error).__name__]
    lines = [f"Error: {safe(first, _LINE)}", *(f"  {safe(line, _LINE)}" for line in more)]
    color = False if "NO_COLOR" in os.environ else None
    typer.secho("\n".join(lines), fg="red", err=True, color=color)


def main() -> None:
    """Entry point of the `fedsec` command."""
    sys.exit(run(sys.argv[1:]))
