"""Invites: what an operator hands to a node's operator, one printable line.

    fedsec-invite-1:BASE64URL(token || fingerprint || u8 length || address || checksum)

The token is a secret that can be spent once. The fingerprint pins the servers' CA, so that first
contact is no leap of faith. The checksum is against mistyping, not against malice.

Source: docs/spec/enrolment.md, section "Invite".
"""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field

from fedsec.errors import ConfigError
from fedsec.identity.leaves import check_host

TOKEN_BYTES = 32
FINGERPRINT_BYTES = 32
CHECKSUM_BYTES = 4
MAX_ADDRESS = 255  # bytes; its length is one byte
MAX_TEXT = 1024  # characters; the longest invite has 448

_FAMILY = "fedsec-invite-"
_PREFIX = "fedsec-invite-1:"
_LABEL = b"fedsec-v1/invite-checksum\x00"
_HEAD = TOKEN_BYTES + FINGERPRINT_BYTES + 1  # bytes before the address
_ASK_AGAIN = "copy the whole line again"


@dataclass(frozen=True, slots=True)
class Invite:
    """An invitation for one node.

    Args:
        address: ``host:port`` of the coordinator's enrolment listener; IPv6 in brackets.
        token: 32 secret bytes.
        servers_ca_fingerprint: SHA-256 of the DER of the servers' CA, 32 bytes.

    Raises:
        ConfigError: A field is out of range.
    """

    address: str
    token: bytes = field(repr=False)
    servers_ca_fingerprint: bytes

    def __post_init__(self) -> None:
        split_address(self.address)
        if len(self.token) != TOKEN_BYTES:
            raise ConfigError(f"an invite's token must have {TOKEN_BYTES} bytes")
        if len(self.servers_ca_fingerprint) != FINGERPRINT_BYTES:
            raise ConfigError(
                f"servers_ca_fingerprint must have {FINGERPRINT_BYTES} bytes, "
                f"got {len(self.servers_ca_fingerprint)}"
            )

    def encode(self) -> str:
        """Returns the one line that `decode` reads. It is a secret until it is spent."""
        address = self.address.encode("ascii")
        body = self.token + self.servers_ca_fingerprint + bytes([len(address)]) + address
        return _PREFIX + _encode_base64(body + _checksum(body))

    @staticmethod
    def decode(text: str) -> "Invite":
        """Returns the invite of one line. White space that mail programs put in is skipped.

        Raises:
            ConfigError: It is no invite, one of another version, cut short or mistyped. The
                sentence says which; none repeats what may hold the token.
        """
        line = re.sub(r"\s+", "", text) if len(text) <= 2 * MAX_TEXT else text
        if len(line) > MAX_TEXT:
            raise ConfigError(f"this is no invite: {len(line)} characters, max {MAX_TEXT}")
        encoded = _after_prefix(line)
        raw = _decode_base64(encoded)
        if len(raw) < _HEAD or len(raw) < _HEAD + raw[_HEAD - 1] + CHECKSUM_BYTES:
            raise ConfigError(f"the invite is cut short; {_ASK_AGAIN}")
        body, checksum = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:]
        fits = checksum == _checksum(body) and len(body) == _HEAD + body[_HEAD - 1]
        if not fits or _encode_base64(raw) != encoded:
            raise ConfigError(f"the invite is mistyped: its checksum does not fit; {_ASK_AGAIN}")
        return Invite(
            address=body[_HEAD:].decode("ascii", "replace"),
            token=body[:TOKEN_BYTES],
            servers_ca_fingerprint=body[TOKEN_BYTES : _HEAD - 1],
        )


def make_token() -> bytes:
    """Returns 32 fresh secret bytes."""
    return secrets.token_bytes(TOKEN_BYTES)


def token_hash(token: bytes) -> bytes:
    """Returns SHA-256 of a token (32 bytes): all that the coordinator keeps of it.

    A slow hash would add nothing, since a token has 256 random bits.
    """
    return hashlib.sha256(token).digest()


def split_address(address: str) -> tuple[str, int]:
    """Returns (host, port) of ``host:port``; the brackets of an IPv6 host are taken off.

    Raises:
        ConfigError: There is no host or port, or the port is not 1 to 65535.

    >>> split_address("[::1]:8443")
    ('::1', 8443)
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    fits = colon and len(address) <= MAX_ADDRESS and re.fullmatch(r"[1-9][0-9]{0,4}", port)
    if not fits or (":" in host) != bracketed or int(port) > 0xFFFF:  # noqa: PLR2004 - a port
        raise ConfigError(
            f"address {address[:80]!r} must be host:port with a port from 1 to 65535, "
            "e.g. 'fed.example:8443' or '[::1]:8443'"
        )
    bare = host[1:-1] if bracketed else host
    check_host(bare)
    return bare, int(port)


def _after_prefix(line: str) -> str:
    if line.startswith(_PREFIX):
        return line.removeprefix(_PREFIX)
    if other := re.match(_FAMILY + r"([0-9]{1,6}):", line):
        raise ConfigError(
            f"this invite is of version {other[1]}, this program reads version 1; "
            "update fedsec on the older side"
        )
    raise ConfigError(f"this is no invite: it must begin with {_PREFIX!r}")


def _decode_base64(text: str) -> bytes:
    """Returns the whole bytes of `text`; bits left over are the caller's to look at."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise ConfigError(
            f"the invite is mistyped: it has a character that no invite has; {_ASK_AGAIN}"
        )
    whole = text[:-1] if len(text) % 4 == 1 else text  # one character alone is no byte
    return base64.urlsafe_b64decode(whole + "=" * (-len(whole) % 4))


def _encode_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(_LABEL + body).digest()[:CHECKSUM_BYTES]
