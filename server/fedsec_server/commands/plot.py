"""`fedsec run plot ID`: loss, figures of the sites and time, on the terminal and as a picture."""

from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import safe, say
from fedsec.errors import ConfigError, StateError
from fedsec_server.commands.history import History, read_history
from fedsec_server.commands.progress import node_names
from fedsec_server.commands.reach import CredentialsFile, Directory, reach
from fedsec_server.commands.run import RunId, find

PICTURES = {".png", ".svg", ".pdf"}

_PLOT = """\b
Examples:
  fedsec run plot last
  fedsec run plot 1267533327 -o run.png
"""


def fill(group: typer.Typer) -> None:
    """Adds the command to `fedsec run`."""
    group.command("plot", epilog=_PLOT)(plot)


def plot(
    run_id: RunId,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write a picture: .png, .svg or .pdf.", show_default=False
        ),
    ] = None,
    directory: Directory = None,
    credentials: CredentialsFile = None,
) -> None:
    """Draw a run: loss, how the model does at each site, time of a round."""
    if output is not None and output.suffix not in PICTURES:
        raise ConfigError(f"{output}: the name of a picture ends with .png, .svg or .pdf")
    way = reach(directory, credentials)
    number = find(way, run_id)
    history = read_history(way, number)
    if not history.seconds:
        raise StateError(f"run {number} is {history.run.state} and completed no round to draw")
    names = {node: safe(name, 40) for node, name in node_names(way).items()}
    _draw(history, names)
    if output is not None:
        from fedsec_server.commands.picture import draw_picture  # noqa: PLC0415 - matplotlib

        draw_picture(history, names, output)
        say(f"Written: {output}")


def _draw(history: History, names: dict[str, str]) -> None:
    from fedsec_server.commands.characters import drawings  # noqa: PLC0415 - plotext

    for text in drawings(history, names):
        typer.echo(text)
