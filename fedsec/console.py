"""What every command prints with: tables, JSON, units, and text from peers made harmless.

Names and reasons that come from a peer pass through `safe` (and `table` does so by itself): an
escape sequence in them would otherwise move the reader's cursor and forge lines.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedsec.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_SECOND = 0.9995  # less is shown in milliseconds, and never as 1000 of them
_MINUTE = 59.95
_HOUR, _DAY = 3600, 86400
_PIPE_WIDTH = 200  # columns where the output is no terminal: nothing is cut off


def console() -> Console:
    """Returns a console on the present stdout that interprets neither markup nor emoji codes."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def examples(*lines: str) -> str:
    r"""Returns what ends a command's help.

    >>> examples("fedsec node list")
    '\x08\nExample:\n  fedsec node list\n'
    """
    heading = "Example:" if len(lines) == 1 else "Examples:"
    return "\n  ".join(["\b\n" + heading, *lines]) + "\n"


def safe(text: object, limit: int = 400) -> str:
    r"""Returns `text` on one line, without anything that a terminal would obey.

    Whatever Unicode does not call printable (control characters, line breaks, surrogates, marks
    that turn the direction of writing) is shown as an escape; beyond `limit` characters it is cut.

    >>> safe("node\x1b[2J\nall is well")
    'node\\x1b[2J\\nall is well'
    >>> safe("Zürich 1")
    'Zürich 1'
    """
    whole = str(text)
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in whole[:limit]
    )
    return shown if len(whole) <= limit else f"{shown}... ({len(whole)} characters)"


def say(line: object) -> None:
    """Prints one line that this program made up itself."""
    console().print(Text(str(line)), soft_wrap=True)


def warn(line: object) -> None:
    """Prints one line on stderr."""
    typer.secho(str(line), fg="yellow", err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> Table:
    """Returns a table whose cells are taken literally.

    Args:
        columns: Headings; one that begins with ``>`` is aligned to the right. All of them empty:
            no line of headings.
        rows: Per row one value per column; None shows as a dash. Each passes through `safe`.
        title: Shown above, if not empty.
    """
    made = Table(
        title=title or None,
        title_justify="left",
        show_header=any(columns),
        pad_edge=False,
        box=None,
    )
    for column in columns:
        right = column.startswith(">")
        made.add_column(
            Text(column.removeprefix(">")),
            justify="right" if right else "left",
            overflow="fold",
            header_style="bold",
        )
    for row in rows:
        made.add_row(*(Text("-" if value is None else safe(value)) for value in row))
    return made


def show(made: Table) -> None:
    """Prints a table; where it is not for a terminal, no line ends with spaces."""
    to = console()
    with to.capture() as drawn:
        to.print(made)
    lines = drawn.get().split("\n")
    sys.stdout.write("\n".join(lines if to.is_terminal else [line.rstrip() for line in lines]))


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal, on stderr, that a long reckoning goes on, and for how long.

    Yields what changes the words. When the block ends nothing of it is left.
    """
    from rich.progress import (  # noqa: PLC0415 - takes 20 ms, which few commands need
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    to = Console(stderr=True, markup=False, emoji=False, highlight=False)
    with Progress(*columns, console=to, transient=True, disable=not to.is_terminal) as shown:
        task = shown.add_task(safe(what), total=None)
        yield lambda words: shown.update(task, description=safe(words), refresh=True)


def emit_json(value: object, *, one_line: bool = False) -> None:
    """Prints `value` as ASCII JSON; numbers that JSON does not know become null.

    Args:
        value: Of dicts, lists, strings, numbers, booleans and None.
        one_line: For streams: one value per line, written out at once.
    """
    text = json.dumps(_finite(value), indent=None if one_line else 2, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case _:
            return value


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something that cannot be undone; returns only if the answer is yes.

    Args:
        question: Says what will happen, and to whom.
        yes: The operator's ``--yes``: do not ask.

    Raises:
        ConfigError: There is nobody to ask and `yes` is not set.
        typer.Abort: The answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody is there to ask; say --yes to do it.")
    typer.confirm(question, abort=True)


def format_bytes(count: float) -> str:
    """Returns a number of bytes in the largest fitting binary unit.

    >>> format_bytes(999), format_bytes(1 << 20), format_bytes(1536)
    ('999 B', '1.0 MiB', '1.5 KiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 - (0.05 if unit != "B" else 0):  # 1023.96 KiB is shown as 1.0 MiB
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_duration(seconds: float) -> str:
    """Returns a length of time, from seconds, with the precision that a reader wants.

    >>> [format_duration(s) for s in (0.0042, 3.21, 75, 7300, 200_000)]
    ['4.2 ms', '3.2 s', '1 min 15 s', '2 h 1 min', '2 d 7 h']
    """
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < _SECOND:
        return f"{1000 * seconds:.1f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // 60} min {whole % 60} s"
    if whole < _DAY:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def format_time(unix: float | None) -> str:
    """Returns a time in UTC from Unix seconds; "-" for None or 0, which mean "not yet".

    >>> format_time(1_700_000_000), format_time(0)
    ('2023-11-14 22:13:20 UTC', '-')
    """
    if not unix:
        return "-"
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
