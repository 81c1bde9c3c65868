"""`fedsec server renew-ca`: new issuing authorities, while nodes and people go on."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, say, show
from fedsec.errors import IdentityError
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.change_issuers import change_issuers, check_kinds
from fedsec_server.commands.ca import PassphraseFile, read_passphrase
from fedsec_server.commands.reach import Reach
from fedsec_server.commands.shape import as_mapping, authority_facts, facts
from fedsec_server.layout import Layout, NotRunningError, find_coordinator, load_settings
from fedsec_server.people import Credentials, local_credentials

RENEW_CA = """\b
Example:
  fedsec server renew-ca /srv/fedsec --root /media/stick/root
  fedsec server renew-ca /srv/fedsec --root /media/stick/root --only nodes --at-once

The issuing CAs live for a year. This makes new ones and lets the running coordinator take them up;
the former ones stay trusted until every certificate of before has been renewed, a little longer
than the longest lifetime in server.toml. Nobody has to do anything, and no run is disturbed. Only
an invite for which the CA for servers goes too early ends with it.

With --at-once the former ones count no longer, as when a key was stolen. Nodes whose CA went, or
the CA of whose coordinator went, must be revoked and invited again; people added again.
"""


Only = Annotated[
    list[str] | None,
    typer.Option(
        show_default=False,
        help="servers, nodes or people; may be given twice. Left out: all three.",
    ),
]


def renew_ca(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Of `fedsec server init`.")],
    *,
    root: Annotated[
        Path,
        typer.Option(
            metavar="ROOTDIR",
            show_default=False,
            help="Where `fedsec ca init` made the root. It is read, and not needed afterwards.",
        ),
    ],
    only: Only = None,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Trust the former CA no longer; see below.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Replace the issuing CAs by new ones from the root, without a restart."""
    layout, now = find_coordinator(directory), datetime.now(UTC)
    kinds = check_kinds(only or [])
    lifetimes = load_settings(layout).certificate_lifetimes
    try:  # before the change: the running coordinator does not know the new CA for people yet
        held = local_credentials(layout, now=now)
    except (NotRunningError, IdentityError):  # not there, or without a CA that it could know
        held = None
    secret = read_passphrase(passphrase_file)
    change_issuers(layout, root, secret, kinds=kinds, lifetimes=lifetimes, now=now, at_once=at_once)
    reply = _take_up(layout, held) if held else None
    if json:
        emit_json({"running": reply is not None, **(as_mapping(reply) if reply else {})})
        return
    if reply is None:
        say("The CAs are replaced. The coordinator does not run; it takes them up when it starts.")
    else:
        say("The CAs are replaced, and the running coordinator has taken them up.")
        show(facts(authority_facts(reply.authority, now=time.time())))
    say(f"Take {root} away from this machine.")


def _take_up(layout: Layout, held: Credentials) -> pb.ReloadAuthoritiesReply | None:
    """Tells the coordinator; None if it does not run."""
    way, request = Reach(lambda: held, layout), pb.ReloadAuthoritiesRequest()
    try:
        return way.ask("ReloadAuthorities", request, pb.ReloadAuthoritiesReply)
    except NotRunningError:
        return None
