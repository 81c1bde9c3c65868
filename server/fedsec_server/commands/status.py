"""`fedsec server status`: does the coordinator run, and what has it to do?"""

import time
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, format_time, safe, say, show
from fedsec.errors import ConfigError
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.reach import CredentialsFile, Directory, on_command_line, reach
from fedsec_server.commands.shape import as_mapping, authority_facts, facts, moment
from fedsec_server.layout import NotRunningError

_ANSWER_IS_NO = 1

_STATUS = """\b
Examples:
  fedsec server status /srv/fedsec
  fedsec server status --credentials bob.json

Exit code: 0 it runs, 1 it does not.
"""


def fill(group: typer.Typer) -> None:
    """Adds `fedsec server status`."""
    group.command("status", epilog=_STATUS)(status)


def status(
    place: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", show_default=False, help="As --dir says it."),
    ] = None,
    *,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Say whether the coordinator runs, and what it has to do."""
    if place is not None and any(on_command_line(each) for each in ("directory", "credentials")):
        raise ConfigError("give only one of DIR, --dir and --credentials")
    try:
        reply = reach(place or directory, credentials).ask(
            "Status", pb.StatusRequest(), pb.StatusReply
        )
    except NotRunningError as error:
        if json:
            emit_json({"running": False, "reason": str(error)})
        else:
            say(safe(error))
        raise typer.Exit(_ANSWER_IS_NO) from error
    if json:
        emit_json({"running": True, **as_mapping(reply)})
        return
    now = time.time()
    rows = [
        ("federation", reply.federation),
        ("software", reply.software),
        ("running since", format_time(reply.started_at)),
        ("nodes", f"{reply.nodes_enrolled} enrolled, {reply.nodes_connected} connected"),
        ("active runs", reply.runs_active),
        ("its certificate expires", moment(reply.certificate_expires_at, now=now)),
        *authority_facts(reply.authority, now=now),
    ]
    show(facts(rows))
