"""`fedsec ca`: the federation's root."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, say, warn
from fedsec.errors import ConfigError
from fedsec.files import read_private
from fedsec.identity.authorities import show_fingerprint
from fedsec_server.init import ROOT_CERTIFICATE, check_passphrase, create_root

ENVIRONMENT = "FEDSEC_CA_PASSPHRASE"

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        show_default=False,
        help=f"Its first line is the passphrase of the root's key. Left out: {ENVIRONMENT}, or "
        "else you are asked.",
    ),
]

_EXAMPLE = """\b
Example:
  fedsec ca init /media/stick/root --federation hospitals.example
  fedsec server init /srv/fedsec --root /media/stick/root --host fed.hospitals.example
"""


def fill(group: typer.Typer) -> None:
    """Adds the commands of `fedsec ca`."""
    group.command("init", epilog=_EXAMPLE)(init)


def init(
    rootdir: Annotated[
        Path,
        typer.Argument(
            metavar="ROOTDIR", help="Made if need be, must be empty; best on a removable medium."
        ),
    ],
    federation: Annotated[
        str,
        typer.Option(
            help="The federation's name, in the form of a DNS name. It is in every certificate "
            "and cannot be changed later.",
        ),
    ] = "federation.example",
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Make a federation's root, apart from any coordinator.

    The root's key is encrypted by a passphrase of 12 or more characters. It is needed when a
    coordinator is made, and not between.
    """
    passphrase = read_passphrase(passphrase_file, new=True)
    root = create_root(rootdir, federation=federation, passphrase=passphrase, now=datetime.now(UTC))
    if json:
        emit_json(
            {
                "federation": federation,
                "certificate": str(rootdir / ROOT_CERTIFICATE),
                "fingerprint": root.fingerprint,
                "expires_at": root.certificate.not_valid_after_utc.timestamp(),
            }
        )
        return
    say(f"The root of {federation} is in {rootdir}, its key encrypted by your passphrase.")
    say(f"Fingerprint: {show_fingerprint(root.fingerprint)}")
    say("Tell it to the nodes' operators by another way than the invite, for")
    say("`fedsec node join --root-fingerprint`.")
    say(f"Next: fedsec server init DIR --root {rootdir} --host NAME; then take {rootdir} away.")


def read_passphrase(file: Path | None, *, new: bool = False) -> bytes:
    """Returns the passphrase of the root's key: from a file, the environment, or a prompt.

    Args:
        file: Its first line, if given.
        new: It will be set, so it must be long enough, and is asked for twice.

    Raises:
        ConfigError: It is too short, the file cannot be read, or there is nobody to ask.
    """
    if file is not None:
        lines = read_private(file, limit=4096).decode(errors="replace").splitlines()
        text = lines[0] if lines else ""
    elif ENVIRONMENT in os.environ:
        text = os.environ[ENVIRONMENT]
    else:
        text = _ask(new=new)
    if new:
        return check_passphrase(text)
    if not text:
        raise ConfigError("the passphrase of the root's key is empty")
    return text.encode()


def _ask(*, new: bool) -> str:
    if not sys.stdin.isatty():
        raise ConfigError(
            "nobody is there to be asked for the passphrase of the root's key; give "
            f"--passphrase-file FILE, or set {ENVIRONMENT}"
        )
    if new:
        warn("The root's key will be encrypted. Without the passphrase it is lost.")
    answer: str = typer.prompt(
        "Passphrase of the root's key", hide_input=True, confirmation_prompt=new
    )
    return answer
