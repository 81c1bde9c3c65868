"""`fedsec node join|start|check|doctor`: the node's side of nodes."""

import asyncio
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, safe, say, warn
from fedsec.errors import ConfigError
from fedsec.identity.authorities import fingerprint, show_fingerprint
from fedsec_client.agent import Agent, ExitCode
from fedsec_client.checks import check_directory
from fedsec_client.doctor import examine
from fedsec_client.enrolment import Enrolment
from fedsec_client.findings import report
from fedsec_client.invite_checks import examine_invite
from fedsec_client.join import join as join_federation
from fedsec_client.lock import locked
from fedsec_client.settings import NodeSettings

MAX_INVITE = 4096  # characters read from stdin

NodeDirectory = Annotated[
    Path, typer.Argument(metavar="DIR", help="Of the node.", show_default=False)
]

_JOIN = """\b
Example:
  fedsec node join fedsec-invite-1:... --dir /var/lib/fedsec-node
\b
The invite comes from the coordinator's operator (`fedsec node invite`) and works once. Read it
from stdin with "-" where the command line is visible to others. Whoever gave you the root's
fingerprint by another way, give it too: then nobody in between can pose as the federation.
"""
_START = """\b
Example:
  fedsec node start /var/lib/fedsec-node
\b
Exit codes: 0 told to end; 2 cannot start; 10 not accepted any more (revoked); 11 the certificate
expired beyond renewal; 12 the coordinator speaks another version; 13 another agent has this
node's identity. From 10 on, starting again does not help.
"""


def fill(group: typer.Typer) -> None:
    """Adds the node's commands to the group `fedsec node`."""
    group.command("join", epilog=_JOIN)(join)
    group.command("start", epilog=_START)(start)
    group.command("check")(check)
    group.command("doctor")(doctor)


def join(
    invite: Annotated[
        str, typer.Argument(metavar="INVITE", help='The line you were given, or "-" for stdin.')
    ],
    directory: Annotated[
        Path, typer.Option("--dir", help="Of the node; made if missing.", show_default=False)
    ],
    root_fingerprint: Annotated[
        str | None,
        typer.Option(
            metavar="HEX",
            help="SHA-256 of the federation's root; in quotes, if it has spaces. A wrong one "
            "spends nothing.",
            show_default=False,
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Make this machine a node of a federation."""
    enrolment = join_federation(_read_invite(invite), directory, root_fingerprint)
    record = enrolment.record
    if json:
        emit_json(
            {
                "node_id": record.node_id,
                "name": record.name,
                "spiffe_id": record.spiffe_id,
                "coordinator": record.fleet_address,
                "signing_fingerprint": enrolment.signing_fingerprint,
                "root_fingerprint": fingerprint(enrolment.root_pem),
                "root_pinned": record.root_pinned,
                "directory": str(directory),
            }
        )
        return
    say(f"Joined as {safe(record.name)}, of {safe(enrolment.principal.federation)}.")
    say(f"  signing key   {enrolment.signing_fingerprint}")
    say(f"  root          {show_fingerprint(fingerprint(enrolment.root_pem))}")
    say(f"  coordinator   {safe(record.fleet_address)}")
    say("Compare the signing key with what `fedsec node show` prints at the coordinator.")
    if not record.root_pinned:
        warn("Root not pinned: compare the root with the federation's, by another way.")
    say(f"Next: name your data in {directory}/node.toml, then")
    say(f"  fedsec node check {directory}")
    say(f"  fedsec node start {directory}")


def start(directory: NodeDirectory) -> None:
    """Run the node's agent until it is told to end (SIGTERM or Ctrl-C)."""
    settings = NodeSettings.load(directory)
    with locked(directory):
        enrolment = Enrolment.load(directory)
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
        )
        code = asyncio.run(_run(enrolment, settings))
    if code is not ExitCode.CLEAN:
        raise typer.Exit(code)


async def _run(enrolment: Enrolment, settings: NodeSettings) -> ExitCode:
    return await Agent(enrolment, settings).run()


def check(directory: NodeDirectory, *, json: Json = False) -> None:
    """Check a node's settings, apps, keys and file modes, without any connection."""
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
        if not report(examine_invite(_read_invite(invite), now=now), json=json):
            raise typer.Exit(1)
        return
    place = directory or Path.cwd()
    if not (place / "identity").exists() and not (place / "node.toml").exists():
        raise ConfigError(f"{place} is not the directory of a node; name it: fedsec doctor DIR")
    if not report(examine(place, now=now), json=json):
        raise typer.Exit(1)


def _read_invite(text: str) -> str:
    return sys.stdin.read(MAX_INVITE) if text == "-" else text
