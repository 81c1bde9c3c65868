"""Who this node is: the files under `DIR/identity`, as one value.

    node.key.pem      TLS key, 0600; renewed together with the certificate
    node.cert.pem     certificate for it, then the nodes' CA
    servers-ca.pem    the CA whose servers this node talks to; while it is replaced, two
    root.pem          the federation's root, which signed both CAs
    signing.key.pem   Ed25519 key, 0600; made once, never renewed by itself
    enrolment.json    what the coordinator said at enrolment
    renewed.pem       0600, only while a renewal is being stored: key, certificate, CAs

A renewal replaces three files. They are written to `renewed.pem` first, in one step; whoever
loads the identity after a crash finishes the job from there.
"""

import json
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from fedsec.errors import ConfigError, IdentityError
from fedsec.files import (
    check_private_directory,
    make_private_directory,
    read_private,
    read_public,
    write_private,
    write_public,
)
from fedsec.identity.bundles import Bundle, check_renewal, split_chain
from fedsec.identity.certificates import MAX_BUNDLE, load_certificate
from fedsec.identity.leaves import load_key
from fedsec.identity.names import Kind, Principal
from fedsec.identity.principals import principal_of
from fedsec.identity.signing import load_signing_key, public_bytes, signing_fingerprint
from fedsec.identity.times import BACKDATE

DIRECTORY = "identity"
KEY, CHAIN, SERVERS_CA, ROOT = "node.key.pem", "node.cert.pem", "servers-ca.pem", "root.pem"
SIGNING_KEY, RECORD, RENEWED = "signing.key.pem", "enrolment.json", "renewed.pem"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----\n?", re.DOTALL)
_BLOCKS_OF_A_RENEWAL = range(4, 4 + MAX_BUNDLE)  # key, leaf, nodes' CA, servers' CA, successors


class Record(BaseModel):
    """What `enrolment.json` holds.

    Args:
        node_id: The node's number in headers.
        name: As the operator invited it.
        spiffe_id: As in every certificate of this node.
        fleet_address: ``host:port`` of the coordinator's port for nodes.
        root_pinned: The root's fingerprint was given by another way and compared.
        joined_at: Unix seconds.
        clock_offset_s: The coordinator's clock minus this machine's, when the present
            certificate was received; whole seconds, about.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    node_id: int
    name: str
    spiffe_id: str
    fleet_address: str
    root_pinned: bool
    joined_at: float
    clock_offset_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What TLS needs.

    Args:
        chain_pem: Own certificate, then the nodes' CA.
        key_pem: Its private key.
        servers_ca_pem: Whose servers are trusted.
    """

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    servers_ca_pem: bytes

    def bundle(self, root_pem: bytes) -> Bundle:
        """Returns the certificates together with the root, as checks want them."""
        return Bundle(self.chain_pem, self.servers_ca_pem, root_pem)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A node's identity. Every part fits the others; what the clock says is not looked at.

    Args:
        directory: The node's own; the identity lies in `identity` under it.
        record: As stored at enrolment.
        credentials: The present ones.
        root_pem: The federation's root.
        signing_fingerprint: Of the signing key, for people.
        principal: Whom the certificate speaks for, and while which time.
    """

    directory: Path
    record: Record
    credentials: Credentials
    root_pem: bytes
    signing_fingerprint: str
    principal: Principal

    @classmethod
    def load(cls, directory: Path) -> "Enrolment":
        """Returns the identity of the node that lives in `directory`.

        Raises:
            ConfigError: It has none, or files are missing or open to others.
            IdentityError: The parts do not belong together.
        """
        place = directory / DIRECTORY
        if not place.is_dir():
            raise ConfigError(f"{directory} has not joined; run `fedsec node join INVITE` first")
        check_private_directory(place)
        finish_renewal(place)
        record = _load_record(place / RECORD)
        credentials = Credentials(
            chain_pem=read_public(place / CHAIN),
            key_pem=read_private(place / KEY),
            servers_ca_pem=read_public(place / SERVERS_CA),
        )
        signing_key = load_signing_key(read_private(place / SIGNING_KEY))
        return cls(
            directory=directory,
            record=record,
            credentials=credentials,
            root_pem=read_public(place / ROOT),
            signing_fingerprint=signing_fingerprint(public_bytes(signing_key)),
            principal=_own_principal(credentials, record),
        )

    def check(self, *, now: datetime) -> None:
        """Raises unless all certificates hold at `now` and chain to the root.

        Raises:
            IdentityError: As `fedsec.identity.bundles.check_renewal` says.
        """
        key = load_key(self.credentials.key_pem)
        check_renewal(
            self.credentials.bundle(self.root_pem), key=key, before=self.principal, now=now
        )

    def renewed(self, credentials: Credentials, *, now: datetime) -> "Enrolment":
        """Returns the identity with new credentials, which were checked before."""
        leaf = load_certificate(credentials.chain_pem)
        offset = clock_offset(leaf.not_valid_before_utc, now)
        return replace(
            self,
            record=self.record.model_copy(update={"clock_offset_s": offset}),
            credentials=credentials,
            principal=_own_principal(credentials, self.record),
        )

    def store_renewal(self) -> None:
        """Puts the present credentials into the files, all of them or none.

        Raises:
            ConfigError: A file cannot be written.
        """
        place, own = self.directory / DIRECTORY, self.credentials
        write_private(place / RENEWED, own.key_pem + own.chain_pem + own.servers_ca_pem)
        finish_renewal(place)
        write_public(place / RECORD, _dump(self.record))


def is_joined(directory: Path) -> bool:
    """Whether the directory holds an identity."""
    return (directory / DIRECTORY).exists()


def clock_offset(not_before: datetime, now: datetime) -> float:
    """Returns the issuer's clock minus ours in seconds, for a certificate that just arrived."""
    return round((not_before + BACKDATE - now).total_seconds())


class Draft:
    """An identity in the making, in a hidden directory beside the place where it will stand.

    As a context manager it removes what was not committed.

    Args:
        directory: The node's own.

    Raises:
        ConfigError: The hidden directory cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._place = directory / DIRECTORY
        self._made = directory / f".{DIRECTORY}.{secrets.token_hex(8)}"
        make_private_directory(self._made)

    def write_keys(self, tls_key_pem: bytes, signing_key_pem: bytes) -> None:
        """Writes both private keys. Called before an invite is spent on them.

        Raises:
            ConfigError: They cannot be written.
        """
        write_private(self._made / KEY, tls_key_pem)
        write_private(self._made / SIGNING_KEY, signing_key_pem)

    def commit(self, record: Record, bundle: Bundle) -> None:
        """Writes the rest and makes the directory the node's identity, in one step.

        Raises:
            ConfigError: Another join was first, or the disk does not take it.
        """
        write_public(self._made / CHAIN, bundle.chain_pem)
        write_public(self._made / SERVERS_CA, bundle.servers_ca_pem)
        write_public(self._made / ROOT, bundle.root_pem)
        write_public(self._made / RECORD, _dump(record))
        try:
            self._made.rename(self._place)  # fails where a directory is that is not empty
        except OSError as error:
            raise ConfigError(
                f"cannot make {self._place}: {error.strerror}; has it joined meanwhile?"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._made, ignore_errors=True)


def finish_renewal(place: Path) -> None:
    """Completes a renewal that a crash cut short. Does nothing when there is none.

    Raises:
        ConfigError: A file cannot be read or written.
        IdentityError: ``malformed``: the file is not what `Enrolment.store_renewal` writes.
    """
    pending = place / RENEWED
    if not pending.exists():
        return
    blocks = [match.group() for match in _BLOCK.finditer(read_private(pending))]
    if len(blocks) not in _BLOCKS_OF_A_RENEWAL:
        raise IdentityError("malformed", f"{pending} is not a stored renewal; move it away")
    key, leaf, nodes_ca, *servers_cas = blocks
    write_private(place / KEY, key)
    write_public(place / CHAIN, leaf + nodes_ca)
    write_public(place / SERVERS_CA, b"".join(servers_cas))
    with suppress(FileNotFoundError):
        pending.unlink()


def _own_principal(credentials: Credentials, record: Record) -> Principal:
    leaf_pem, issuer_pem = split_chain(credentials.chain_pem)
    principal = principal_of(leaf_pem, issuer=issuer_pem, kind=Kind.NODE)
    if load_certificate(leaf_pem).public_key() != load_key(credentials.key_pem).public_key():
        raise IdentityError("wrong-key", f"{KEY} is not the key of the certificate in {CHAIN}")
    if principal.spiffe_id != record.spiffe_id:
        raise IdentityError(
            "wrong-name", f"{CHAIN} is for {principal.spiffe_id}, {RECORD} for {record.spiffe_id}"
        )
    return principal


def _load_record(path: Path) -> Record:
    try:
        return Record.model_validate_json(read_public(path))
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, e["loc"])) or "the file" for e in error.errors())
        raise ConfigError(f"{path} is damaged ({wrong})") from None


def _dump(record: Record) -> bytes:
    return (json.dumps(record.model_dump(), indent=2) + "\n").encode()
