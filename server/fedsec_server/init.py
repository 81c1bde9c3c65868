"""Making a federation's root, and a coordinator that stands under it.

The root is made once, in a directory of its own, best on a machine of its own. A coordinator
receives three issuing authorities from it and never sees its key again.
"""

import shutil
from datetime import datetime
from pathlib import Path

from fedsec.errors import ConfigError, IdentityError
from fedsec.files import (
    make_private_directory,
    read_private,
    read_public,
    write_private,
    write_public,
)
from fedsec.identity.authorities import (
    Authority,
    issuer_of_kind,
    load_authority,
    make_issuer,
    make_root,
)
from fedsec.identity.names import Kind, check_federation
from fedsec_server.layout import Layout
from fedsec_server.root_keys import refuse_root_key
from fedsec_server.settings import DEFAULT_PORT, EVERYWHERE, settings_text

__all__ = ["create_root", "create_server", "load_root", "refuse_root_key"]

MIN_PASSPHRASE = 12  # characters
ROOT_CERTIFICATE = "root.cert.pem"
ROOT_KEY = "root.key.pem"


def check_passphrase(passphrase: str) -> bytes:
    """Returns the passphrase as bytes.

    Raises:
        ConfigError: It is shorter than 12 characters.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise ConfigError(
            f"the passphrase has {len(passphrase)} characters, want {MIN_PASSPHRASE} or more; "
            "four random words are good"
        )
    return passphrase.encode()


def create_root(directory: Path, *, federation: str, passphrase: bytes, now: datetime) -> Authority:
    """Makes a federation's root: `root.cert.pem`, and `root.key.pem` encrypted by `passphrase`.

    Args:
        directory: Made if need be; must be empty.
        federation: The trust domain, e.g. ``"hospitals.example"``.
        passphrase: Not checked here: see `check_passphrase`.
        now: Aware time.

    Raises:
        ConfigError: The directory is not empty, or an argument is out of range.
    """
    check_federation(federation)
    _make_empty(directory)
    root = make_root(federation, now=now)
    write_private(directory / ROOT_KEY, root.key_pem(passphrase))
    write_public(directory / ROOT_CERTIFICATE, root.certificate_pem)
    return root


def load_root(directory: Path, passphrase: bytes) -> Authority:
    """Returns the root of a directory that `create_root` made.

    Raises:
        ConfigError: It holds no root.
        IdentityError: ``bad-passphrase``, or a file is damaged.
    """
    if not (directory / ROOT_KEY).is_file():
        raise ConfigError(
            f"{directory} holds no root key ({ROOT_KEY}); make a root with "
            f"`fedsec ca init {directory}`"
        )
    certificate, key = read_public(directory / ROOT_CERTIFICATE), read_private(directory / ROOT_KEY)
    try:
        return load_authority(certificate, key, passphrase)
    except IdentityError as error:
        raise IdentityError(error.code, f"{directory / ROOT_KEY}: {error.detail}") from error


def create_server(
    directory: Path,
    *,
    root_directory: Path,
    passphrase: bytes,
    host: str,
    now: datetime,
    listen: str = EVERYWHERE,
    port: int = DEFAULT_PORT,
) -> Layout:
    """Makes a coordinator's directory: three issuing authorities, settings, an empty database.

    If it fails, what it wrote is removed again.

    Args:
        directory: Made if need be; must be empty, and apart from `root_directory`.
        root_directory: Where `create_root` made the root.
        passphrase: Of the root's key.
        host: Name or IP address by which nodes reach the coordinator.
        now: Aware time.
        listen: Address of the interface that nodes come to.
        port: Of the first listener, the other two follow; 0: any free ones, at each start.

    Raises:
        ConfigError: The directories are not fit, or an argument is out of range.
        IdentityError: The root cannot be used: passphrase, expiry, damage.
    """
    check_apart(directory, root_directory)
    root = load_root(root_directory, passphrase)
    issuers = {kind: make_issuer(root, kind, now=now) for kind in Kind}
    federation, _ = issuer_of_kind(issuers[Kind.NODE].certificate)
    text, layout = settings_text(federation, host, listen=listen, port=port), Layout(directory)
    _make_empty(directory)
    try:
        _fill(layout, issuers, root.certificate_pem, text)
    except BaseException:
        for entry in directory.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        raise
    return layout


def _fill(layout: Layout, issuers: dict[Kind, Authority], root_pem: bytes, text: str) -> None:
    from fedsec_server.state.store import Store  # noqa: PLC0415 - `fedsec ca` has no use for SQL

    make_private_directory(layout.authorities)
    make_private_directory(layout.runs)
    write_public(layout.root_certificate, root_pem)
    for kind, issuer in issuers.items():
        write_private(layout.issuer_key(kind), issuer.key_pem(None))
        write_public(layout.issuer_certificate(kind), issuer.certificate_pem)
    Store.open(layout.database).close()
    write_public(layout.settings, text.encode())  # last: it is what makes it a coordinator's


def check_apart(directory: Path, root_directory: Path) -> None:
    """Raises ConfigError if one directory is, or lies under, the other. Links are followed."""
    server, root = directory.resolve(), root_directory.resolve()
    if server == root or root in server.parents or server in root.parents:
        raise ConfigError(
            f"the coordinator's directory {server} and the root's {root} must lie apart: neither "
            "under the other, best on different machines"
        )


def _make_empty(directory: Path) -> None:
    if directory.is_dir() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty; name a new directory")
    make_private_directory(directory)
