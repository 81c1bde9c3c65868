"""Names of principals: SPIFFE ids, the kinds and roles they carry, what operators may write.

    spiffe://FEDERATION/node/UUID            a node; UUID is 32 lower-case hex digits
    spiffe://FEDERATION/server/NAME          a listener of the coordinator
    spiffe://FEDERATION/person/ROLE/NAME     a person; ROLE is admin, operator or auditor

Source: SPIFFE-ID standard, sections 2.1-2.3; the profile here is narrower. Grammar:
docs/spec/enrolment.md.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fedsec.errors import ConfigError, IdentityError

MAX_FEDERATION = 64  # characters: the upper bound of an X.509 organisation name
MAX_DNS_NAME = 253  # characters
MAX_SPIFFE = 256  # characters; the longest id that the grammar allows has 152

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_UUID = re.compile(r"[0-9a-f]{32}")
_PREFIX = "spiffe://"


class Kind(StrEnum):
    """What a principal is. Each kind has an issuing authority of its own."""

    NODE = "node"
    SERVER = "server"
    PERSON = "person"


class Role(StrEnum):
    """What a principal may do: the column of the table of RPCs."""

    NODE = "node"
    SERVER = "server"
    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"


ROLES_OF_KIND: dict[Kind, frozenset[Role]] = {
    Kind.NODE: frozenset({Role.NODE}),
    Kind.SERVER: frozenset({Role.SERVER}),
    Kind.PERSON: frozenset({Role.ADMIN, Role.OPERATOR, Role.AUDITOR}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a certificate speaks for, and while which time. Made by `principal_of`.

    Args:
        federation: The trust domain.
        kind: What it is, as its issuing authority and its SPIFFE id both say.
        role: What it may do; one of those of its kind.
        name: 32 hex digits for a node, a login for a person, an id for a server.
        serial: Serial number of the certificate, 1 to 2^128 - 1.
        not_before: First moment of validity, aware UTC.
        not_after: Last moment of validity, aware UTC.

    Raises:
        ConfigError: The role is none of the kind's.
    """

    federation: str
    kind: Kind
    role: Role
    name: str
    serial: int
    not_before: datetime
    not_after: datetime

    def __post_init__(self) -> None:
        check_role(self.kind, self.role)

    @property
    def spiffe_id(self) -> str:
        """The identity, the same for every certificate of this principal."""
        return make_spiffe(self.federation, self.kind, self.role, self.name)

    @property
    def label(self) -> str:
        """Short text for logs and for people, e.g. ``"node 3f2a9c01"``."""
        match self.kind:
            case Kind.NODE:
                return f"node {self.name[:8]}"
            case Kind.SERVER:
                return f"server {self.name}"
            case Kind.PERSON:
                return f"{self.role} {self.name}"


def make_spiffe(federation: str, kind: Kind, role: Role, name: str) -> str:
    """Returns the SPIFFE id of these parts, which are taken as checked."""
    path = f"{kind}/{role}/{name}" if kind is Kind.PERSON else f"{kind}/{name}"
    return f"{_PREFIX}{federation}/{path}"


def parse_spiffe(uri: str) -> tuple[str, Kind, Role, str]:
    """Returns (federation, kind, role, name) of a SPIFFE id of this project's form.

    There is one spelling per identity: no upper case, percent sign, port, query, dot segment,
    doubled or trailing slash is accepted.

    Raises:
        IdentityError: ``bad-spiffe``, anything else than the grammar at the top.

    >>> parse_spiffe("spiffe://fed.example/person/auditor/ann")
    ('fed.example', <Kind.PERSON: 'person'>, <Role.AUDITOR: 'auditor'>, 'ann')
    """
    if len(uri) > MAX_SPIFFE:
        raise IdentityError("bad-spiffe", f"SPIFFE id has {len(uri)} characters, max {MAX_SPIFFE}")
    if not uri.startswith(_PREFIX):
        raise _bad_spiffe(uri)
    federation, *path = uri.removeprefix(_PREFIX).split("/")
    match path:
        case [Kind.NODE, name] if _UUID.fullmatch(name):
            kind, role = Kind.NODE, Role.NODE
        case [Kind.SERVER, name] if _NAME.fullmatch(name):
            kind, role = Kind.SERVER, Role.SERVER
        case [Kind.PERSON, Role.ADMIN | Role.OPERATOR | Role.AUDITOR as text, name] if (
            _NAME.fullmatch(name)
        ):
            kind, role = Kind.PERSON, Role(text)
        case _:
            raise _bad_spiffe(uri)
    if not is_federation(federation):
        raise _bad_spiffe(uri)
    return federation, kind, role, name


def check_name(text: str) -> str:
    """Returns `text`, the name that an operator gave to a node, server or person.

    Raises:
        ConfigError: It is not 1 to 63 of a-z, 0-9 and hyphen, beginning with no hyphen.
    """
    if not _NAME.fullmatch(text):
        raise ConfigError(
            f"name {text[:80]!r} must be 1 to 63 characters of a-z, 0-9 and hyphen, "
            "beginning with a letter or digit"
        )
    return text


def check_node_id(text: str) -> str:
    """Returns `text`, the name of a node inside its SPIFFE id.

    Raises:
        ConfigError: It is not 32 lower-case hex digits.
    """
    if not _UUID.fullmatch(text):
        raise ConfigError(f"node id {text[:80]!r} must be 32 lower-case hex digits")
    return text


def is_federation(text: str) -> bool:
    """True where `text` can name a federation."""
    return len(text) <= MAX_FEDERATION and is_dns_name(text)


def is_dns_name(text: str) -> bool:
    """True where `text` is a lower-case host name: labels of a-z, 0-9 and inner hyphens."""
    fits = len(text) <= MAX_DNS_NAME and _DNS_NAME.fullmatch(text) is not None
    # URI and address parsers take a last label of digits alone for the end of an IPv4 address
    return fits and not text.rpartition(".")[2].isdigit()


def check_federation(text: str) -> str:
    """Returns `text`, a federation's name in the form of a lower-case DNS name.

    Raises:
        ConfigError: It is no DNS name, has upper case or is longer than 64 characters.
    """
    if not is_federation(text):
        raise ConfigError(
            f"federation {text[:80]!r} must look like a lower-case DNS name of at most "
            f"{MAX_FEDERATION} characters, e.g. 'hospitals.example'"
        )
    return text


def check_role(kind: Kind, role: Role) -> Role:
    """Returns `role`, which a principal of `kind` may have.

    Raises:
        ConfigError: The role belongs to another kind.
    """
    allowed = ROLES_OF_KIND[kind]
    if role not in allowed:
        raise ConfigError(
            f"role {role} does not fit a {kind}, which may be: {', '.join(sorted(allowed))}"
        )
    return role


def _bad_spiffe(uri: str) -> IdentityError:
    return IdentityError(
        "bad-spiffe",
        f"{uri!r} is none of spiffe://FEDERATION/node/UUID, .../server/NAME, .../person/ROLE/NAME",
    )
