"""`fedsec plan check` and `fedsec plan example`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, safe, say
from fedsec.errors import ConfigError
from fedsec.files import read_public
from fedsec.plan import FederationPlan, toml_example
from fedsec.plan.federation import MAX_BYTES
from fedsec.plan.summary import summary
from fedsec.tasks.names import BUILT_IN


def fill(group: typer.Typer) -> None:
    """Adds the commands to the group `plan`."""
    group.command("check")(check)
    group.command("example")(example)


def check(
    file: Annotated[Path, typer.Argument(help="The plan, as TOML.")], *, as_json: Json = False
) -> None:
    """Check a plan: print what it says, or all that is wrong with it."""
    plan = read_plan(file)
    if as_json:
        emit_json({"digest": plan.digest, "plan": json.loads(plan.canonical_json())})
        return
    say(f"{file} is sound.")
    for subject, sentence in summary(plan):
        say(f"  {subject:<12} {safe(sentence)}")


def example() -> None:
    """Print a commented plan to start from: `fedsec plan example > my.plan.toml`."""
    typer.echo(toml_example(), nl=False)


def read_plan(file: Path) -> FederationPlan:
    """Returns the plan in `file`.

    Raises:
        ConfigError: It cannot be read, is wrong, or names a built-in task that does not exist.
    """
    try:
        text = read_public(file, limit=MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text: {error.reason}") from error
    plan = FederationPlan.parse(text)
    task = plan.task.name if plan.task is not None else ":"
    if ":" not in task and task not in BUILT_IN:
        known = ", ".join(f'"{name}"' for name in BUILT_IN)
        raise ConfigError(
            f'the plan: task.name = "{task}": allowed: {known}, or your own as "module:attribute"'
        )
    return plan
