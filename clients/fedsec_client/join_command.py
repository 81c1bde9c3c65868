"""`fedsec node join`: this machine becomes a node."""

from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, safe, say, warn
from fedsec.identity.authorities import fingerprint, show_fingerprint
from fedsec_client.arguments import read_invite
from fedsec_client.enrolment import Enrolment
from fedsec_client.join import join as join_federation

_JOIN = """\b
Example:
  fedsec node join fedsec-invite-1:... --dir /var/lib/fedsec-node
\b
The invite comes from the coordinator's operator (`fedsec node invite`) and works once. Read it
from stdin with "-" where the command line is visible to others. Whoever gave you the root's
fingerprint by another way, give it too: then nobody in between can pose as the federation.
"""


def fill(group: typer.Typer) -> None:
    """Adds `fedsec node join`."""
    group.command("join", epilog=_JOIN)(join)


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
    enrolment = join_federation(read_invite(invite), directory, root_fingerprint)
    if json:
        emit_json(_facts(enrolment, directory))
    else:
        _tell(enrolment, directory)


def _facts(enrolment: Enrolment, directory: Path) -> dict[str, object]:
    record = enrolment.record
    return {
        "node_id": record.node_id,
        "name": record.name,
        "spiffe_id": record.spiffe_id,
        "coordinator": record.fleet_address,
        "signing_fingerprint": enrolment.signing_fingerprint,
        "root_fingerprint": fingerprint(enrolment.root_pem),
        "root_pinned": record.root_pinned,
        "directory": str(directory),
    }


def _tell(enrolment: Enrolment, directory: Path) -> None:
    """Says who the node is now, what to compare, and what comes next."""
    record = enrolment.record
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
