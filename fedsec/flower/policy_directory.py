"""What a node of a plain Flower app goes by in malicious mode: a directory that its site made.

    DIR/signing.key.pem   the node's long-term signing key, mode 0600
    DIR/root.cert.pem     the federation's root, which the site compared with that of its holder
    DIR/roster            signed by the root; the site puts a newer one in its place
    DIR/roster.newest     the newest that this node has ever gone by; it goes back to none before it
    DIR/policy.toml       min_cohort, min_neighbours, min_threshold, max_attempts; may be missing

The node's own configuration names it, never the app or the coordinator:

    flower-supernode --node-config 'fedsec-policy="/etc/fedsec/policy"' ...

Spec: docs/spec/roster.md, section "Going by a roster".
"""

import os
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsec.errors import ConfigError, IdentityError, PolicyRefusal
from fedsec.files import (
    check_private_directory,
    make_private_directory,
    read_private,
    read_public,
    write_private,
    write_public,
)
from fedsec.identity.roster import MAX_BYTES, Member, Roster, check_current
from fedsec.identity.roster import read as read_roster
from fedsec.identity.signing import (
    load_signing_key,
    make_signing_key,
    public_bytes,
    signing_fingerprint,
    signing_key_pem,
)
from fedsec.secagg.parameters import Minima

POLICY = "fedsec-policy"
"""Key in ``node_config`` that names the directory."""

SIGNING_KEY, ROOT, ROSTER, NEWEST = (
    "signing.key.pem",
    "root.cert.pem",
    "roster",
    "roster.newest",
)
MINIMA = "policy.toml"
_MINIMA = {
    "min_cohort": "cohort",
    "min_neighbours": "neighbours",
    "min_threshold": "threshold",
    "max_attempts": "attempts",
}


class Held(NamedTuple):
    """What lies in a policy directory.

    Attributes:
        signer: The node's signing key.
        trusted: Signing keys by node id, from the signed roster.
        minima: Of the site.
    """

    signer: Ed25519PrivateKey
    trusted: Mapping[int, bytes]
    minima: Minima


def make(directory: Path, root_pem: bytes) -> bytes:
    """Makes the directory with a new signing key; returns the key's public half, 32 bytes.

    Raises:
        ConfigError: There is a key already, or the directory cannot be made.
    """
    make_private_directory(directory)
    if (directory / SIGNING_KEY).exists():
        raise ConfigError(f"{directory / SIGNING_KEY} is there already; a node keeps its key")
    key = make_signing_key()
    write_public(directory / ROOT, root_pem)
    write_private(directory / SIGNING_KEY, signing_key_pem(key))
    return public_bytes(key)


def read(directory: Path, node_id: int, *, now: datetime) -> Held:
    """Returns what the node goes by; keeps the roster, if it is newer than any before.

    Args:
        directory: As named in ``node_config``.
        node_id: By which Flower names this node.
        now: Aware time.

    Raises:
        PolicyRefusal: The roster is not one by which this node may go; says why.
        ConfigError: A file is missing, open to others, or cannot be read.
    """
    check_private_directory(directory)
    try:
        key = load_signing_key(read_private(directory / SIGNING_KEY))
        roster = _go_by(directory, key, node_id, now=now)
    except IdentityError as error:
        raise PolicyRefusal(f"{directory}: {error}") from error
    return Held(key, roster.keys, _read_minima(directory / MINIMA))


def _go_by(directory: Path, key: Ed25519PrivateKey, node_id: int, *, now: datetime) -> Roster:
    root_pem = read_public(directory / ROOT)
    signed = read_public(directory / ROSTER, limit=MAX_BYTES)
    roster, newest = read_roster(signed, root_pem=root_pem), directory / NEWEST
    held = None
    if os.path.lexists(newest):
        held = read_roster(read_public(newest, limit=MAX_BYTES), root_pem=root_pem)
    public = public_bytes(key)
    own = next((each for each in roster.members if each.signing_key == public), None)
    if own is None:
        raise IdentityError(
            "not-on-roster",
            f"this node's signing key {signing_fingerprint(public)} is not on the roster of serial "
            f"{roster.serial}",
        )
    own = Member(node_id, own.spiffe_id, public)  # under which id, Flower says and not the roster
    check_current(roster, held=held, own=own, now=now)
    if roster != held:
        write_public(newest, signed)
    return roster


def _read_minima(path: Path) -> Minima:
    if not os.path.lexists(path):  # a link to nowhere is a policy that cannot be read
        return Minima()
    try:
        table = tomllib.loads(read_public(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    for name, value in table.items():
        if name not in _MINIMA:
            raise ConfigError(f"{path}: unknown key {name!r}; there are {', '.join(_MINIMA)}")
        if type(value) is not int or value < 0:
            raise ConfigError(f"{path}: {name} must be a whole number >= 0, got {value!r}")
    return Minima(**{_MINIMA[name]: value for name, value in table.items()})
