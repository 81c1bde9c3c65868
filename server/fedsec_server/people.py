"""People: how they get certificates, and what they need to reach the coordinator.

On the coordinator's machine, whoever can read the people's CA key is an admin anyway, so a command
there makes itself a certificate for five minutes. Elsewhere, a person holds a credentials file,
made by ``fedsec person add``: its key was made by that command and is known to nobody else.
"""

import getpass
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from fedsec.errors import ConfigError, IdentityError
from fedsec.files import read_private, write_private
from fedsec.identity.bundles import split_chain
from fedsec.identity.invites import split_address
from fedsec.identity.leaves import issue, key_pem, make_key, make_request
from fedsec.identity.names import ROLES_OF_KIND, Kind, Principal, Role, check_name
from fedsec.identity.principals import admit, principal_of
from fedsec_server.generations import load_issuer, servers_anchors
from fedsec_server.layout import Layout, Listening
from fedsec_server.settings import bare_host, is_wildcard

LOCAL_LIFETIME = timedelta(minutes=5)
LOCAL_PREFIX = "local-"  # of the names of people who act on the coordinator's own machine
_FORM = "fedsec-credentials-1"
_MAX_FILE = 64 << 10
_FIELDS = ("form", "address", "servers_ca_pem", "chain_pem", "key_pem")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a person's command needs to reach the coordinator.

    Args:
        address: ``host:port`` of the admin listener.
        servers_ca_pem: The CA that signed the coordinator's certificate, and its successor.
        chain_pem: The person's certificate, then the people's CA.
        key_pem: The private key.
    """

    address: str
    servers_ca_pem: bytes
    chain_pem: bytes
    key_pem: bytes = field(repr=False)

    def principal(self) -> Principal:
        """Returns whom the certificate speaks for; IdentityError if it is not a person's."""
        leaf, issuer = split_chain(self.chain_pem)
        return principal_of(leaf, issuer=issuer, kind=Kind.PERSON)

    def check(self, *, now: datetime) -> None:
        """Raises unless the certificate is valid at `now`, aware.

        Raises:
            IdentityError: ``expired`` or ``not-yet-valid``, with what to do. TLS would only say
                that the coordinator is unavailable.
        """
        principal = self.principal()
        try:
            admit(principal, now=now)
        except IdentityError as error:
            if error.code != "expired":
                raise
            raise IdentityError(
                error.code,
                f"{error.detail}; ask an admin for `fedsec person add {principal.name} "
                f"--role {principal.role}`",
            ) from error

    def encode(self) -> bytes:
        """Returns the content of a credentials file. It holds the private key."""
        texts = (_FORM, self.address, *(pem.decode() for pem in self._pems))
        return json.dumps(dict(zip(_FIELDS, texts, strict=True)), indent=1).encode()

    @property
    def _pems(self) -> tuple[bytes, bytes, bytes]:
        return self.servers_ca_pem, self.chain_pem, self.key_pem

    @staticmethod
    def decode(content: bytes, *, what: str) -> "Credentials":
        """Returns the credentials of a file's content; `what` names the file.

        Raises:
            ConfigError: It is no credentials file.
        """
        try:
            values = json.loads(content)
            form, address, servers_ca, chain, key = (str(values[name]) for name in _FIELDS)
            split_address(address)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{what} is no credentials file; `fedsec person add NAME --role ROLE` makes one"
            ) from error
        if form != _FORM:
            raise ConfigError(f"{what} is of form {form[:40]!r}, this program reads {_FORM!r}")
        return Credentials(address, servers_ca.encode(), chain.encode(), key.encode())

    def write(self, path: Path) -> None:
        """Writes the credentials file, mode 0600. Another credentials file is replaced.

        Raises:
            ConfigError: Something else is there already, or it cannot be written.
        """
        if path.exists():
            Credentials.decode(read_private(path, limit=_MAX_FILE), what=f"{path}, in the way,")
        write_private(path, self.encode())


def read_credentials(path: Path) -> Credentials:
    """Returns the credentials of a file that only this user can read; ConfigError otherwise."""
    return Credentials.decode(read_private(path, limit=_MAX_FILE), what=str(path))


def local_credentials(layout: Layout, *, now: datetime) -> Credentials:
    """Returns credentials of an admin for five minutes, made here, for a coordinator that runs.

    Raises:
        StateError: The coordinator does not run.
        ConfigError: This user cannot read the people's CA key.
        IdentityError: An authority has expired.
    """
    listening = Listening.read(layout)
    key = make_key()
    chain_pem = issue(
        load_issuer(layout, Kind.PERSON, now=now),
        make_request(key),
        kind=Kind.PERSON,
        name=local_name(),
        role=Role.ADMIN,
        lifetime=LOCAL_LIFETIME,
        now=now,
    )
    return Credentials(
        address=reachable(listening.addresses["admin"]),
        servers_ca_pem=servers_anchors(layout),
        chain_pem=chain_pem,
        key_pem=key_pem(key),
    )


def local_name() -> str:
    """Returns the name under which this machine's user appears in the log, e.g. ``local-root``."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError, ImportError):  # no such user in the password file, as in containers
        login = "unknown"
    return (LOCAL_PREFIX + re.sub(r"[^a-z0-9]+", "-", login.lower()))[:63]


def reachable(address: str) -> str:
    """Returns `address` with 127.0.0.1 in place of an address that stands for all interfaces."""
    port = address.rpartition(":")[2]
    return f"127.0.0.1:{port}" if is_wildcard(bare_host(address)) else address


def check_person(name: str, role: str) -> tuple[str, Role]:
    """Returns a person's name and role.

    Raises:
        ConfigError: The name is malformed or reserved, or there is no such role for people.
    """
    check_name(name)
    if name.startswith(LOCAL_PREFIX):
        raise ConfigError(
            f"name {name!r} begins with {LOCAL_PREFIX!r}, which is kept for commands on the "
            "coordinator's own machine; choose another"
        )
    allowed = sorted(ROLES_OF_KIND[Kind.PERSON])
    if role not in allowed:
        raise ConfigError(f"role {role[:80]!r} must be one of {', '.join(allowed)}")
    return name, Role(role)
