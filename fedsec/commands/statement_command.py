"""`fedsec privacy statement`."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from fedsec.commands.ledgers import FILE_NAME
from fedsec.commands.statements import markdown, statement, unescaped
from fedsec.console import Json, safe, say
from fedsec.errors import ConfigError
from fedsec.files import read_public, write_public
from fedsec.ledgerfile import LedgerFile
from fedsec.plan import FederationPlan
from fedsec.plan.federation import MAX_BYTES

LAST = "last"
NAME = "privacy-statement"
_LINE = 5000  # longest line shown, in characters

Run = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or 'last'.")]
Directory = Annotated[
    Path,
    typer.Option(
        "--dir", envvar="FEDSEC_SERVER_DIR", help="Of the coordinator, on its own machine."
    ),
]


def write_statement(
    run: Run,
    *,
    directory: Directory = Path(),
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory for the two files; that of the run."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write what a run guarantees to whom, as JSON and as Markdown, for an auditor."""
    place = _find(directory, run)
    plan = FederationPlan.parse(read_public(place / "plan.toml", limit=MAX_BYTES).decode())
    entries = LedgerFile(directory / FILE_NAME).entries()
    made = statement(plan, int(place.name), entries)
    to = output or place
    text, page = json.dumps(made, indent=2, allow_nan=False), markdown(made)
    write_public(to / f"{NAME}.json", f"{text}\n".encode())
    write_public(to / f"{NAME}.md", page.encode())
    if as_json:
        typer.echo(text)
        return
    for line in unescaped(page).splitlines():
        say(safe(line, _LINE))
    say(f"written to {to / NAME}.json and .md")


def _find(directory: Path, run: str) -> Path:
    """Returns the directory of a run.

    Raises:
        ConfigError: There is no such run, or no coordinator.
    """
    runs = directory / "runs"
    if not runs.is_dir():
        raise ConfigError(
            f"{directory} is no coordinator's directory: it holds no runs; name one with --dir"
        )
    known = [each for each in runs.iterdir() if each.name.isdigit()]
    if run == LAST and known:
        return max(known, key=_begun)
    for each in known:
        if each.name == run:
            return each
    if not known:
        raise ConfigError("no runs yet; submit one with `fedsec run submit PLAN.toml`")
    raise ConfigError(f"there is no run {run[:40]!r} in {directory}; see `fedsec run list`")


def _begun(place: Path) -> float:
    """Returns when a run began, in Unix seconds: its plan is written then and never changed.

    Its number does not tell: it is drawn at random.
    """
    try:
        return (place / "plan.toml").stat().st_mtime
    except OSError:
        return -math.inf
