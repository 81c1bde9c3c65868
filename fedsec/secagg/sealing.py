"""Shares sealed to their holders: AES-256-GCM under a key for one message in one direction.

Each share is also committed to in the open, by its owner's signature, so that of a holder that
returns another share and an owner that gave a bad one it is known which of them lied.

Specification: docs/spec/secagg.md, section "Sealed shares".
"""

import hashlib
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedsec.errors import ProtocolError
from fedsec.secagg.codec import label, u8, u32, u64
from fedsec.secagg.shamir import PRIME, SHARE_BYTES

SEALED_BYTES = 2 * SHARE_BYTES + 16
COMMITMENT_BYTES = 32
_SHARE, _COMMITMENT = label("share"), label("share-commitment")
_NONCE = bytes(12)  # the key seals nothing else


class Kind(IntEnum):
    """What a share is of."""

    SEED = 1
    KEY = 2


def seal(key: bytes, shares: tuple[int, int], associated: bytes) -> bytes:
    """Returns both shares, sealed: 80 bytes.

    Args:
        key: 32 bytes, never used before.
        shares: Of the seed and of the key.
        associated: See `associated_data`.
    """
    plain = b"".join(share.to_bytes(SHARE_BYTES, "big") for share in shares)
    return AESGCM(key).encrypt(_NONCE, plain, associated)


def unseal(key: bytes, sealed: bytes, associated: bytes, peer: str) -> tuple[int, int]:
    """Returns both shares.

    Raises:
        ProtocolError: ``bad-share``, they were not sealed so, or are no numbers below p.
    """
    try:
        plain = AESGCM(key).decrypt(_NONCE, sealed, associated)
    except InvalidTag as error:
        raise ProtocolError(peer, "bad-share", "its sealed shares do not open") from error
    seed = int.from_bytes(plain[:SHARE_BYTES], "big")
    private = int.from_bytes(plain[SHARE_BYTES:], "big")
    if len(plain) != 2 * SHARE_BYTES or seed >= PRIME or private >= PRIME:
        raise ProtocolError(peer, "bad-share", "its shares are not numbers below 2^256 - 189")
    return seed, private


def associated_data(transcript: bytes, source: int, target: int, index: int) -> bytes:
    """Returns what a seal is bound to: the round, who, for whom, and the holder's index."""
    return _SHARE + transcript + u64(source) + u64(target) + u32(index)


def commit_share(transcript: bytes, kind: Kind, source: int, target: int, share: int) -> bytes:
    """Returns the commitment (32 bytes) to one share. It hides: a share is uniform in [0, p)."""
    body = transcript + u8(kind) + u64(source) + u64(target) + share.to_bytes(SHARE_BYTES, "big")
    return hashlib.sha256(_COMMITMENT + body).digest()
