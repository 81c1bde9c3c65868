"""`fedsec node check|doctor` and `fedsec doctor`: is a node in order, does it get through?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, examples
from fedsec.errors import ConfigError
from fedsec_client.arguments import NodeDirectory, read_invite
from fedsec_client.checks import check_directory
from fedsec_client.doctor import examine
from fedsec_client.enrolment import DIRECTORY
from fedsec_client.findings import report
from fedsec_client.invite_checks import examine_invite
from fedsec_client.settings import FILE_NAME


def fill(group: typer.Typer) -> None:
    """Adds the commands that look at a node."""
    group.command("check", epilog=examples("fedsec node check /var/lib/fedsec-node"))(check)
    group.command("doctor", epilog=examples("fedsec node doctor /var/lib/fedsec-node"))(doctor)


def check(directory: NodeDirectory, *, json: Json = False) -> None:
    """Check a node's settings, apps, keys and file modes, without any connection."""
    _must_be_a_nodes(directory, "check")
    if not report(check_directory(directory, now=datetime.now(UTC)), json=json):
        raise typer.Exit(1)


def doctor(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Of the node.", show_default=False)
    ] = None,
    *,
    invite: Annotated[
        str | None,
        typer.Option(
            metavar="INVITE",
            show_default=False,
            help="Before a node has joined: look whether it could by this invite, and do not spend "
            'it; "-" for stdin.',
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Say why a node does not reach its coordinator, and what to do.

    Without DIR the current directory is taken.
    """
    now = datetime.now(UTC)
    if invite is not None:
        if directory is not None:
            raise ConfigError("give DIR of a node that has joined, or --invite, not both")
        if not report(examine_invite(read_invite(invite), now=now), json=json):
            raise typer.Exit(1)
        return
    place = directory or Path.cwd()
    _must_be_a_nodes(place, "doctor")
    if not report(examine(place, now=now), json=json):
        raise typer.Exit(1)


def _must_be_a_nodes(place: Path, command: str) -> None:
    """Refuses a place that holds nothing of a node: whatever was found there would mislead."""
    if (place / DIRECTORY).exists() or (place / FILE_NAME).exists():
        return
    if not place.is_dir():
        raise ConfigError(f"there is no directory {place}; is it mistyped?")
    raise ConfigError(
        f"{place} is not the directory of a node: it holds neither {FILE_NAME} nor {DIRECTORY}/; "
        f"name it: fedsec node {command} DIR, or join first: fedsec node join INVITE --dir DIR"
    )
