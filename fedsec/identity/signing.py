"""A node's long-term Ed25519 signing key, and the proof at enrolment that the node holds it.

    transcript = "fedsec-v1/enrolment-proof" NUL
                 || u32(32) token hash || u32(n) signing request || u32(32) public key

The key signs what other nodes must believe, so it is bound once, to the invite (token hash), to
the TLS key (signing request) and to itself. The label keeps the proof from being used for, or
made of, anything else that this key signs.

Source: RFC 8032 section 5.1. Messages: docs/spec/enrolment.md, section "Proof of possession".
"""

import base64
import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedsec.errors import IdentityError

PUBLIC_BYTES = 32
PROOF_BYTES = 64

_LABEL = b"fedsec-v1/enrolment-proof\x00"
_FIELD_PRIME = 2**255 - 19
# y coordinates of the eight points of small order: under such a key a signature can be made that
# fits every message, so holding it proves nothing
_Y8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD_PRIME - 1, _Y8, _FIELD_PRIME - _Y8})


def make_signing_key() -> Ed25519PrivateKey:
    """Returns a new signing key."""
    return Ed25519PrivateKey.generate()


def signing_key_pem(key: Ed25519PrivateKey) -> bytes:
    """Returns the private key, PKCS #8 PEM, not encrypted: for a file of mode 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_signing_key(pem: bytes) -> Ed25519PrivateKey:
    """Returns the signing key of a PEM text.

    Raises:
        IdentityError: ``malformed`` or ``wrong-key``.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError("malformed", "the key is no PKCS #8 PEM without passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError("wrong-key", "the signing key is not Ed25519")
    return key


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """Returns the public half, 32 bytes."""
    return key.public_key().public_bytes_raw()


def signing_fingerprint(public: bytes) -> str:
    """Returns ``SHA256:`` and the unpadded base64 of SHA-256 of a public key, for people.

    Raises:
        IdentityError: ``wrong-key``, it is no Ed25519 public key.
    """
    check_public(public)
    digest = hashlib.sha256(public).digest()
    return "SHA256:" + base64.b64encode(digest).rstrip(b"=").decode("ascii")


def check_public(public: bytes) -> Ed25519PublicKey:
    """Returns the public key of 32 bytes.

    Raises:
        IdentityError: ``wrong-key``, of another length, not canonical, or of small order.
    """
    if len(public) != PUBLIC_BYTES:
        raise IdentityError(
            "wrong-key", f"signing key has {len(public)} bytes, want {PUBLIC_BYTES}"
        )
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    if y >= _FIELD_PRIME or y in _SMALL_ORDER_Y:
        raise IdentityError("wrong-key", "signing key is not canonical, or of small order")
    return Ed25519PublicKey.from_public_bytes(public)


def enrolment_transcript(token_hash: bytes, csr_der: bytes, public: bytes) -> bytes:
    """Returns the bytes that the proof of possession signs.

    Args:
        token_hash: SHA-256 of the invite's token, 32 bytes.
        csr_der: The signing request of the same call.
        public: The signing key's public half, 32 bytes.
    """
    return _LABEL + b"".join(
        len(part).to_bytes(4, "big") + part for part in (token_hash, csr_der, public)
    )


def prove(key: Ed25519PrivateKey, transcript: bytes) -> bytes:
    """Returns the proof (64 bytes) that the owner of `key` made `transcript`."""
    return key.sign(transcript)


def check_proof(public: bytes, transcript: bytes, proof: bytes) -> None:
    """Raises unless the owner of the key `public` (32 bytes) made `proof` over `transcript`.

    Raises:
        IdentityError: ``wrong-key``, see `check_public`; ``bad-proof``.
    """
    key = check_public(public)
    try:
        key.verify(proof, transcript)
    except InvalidSignature as error:
        detail = "the signature over the enrolment is not made by the signing key"
        raise IdentityError("bad-proof", detail) from error
