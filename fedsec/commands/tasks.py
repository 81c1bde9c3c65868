"""`fedsec task new NAME` and `fedsec task list`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import examples, say
from fedsec.errors import ConfigError
from fedsec.files import write_public
from fedsec.tasks.names import BUILT_IN
from fedsec.tasks.template import files

_NEW = """\b
Example:
  fedsec task new ecg
  PYTHONPATH=ecg fedsec simulate ecg/plan.toml     tries it, on this machine
  pip install ./ecg                                on the coordinator and on each node
\b
In a plan: name = "ecg:task". In each node.toml: allowed_tasks = ["ecg:task"].
"""


def fill(group: typer.Typer) -> None:
    """Adds the commands to the group `task`."""
    group.command("new", epilog=_NEW)(new)
    group.command("list", epilog=examples("fedsec task list"))(list_tasks)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the package: a-z, 0-9 and _.")],
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the package is put.", show_default=False)
    ] = Path(),
) -> None:
    """Write a task of your own: a small package that runs, to be changed."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise ConfigError(f"{name!r}: the name of a package is a-z, 0-9 and _, a letter first")
    place = directory / name
    if place.exists():
        raise ConfigError(f"{place} exists; choose another name or --dir")
    for relative, text in files(name).items():
        path = place / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        write_public(path, text.encode())
    say(f"Written: {place}. Try it: PYTHONPATH={place} fedsec simulate {place / 'plan.toml'}")
    say(f'Then install it on the coordinator and each node; plans name it "{name}:task".')


def list_tasks() -> None:
    """List the built-in tasks."""
    for task in BUILT_IN:
        say(task)
