"""`fedsec server init|start|renew-ca`: a coordinator is made, run and kept up."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, say, show
from fedsec.identity.authorities import issuer_of_kind, show_fingerprint
from fedsec.identity.names import Kind
from fedsec_server.commands.ca import PassphraseFile, read_passphrase
from fedsec_server.commands.renew_ca import RENEW_CA, renew_ca
from fedsec_server.commands.shape import facts
from fedsec_server.generations import load_generations
from fedsec_server.init import create_server
from fedsec_server.layout import find_coordinator
from fedsec_server.program import serve
from fedsec_server.settings import DEFAULT_PORT, EVERYWHERE

NewDirectory = Annotated[
    Path, typer.Argument(metavar="DIR", help="Made if need be, must be empty.")
]
Root = Annotated[
    Path,
    typer.Option(
        metavar="ROOTDIR",
        show_default=False,
        help="Where `fedsec ca init` made the root. It is read, and not needed afterwards.",
    ),
]
Host = Annotated[
    str,
    typer.Option(
        show_default=False,
        help="Name or IP address by which nodes reach this machine. It is in the "
        "coordinator's certificate and in every invite.",
    ),
]
Interface = Annotated[str, typer.Option(help="Address of the interface that nodes come to.")]
Port = Annotated[
    int,
    typer.Option(
        min=0,
        max=65_533,
        help="Of the first of the three listeners; the others follow. 0: any free ones.",
    ),
]

_INIT = f"""\b
Example:
  fedsec server init /srv/fedsec --root /media/stick/root --host fed.hospitals.example

It listens on three ports: {DEFAULT_PORT} for first contact of nodes, {DEFAULT_PORT + 1} for nodes,
{DEFAULT_PORT + 2}, on this machine only, for commands. server.toml in DIR holds these and all
other settings.
"""
_START = """\b
Example:
  fedsec server start /srv/fedsec

Stop it with Ctrl-C or SIGTERM. Its log is DIR/server.log, one JSON object per line.
"""


def fill(group: typer.Typer) -> None:
    """Adds the commands of `fedsec server`."""
    group.command("init", epilog=_INIT)(init)
    group.command("start", epilog=_START)(start)
    group.command("renew-ca", epilog=RENEW_CA)(renew_ca)


def init(
    directory: NewDirectory,
    *,
    root: Root,
    host: Host,
    listen: Interface = EVERYWHERE,
    port: Port = DEFAULT_PORT,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Make a coordinator: three issuing authorities from the root, settings, an empty database."""
    layout = create_server(
        directory,
        root_directory=root,
        passphrase=read_passphrase(passphrase_file),
        host=host,
        now=datetime.now(UTC),
        listen=listen,
        port=port,
    )
    generations = load_generations(layout, now=datetime.now(UTC)).of
    fingerprints = {kind.value: generations[kind].current.fingerprint for kind in Kind}
    federation, _ = issuer_of_kind(generations[Kind.NODE].current.certificate)
    if json:
        emit_json(
            {
                "directory": str(directory),
                "settings": str(layout.settings),
                "federation": federation,
                "fingerprints": fingerprints,
            }
        )
        return
    say(f"The coordinator of {federation} is in {directory}.")
    rows = [(f"{kind} CA", show_fingerprint(digits)) for kind, digits in fingerprints.items()]
    show(facts(rows))
    say(f"Settings, with explanations: {layout.settings}")
    say(f"Take {root} away from this machine. Next: fedsec server start {directory}")


def start(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            envvar="FEDSEC_SERVER_DIR",
            show_default=False,
            help="Of `fedsec server init`. Left out: the current directory.",
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Run the coordinator, until it is told to stop.

    It refuses to start while a root key, or a key that may be one, lies under DIR.
    """
    layout = find_coordinator(directory or Path())
    asyncio.run(serve(layout.directory, json=json))
