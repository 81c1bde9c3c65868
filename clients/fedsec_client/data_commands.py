"""`fedsec node data check NAME`: reads a data set as a worker would, and says what it found.

It prints shapes, names and counts, and never a value: who sees the screen may not be allowed to
see the records.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsec.cli import CommandGroup
from fedsec.console import Json, emit_json, examples, safe, say, show, table
from fedsec.data.files import anchored
from fedsec.data.reference import reference_page
from fedsec.data.settings import CONNECTORS
from fedsec.errors import ConfigError, DataError
from fedsec_client.settings import FILE_NAME, DataSet, NodeSettings

if TYPE_CHECKING:
    from fedsec.data.summary import Summary
    from fedsec.plan import FederationPlan

MAX_NAMED = 60  # inputs in one cell

_CHECK = """\b
Examples:
  fedsec node data check heart --dir /var/lib/fedsec-node
  fedsec node data check heart --plan plan.toml
\b
Exit codes: 0 the data set can be used; 1 it cannot; 2 there is no such data set.
"""


def fill(group: typer.Typer) -> None:
    """Adds the group `data` to `fedsec node`."""
    data = typer.Typer(cls=CommandGroup, no_args_is_help=True, rich_markup_mode=None)
    data.callback()(_group)
    data.command("check", epilog=_CHECK)(check)
    data.command("reference", epilog=examples("fedsec node data reference > data.md"))(reference)
    group.add_typer(data, name="data")


def _group() -> None:
    """The site's data sets."""


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the table [data.NAME].")],
    directory: Annotated[
        Path,
        typer.Option("--dir", help="Of the node. Left out: the current one.", show_default=False),
    ] = Path(),
    plan: Annotated[
        Path | None,
        typer.Option(help="Does the data set fit this plan?", show_default=False),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Read a data set: its shape, classes and missing values, or what is wrong with it.

    Problems name file, row and column. No value is ever printed.
    """
    options = anchored(_table(NodeSettings.load(directory), name).options, directory)
    wanted = None if plan is None else _read_plan(plan)
    try:
        summary = _summary(options, wanted)
        problems = [] if wanted is None else _misfits(wanted, options, name, str(plan))
    except DataError as error:
        _tell(DataError(error.detail, name).args[0].splitlines(), None, json=json)
        raise typer.Exit(1) from None
    _tell(problems, summary, json=json)
    if problems:
        raise typer.Exit(1)
    if plan is not None and not json:
        say(f"It fits {plan}.")


def reference() -> None:
    """Print every key of a table [data.NAME]: what it says, what is allowed, its default."""
    typer.echo(reference_page(), nl=False)


def _table(settings: NodeSettings, name: str) -> DataSet:
    if name not in settings.data:
        known = ", ".join(sorted(settings.data)) or "none"
        raise ConfigError(f"{FILE_NAME} has no table [data.{name}]; data sets there: {known}")
    data = settings.data[name]
    if data.connector not in CONNECTORS:
        known = ", ".join(f'"{each}"' for each in CONNECTORS)
        raise ConfigError(
            f'[data.{name}] connector = "{data.connector}": only these read files: {known}'
        )
    return data


def _read_plan(file: Path) -> "FederationPlan":
    from fedsec.commands.plans import read_plan  # noqa: PLC0415 - numpy, for this option only

    return read_plan(file)


def _summary(options: Mapping[str, object], plan: "FederationPlan | None") -> "Summary":
    """Returns what may be told of a data set.

    Raises:
        DataError: It cannot be used.
    """
    from fedsec.data.reading import read  # noqa: PLC0415 - pyarrow; `fedsec node start` comes by
    from fedsec.data.summary import summarise  # noqa: PLC0415 - as above
    from fedsec.tasks.partition import part_of  # noqa: PLC0415 - as above

    settings, records = read(options)
    mine = records.take(part_of(settings, records))
    data = None if plan is None else plan.data
    classes = None if data is None else data.classes is not None
    return summarise(records, mine, settings.test, classes=classes)


def _misfits(
    plan: "FederationPlan", options: Mapping[str, object], name: str, file: str
) -> list[str]:
    """Returns why the data set does not fit the plan, which is in `file`.

    Raises:
        ConfigError: The plan is wrong.
        DataError: The records do not fit it.
    """
    from fedsec.tasks.table import load_task  # noqa: PLC0415 - torch, for this option only

    task, _ = plan.learning
    if task.data != name:
        return [f'{file} asks for the data set "{task.data}", not for "{name}"']
    try:
        load_task(task.name, plan.data).load(options)
    except DataError:
        raise
    except ConfigError as error:
        return [f"[data.{name}] {error}"]
    return []


def _tell(problems: list[str], summary: "Summary | None", *, json: bool) -> None:
    if json:
        known = asdict(summary) if summary is not None else {}
        emit_json({"usable": not problems, "problems": problems, **known})
        return
    if summary is not None:
        show(table(["", ""], _rows(summary)))
    for line in problems:
        indent = "  " if line.startswith(" ") else ""
        say(indent + safe(line.strip(), 1000))


def _rows(found: "Summary") -> Iterator[tuple[str, str]]:
    dropped = found.read - found.used
    yield "records", f"{found.used}" + (f", {dropped} left out" if dropped else "")
    of = "" if found.train + found.test == found.used else ", of this node's part of them"
    yield "split", f"{found.train} to train on, {found.test} to test on{of}"
    if found.inputs:
        named = ", ".join(found.inputs[:MAX_NAMED])
        more = f" and {len(found.inputs) - MAX_NAMED} more" * (len(found.inputs) > MAX_NAMED)
        yield "inputs", f"{len(found.inputs)}: {named}{more}"
    else:
        yield "inputs", "images of " + " x ".join(map(str, found.shape))
    if found.classes:
        counts = (f"{count} of class {index}" for index, count in enumerate(found.classes))
        yield "label", ", ".join(counts)
    else:
        yield "label", "a number"
    missing = (f"{name} {count}" for name, count in found.missing.items())
    yield "missing", ", ".join(missing) or "none"
    if found.constant:
        yield "constant", f"{', '.join(found.constant)}: the same in every record"
