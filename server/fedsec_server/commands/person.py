"""`fedsec person add|list|revoke`: who may give commands from other machines."""

from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, examples, format_time, safe, say, show, table, warn
from fedsec.identity.leaves import key_pem, make_key, make_request
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.reach import CredentialsFile, Directory, reach
from fedsec_server.commands.shape import as_mapping
from fedsec_server.people import Credentials, check_person
from fedsec_server.settings import LOOPBACK, bare_host

_ADD = """\b
Example:
  fedsec person add ann --role operator -o ann.json
  fedsec run list --credentials ann.json

\b
Roles:
  admin     everything, nodes and people included
  operator  submits, stops and watches runs, takes models and records of nodes
  auditor   sees nodes, runs and events; changes nothing, takes no model

The file holds a private key that was made by this command and is known to nobody else. It is
good for the hours that server.toml says; afterwards, add the person again, to the same file.
"""

_REVOKE = """\b
Example:
  fedsec person revoke ann --reason "laptop lost"

Every certificate that was given to the person is refused from now on, connections end within a
second. It holds for what is out: `fedsec person add` gives the same person a new one.
"""


def fill(group: typer.Typer) -> None:
    """Adds the commands of `fedsec person`."""
    group.command("add", epilog=_ADD)(add)
    group.command("list", epilog=examples("fedsec person list --dir /srv/fedsec"))(list_people)
    group.command("revoke", epilog=_REVOKE)(revoke)


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the person: a-z, 0-9, hyphen.")],
    *,
    role: Annotated[
        str, typer.Option(show_default=False, help="What the person may do; see below.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            help="The credentials file to write, mode 0600. Left out: NAME.json.",
        ),
    ] = None,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Give a person a certificate, and write the credentials file that commands take."""
    check_person(name, role)
    path = output or Path(f"{name}.json")
    key = make_key()
    request = pb.AddPersonRequest(name=name, role=role, csr_der=make_request(key))
    reply = reach(directory, credentials).ask("AddPerson", request, pb.AddPersonReply)
    Credentials(reply.address, reply.servers_ca_pem, reply.chain_pem, key_pem(key)).write(path)
    if json:
        told = {"name": name, "role": role, "file": str(path), "address": reply.address}
        emit_json({**told, "expires_at": reply.expires_at})
        return
    say(f"{safe(name)} may act as {role} until {format_time(reply.expires_at)}: {path}")
    say(f"Use: fedsec run list --credentials {path}, or set FEDSEC_CREDENTIALS={path}")
    if bare_host(reply.address) in LOOPBACK:
        warn(
            f"Commands are taken at {reply.address} only, so this file is of use on that machine "
            "alone. For others, set admin in [listen] of server.toml and restart the coordinator."
        )


def list_people(
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """List who may give commands from other machines, and until when."""
    request = pb.ListPeopleRequest()
    reply = reach(directory, credentials).ask("ListPeople", request, pb.ListPeopleReply)
    if json:
        emit_json([as_mapping(person) for person in reply.person])
        return
    if not reply.person:
        say("Nobody holds a certificate; give one with `fedsec person add NAME --role ROLE`.")
        return
    rows = [
        (
            person.name,
            person.role,
            "revoked" if person.revoked else "good",
            format_time(person.certificate_expires_at),
            person.serial,
        )
        for person in reply.person
    ]
    show(table(["name", "role", "state", "certificate until", "serial"], rows))


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the person.")],
    *,
    role: Annotated[
        str, typer.Option(help="In this role alone. Left out: in every role.", show_default=False)
    ] = "",
    reason: Annotated[str, typer.Option(help="Kept in the log, shown to nobody else.")] = "",
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Void the certificates that a person holds, now."""
    request = pb.RevokePersonRequest(name=name, role=role, reason=reason)
    reply = reach(directory, credentials).ask("RevokePerson", request, pb.RevokePersonReply)
    if json:
        emit_json({"name": name, **as_mapping(reply)})
        return
    what = "certificate is" if reply.certificates == 1 else "certificates are"
    say(f"{reply.certificates} {what} void that {safe(name)} held.")
