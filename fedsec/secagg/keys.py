"""A node's keys of one round: how they are made, agreed and turned into what masks and seals need.

    pair secret = X25519(own private key, the other's public key)
    HKDF-SHA256(ikm, salt = transcript, info = label || ids) -> mask, seal and self keys

The transcript binds every derived key to the round, its members and its parameters; the label binds
it to one purpose; the ids to one pair and, for seals, to one direction.

Sources: RFC 7748 section 5 and 6.1; RFC 5869. Specification: docs/spec/secagg.md, section "Keys".
"""

import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedsec.errors import ProtocolError
from fedsec.secagg.codec import label, u8, u64
from fedsec.secagg.shamir import PRIME, Entropy

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_MASK, _SEAL, _SELF = label("mask"), label("seal"), label("self")
_SELF_COMMITMENT = label("self-commitment")
_HASH = SHA256()
_FIELD = 2**255 - 19
_PROBE = X25519PrivateKey.from_private_bytes(bytes(KEY_BYTES))


@dataclass(frozen=True, slots=True)
class Stream:
    """Key and first counter block of a mask's AES-128-CTR keystream. Never printed."""

    key: bytes = field(repr=False)
    counter: bytes = field(repr=False)

    @classmethod
    def of(cls, derived: bytes) -> "Stream":
        """Returns the stream of 32 derived bytes."""
        return cls(derived[:16], derived[16:])


def make_private(entropy: Entropy) -> int:
    """Returns a new X25519 private key as the number that is shared, below 2^255.

    It is clamped already, so that the number and the key are one to one.
    """
    raw = bytearray(entropy(KEY_BYTES))
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return int.from_bytes(raw, "little")


def make_seed(entropy: Entropy) -> int:
    """Returns a new seed of a self mask, uniform in [0, p)."""
    while True:
        seed = int.from_bytes(entropy(KEY_BYTES), "big")
        if seed < PRIME:
            return seed


def private_key(number: int) -> X25519PrivateKey:
    """Returns the key that `make_private` made or that shares gave."""
    return X25519PrivateKey.from_private_bytes(number.to_bytes(KEY_BYTES, "little"))


def public_of(number: int) -> bytes:
    """Returns the public half, 32 bytes."""
    return private_key(number).public_key().public_bytes_raw()


def check_exchangeable(public: bytes, peer: str) -> None:
    """Returns when a secret can be agreed with the owner of `public`.

    Raises:
        ProtocolError: ``bad-key``, it is of small order: every agreement with it is zero; or it is
            another writing of a key.
    """
    agree(_PROBE, public, peer)


def agree(own: X25519PrivateKey, public: bytes, peer: str) -> bytes:
    """Returns the pair secret, 32 bytes.

    Raises:
        ProtocolError: ``bad-key``, see `check_exchangeable`.
    """
    if int.from_bytes(public, "little") >= _FIELD:
        raise ProtocolError(peer, "bad-key", "its X25519 key is not below 2^255 - 19")
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ProtocolError(peer, "bad-key", "its X25519 key is of small order") from error


def mask_stream(secret: bytes, transcript: bytes, a: int, b: int, word_bits: int) -> Stream:
    """Returns the mask that nodes `a` and `b` have in common; their order does not matter."""
    low, high = min(a, b), max(a, b)
    return Stream.of(_derive(secret, transcript, _MASK + u8(word_bits) + u64(low) + u64(high)))


def self_stream(seed: int, transcript: bytes, node: int, word_bits: int) -> Stream:
    """Returns the mask that `node` alone makes from its seed."""
    material = seed.to_bytes(KEY_BYTES, "big")
    return Stream.of(_derive(material, transcript, _SELF + u8(word_bits) + u64(node)))


def seal_key(secret: bytes, transcript: bytes, source: int, target: int) -> bytes:
    """Returns the AES-256 key under which `source` seals its one message to `target`."""
    return _derive(secret, transcript, _SEAL + u64(source) + u64(target))


def commit_seed(seed: int, transcript: bytes, node: int) -> bytes:
    """Returns the commitment (32 bytes) to a self mask's seed."""
    body = transcript + u64(node) + seed.to_bytes(KEY_BYTES, "big")
    return hashlib.sha256(_SELF_COMMITMENT + body).digest()


def verify(public: bytes, signature: bytes, message: bytes, peer: str, what: str) -> None:
    """Returns when the owner of the Ed25519 key `public` signed `message`.

    Raises:
        ProtocolError: ``bad-signature``.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise ProtocolError(peer, "bad-signature", f"{what} is not signed by its key") from error


def _derive(material: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(_HASH, KEY_BYTES, salt, info).derive(material)
