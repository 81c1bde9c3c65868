"""The roster: which nodes a federation has and by which keys they sign, signed by its root.

    roster = "fedsec-roster-1" NUL || body || signature
    body   = text(federation) || u64(serial) || u64(not after) || u32(count) || members
    member = u64(node id) || text(SPIFFE id) || signing key (32)

Nodes that do not trust the coordinator take each other's keys from here: it relays the roster and
cannot make one. A node keeps the newest that it has seen and goes back to none before it.

Spec: docs/spec/roster.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.authorities import Authority, federation_of_root
from fedsec.identity.certificates import check_window, load_certificate
from fedsec.identity.names import Kind, check_federation, parse_spiffe
from fedsec.identity.signing import PUBLIC_BYTES, check_public
from fedsec.identity.times import show_time, whole_seconds

MAX_MEMBERS = 20_000
MAX_BYTES = 3 << 20  # of a signed roster; one of 20,000 members is shorter

_MAGIC = b"fedsec-roster-1\x00"
_LABEL = b"fedsec-v1/roster\x00"
_NUMBER = 48  # bytes of r and of s, over P-384
_SIGNATURE = 2 * _NUMBER
_LEAST_MEMBER = 8 + 1 + PUBLIC_BYTES  # bytes
_LAST_TIME = 253_402_300_799  # 9999-12-31 23:59:59 UTC
_LAST_SERIAL = 2**63 - 1
_LAST_ID = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Member:
    """One node.

    Args:
        node_id: By which messages name it, 1 to 2^64 - 1.
        spiffe_id: By which its certificates name it.
        signing_key: Ed25519 public key, 32 bytes.
    """

    node_id: int
    spiffe_id: str
    signing_key: bytes


@dataclass(frozen=True, slots=True)
class Roster:
    """The nodes of a federation for a time. Made by `read`, or to be signed by `sign`.

    Args:
        federation: Whose.
        serial: Higher than that of every roster before; 0 to 2^63 - 1.
        not_after: Last moment at which it holds, aware, whole seconds.
        members: By ascending node id, none twice.

    Raises:
        ConfigError: A value is out of range, a member is there twice, or a name or key is none.
    """

    federation: str
    serial: int
    not_after: datetime
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        check_federation(self.federation)
        if not 0 <= self.serial <= _LAST_SERIAL:
            raise ConfigError(
                f"the serial of a roster must be in 0..{_LAST_SERIAL}, got {self.serial}"
            )
        if whole_seconds(self.not_after) != self.not_after:
            raise ConfigError(f"not_after must be in whole seconds, got {self.not_after}")
        if not 1 <= len(self.members) <= MAX_MEMBERS:
            raise ConfigError(
                f"a roster must have 1 to {MAX_MEMBERS} members, got {len(self.members)}"
            )
        _check_members(self.federation, self.members)

    @property
    def keys(self) -> Mapping[int, bytes]:
        """The signing keys (32 bytes) by node id."""
        return {member.node_id: member.signing_key for member in self.members}


def sign(roster: Roster, root: Authority) -> bytes:
    """Returns the roster as it goes to the nodes, signed by the federation's root.

    Raises:
        ConfigError: The root is another federation's, or ends before the roster does.
    """
    federation = federation_of_root(root.certificate)
    if federation != roster.federation:
        raise ConfigError(f"the root is that of {federation}, the roster is of {roster.federation}")
    end = root.certificate.not_valid_after_utc
    if roster.not_after > end:
        raise ConfigError(
            f"the roster would hold until {show_time(roster.not_after)}, the root only until "
            f"{show_time(end)}"
        )
    body = _body(roster)
    r, s = decode_dss_signature(root.key.sign(_LABEL + body, ec.ECDSA(hashes.SHA384())))
    return _MAGIC + body + r.to_bytes(_NUMBER, "big") + s.to_bytes(_NUMBER, "big")


def read(signed: bytes, *, root_pem: bytes) -> Roster:
    """Returns the roster that the root has signed. Whether it still holds is for `check_current`.

    Raises:
        IdentityError: ``too-large``, ``malformed``, ``wrong-issuer`` or ``wrong-federation``.
    """
    if len(signed) > MAX_BYTES:
        raise IdentityError("too-large", f"the roster has {len(signed)} bytes, max {MAX_BYTES}")
    if not signed.startswith(_MAGIC) or len(signed) < len(_MAGIC) + _SIGNATURE:
        raise IdentityError("malformed", "this is no signed roster of version 1")
    body = signed[len(_MAGIC) : -_SIGNATURE]
    root = load_certificate(root_pem)
    federation = federation_of_root(root)
    _check_signature(root.public_key(), body, signed[-_SIGNATURE:])
    try:
        roster = _Fields(body).roster()
    except (ConfigError, ValueError) as error:
        raise IdentityError("malformed", f"the roster cannot be read: {error}") from error
    if roster.federation != federation:
        raise IdentityError(
            "wrong-federation", f"the roster is of {roster.federation}, the root of {federation}"
        )
    return roster


def check_current(roster: Roster, *, held: Roster | None, own: Member, now: datetime) -> None:
    """Returns where a node may go by this roster.

    Args:
        roster: As read.
        held: The newest that the node has ever gone by, None if there was none.
        own: The node itself, as it knows itself.
        now: Aware time.

    Raises:
        IdentityError: ``rolled-back``, an older one than the one held; ``equivocation``, another
            one with the same serial; ``expired``; ``not-on-roster``, the node is not a member;
            ``wrong-entry``, it is one under another name or key.
    """
    if held is not None and roster.serial < held.serial:
        raise IdentityError(
            "rolled-back",
            f"the roster has serial {roster.serial}, this node has seen {held.serial} already",
        )
    if held is not None and roster.serial == held.serial and roster != held:
        raise IdentityError(
            "equivocation", f"there are two rosters of serial {roster.serial} with other contents"
        )
    check_window(datetime.min.replace(tzinfo=UTC), roster.not_after, now=now, what="the roster")
    found = next((each for each in roster.members if each.node_id == own.node_id), None)
    if found is None:
        raise IdentityError(
            "not-on-roster", f"node {own.node_id} is not on the roster of serial {roster.serial}"
        )
    if found != own:
        raise IdentityError(
            "wrong-entry",
            f"the roster of serial {roster.serial} has another name or signing key for node "
            f"{own.node_id}",
        )


def _check_members(federation: str, members: tuple[Member, ...]) -> None:
    names: set[str] = set()
    keys: set[bytes] = set()
    before = 0
    for member in members:
        if not before < member.node_id <= _LAST_ID:
            raise ConfigError(
                f"node ids must be in 1..{_LAST_ID} and ascend, got {member.node_id} after {before}"
            )
        before = member.node_id
        try:
            domain, kind, _, _ = parse_spiffe(member.spiffe_id)
            check_public(member.signing_key)
        except IdentityError as error:
            raise ConfigError(f"node {member.node_id}: {error.detail}") from error
        if kind is not Kind.NODE or domain != federation:
            raise ConfigError(
                f"node {member.node_id}: {member.spiffe_id} is no node of {federation}"
            )
        if member.spiffe_id in names or member.signing_key in keys:
            raise ConfigError(f"node {member.node_id}: its name or signing key is there twice")
        names.add(member.spiffe_id)
        keys.add(member.signing_key)


def _body(roster: Roster) -> bytes:
    head = _text(roster.federation) + _u64(roster.serial)
    head += _u64(int(roster.not_after.timestamp())) + len(roster.members).to_bytes(4, "big")
    return head + b"".join(
        _u64(member.node_id) + _text(member.spiffe_id) + member.signing_key
        for member in roster.members
    )


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _text(value: str) -> bytes:
    encoded = value.encode("ascii")
    return len(encoded).to_bytes(1, "big") + encoded


def _check_signature(key: object, body: bytes, signature: bytes) -> None:
    r, s = (int.from_bytes(half, "big") for half in (signature[:_NUMBER], signature[_NUMBER:]))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise IdentityError("wrong-issuer", "the root's key cannot have signed a roster")
    try:
        key.verify(encode_dss_signature(r, s), _LABEL + body, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise IdentityError(
            "wrong-issuer", "the roster is not signed by this federation's root"
        ) from error


class _Fields:
    """Reads a body from front to back; ValueError where it is no body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._place = 0

    def roster(self) -> Roster:
        federation, serial, end = self._text(), self._number(8), self._number(8)
        if end > _LAST_TIME:
            raise ValueError(f"it ends in no year that there is ({end})")
        count = self._number(4)
        if count * _LEAST_MEMBER > len(self._body) - self._place:
            raise ValueError(f"it claims {count} members and is too short for them")
        members = tuple(
            Member(self._number(8), self._text(), self._take(PUBLIC_BYTES)) for _ in range(count)
        )
        if self._place != len(self._body):
            raise ValueError(f"{len(self._body) - self._place} bytes follow its end")
        return Roster(federation, serial, datetime.fromtimestamp(end, UTC), members)

    def _take(self, length: int) -> bytes:
        taken = self._body[self._place : self._place + length]
        if len(taken) != length:
            raise ValueError("it ends too early")
        self._place += length
        return taken

    def _number(self, length: int) -> int:
        return int.from_bytes(self._take(length), "big")

    def _text(self) -> str:
        return self._take(self._number(1)).decode("ascii")
