"""What nodes and coordinator say to each other, as frozen values and canonical bytes.

Every reader takes bytes from a peer and raises ProtocolError, code ``malformed``, for any that are
not exactly a message. Specification: docs/spec/secagg.md, section "Messages".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsec.errors import ProtocolError
from fedsec.secagg.codec import Reader, check_ascending, label, u8, u32, u64
from fedsec.secagg.keys import KEY_BYTES, SIGNATURE_BYTES, verify
from fedsec.secagg.sealing import COMMITMENT_BYTES, SEALED_BYTES, Kind
from fedsec.secagg.shamir import PRIME, SHARE_BYTES

NONCE_BYTES = 32
_OFFER_BODY = Struct(f">Q{KEY_BYTES}s{KEY_BYTES}s{KEY_BYTES}s{COMMITMENT_BYTES}s")
OFFER_BYTES = _OFFER_BODY.size + SIGNATURE_BYTES
_ID_BYTES = 8
_ENTRY_BYTES = _ID_BYTES + SEALED_BYTES + 2 * COMMITMENT_BYTES
_SHARE_ENTRY = _ID_BYTES + 1 + SHARE_BYTES
_OFFER, _SHARES, _SURVIVORS = label("offer"), label("shares"), label("survivors")

Signatures: TypeAlias = Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Offer:
    """A node's public keys for one session, signed by its signing key.

    Args:
        node: Its id.
        signing_key: Ed25519; in malicious mode that of the roster.
        mask_key: X25519, for masks; its private half is shared.
        seal_key: X25519, for seals.
        commitment: To its nonce; zeros in semi-honest mode.
        signature: Over the session and all of the above.
    """

    node: int
    signing_key: bytes
    mask_key: bytes
    seal_key: bytes
    commitment: bytes
    signature: bytes = b""

    def signed_by(self, key: Ed25519PrivateKey, context: bytes) -> "Offer":
        """Returns the offer with its signature; `context` is the session's."""
        return replace(self, signature=key.sign(_OFFER + context + self._body()))

    def check(self, context: bytes) -> None:
        """Raises ProtocolError, ``bad-signature``, unless its owner signed it for this session."""
        message = _OFFER + context + self._body()
        verify(self.signing_key, self.signature, message, str(self.node), "the key offer")

    def to_bytes(self) -> bytes:
        """Returns its 200 bytes."""
        return self._body() + self.signature

    @classmethod
    def read(cls, data: bytes, peer: str) -> "Offer":
        """Returns the offer in `data`."""
        reader = Reader(data, peer, "the key offer")
        offer = cls.take(reader)
        reader.end()
        return offer

    @classmethod
    def take(cls, reader: Reader) -> "Offer":
        """Returns the next offer of a message."""
        return cls(
            node=reader.u64(),
            signing_key=reader.take(KEY_BYTES),
            mask_key=reader.take(KEY_BYTES),
            seal_key=reader.take(KEY_BYTES),
            commitment=reader.take(COMMITMENT_BYTES),
            signature=reader.take(SIGNATURE_BYTES),
        )

    def _body(self) -> bytes:
        return _OFFER_BODY.pack(
            self.node, self.signing_key, self.mask_key, self.seal_key, self.commitment
        )


@dataclass(frozen=True, slots=True)
class Roster:
    """All key offers of a session and, where they are revealed, nonces; to every member.

    Args:
        offers: By rising node id.
        nonces: By node id; empty until they are revealed.
    """

    offers: tuple[Offer, ...]
    nonces: Mapping[int, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Returns its bytes: 4 + 200 n + 4 + 40 m."""
        nonces = b"".join(u64(node) + self.nonces[node] for node in sorted(self.nonces))
        offers = b"".join(offer.to_bytes() for offer in self.offers)
        return u32(len(self.offers)) + offers + u32(len(self.nonces)) + nonces

    @classmethod
    def read(cls, data: bytes, peer: str) -> "Roster":
        """Returns the roster in `data`."""
        reader = Reader(data, peer, "the roster")
        offers = tuple(Offer.take(reader) for _ in range(reader.count(OFFER_BYTES)))
        pairs = [
            (reader.u64(), reader.take(NONCE_BYTES))
            for _ in range(reader.count(_ID_BYTES + NONCE_BYTES))
        ]
        reader.end()
        check_ascending([offer.node for offer in offers], peer, "the roster")
        check_ascending([node for node, _ in pairs], peer, "the roster's nonces")
        return cls(offers, dict(pairs))


@dataclass(frozen=True, slots=True)
class SealedShares:
    """What one node gives another, and what it commits to.

    Args:
        peer: The holder, in what an owner sends; the owner, in what a holder gets.
        sealed: Both shares, 80 bytes.
        seed_commitment: To the share of the seed.
        key_commitment: To the share of the private mask key.
    """

    peer: int
    sealed: bytes
    seed_commitment: bytes
    key_commitment: bytes

    def to_bytes(self) -> bytes:
        """Returns its 152 bytes."""
        return b"".join((u64(self.peer), self.sealed, self.seed_commitment, self.key_commitment))

    @classmethod
    def take_all(cls, reader: Reader, peer: str, what: str) -> tuple["SealedShares", ...]:
        """Returns the list that comes next in a message."""
        entries = tuple(
            cls(
                peer=reader.u64(),
                sealed=reader.take(SEALED_BYTES),
                seed_commitment=reader.take(COMMITMENT_BYTES),
                key_commitment=reader.take(COMMITMENT_BYTES),
            )
            for _ in range(reader.count(_ENTRY_BYTES))
        )
        check_ascending([entry.peer for entry in entries], peer, what)
        return entries


@dataclass(frozen=True, slots=True)
class Shares:
    """A node's shares for all of its neighbours, signed.

    Args:
        node: Its id.
        seed_commitment: To the seed of its self mask.
        entries: By rising id of the holder.
        signature: Over the transcript and all of the above.
    """

    node: int
    seed_commitment: bytes
    entries: tuple[SealedShares, ...]
    signature: bytes = b""

    def signed_by(self, key: Ed25519PrivateKey, transcript: bytes) -> "Shares":
        """Returns the message with its signature."""
        return replace(self, signature=key.sign(_SHARES + transcript + self._body()))

    def check(self, key: bytes, transcript: bytes) -> None:
        """Raises ProtocolError, ``bad-signature``, unless the owner of `key` signed it."""
        message = _SHARES + transcript + self._body()
        verify(key, self.signature, message, str(self.node), "the message of shares")

    def to_bytes(self) -> bytes:
        """Returns its bytes."""
        return self._body() + self.signature

    @classmethod
    def read(cls, data: bytes, peer: str) -> "Shares":
        """Returns the message in `data`."""
        reader = Reader(data, peer, "the message of shares")
        node, commitment = reader.u64(), reader.take(COMMITMENT_BYTES)
        entries = SealedShares.take_all(reader, peer, "the message of shares")
        signature = reader.take(SIGNATURE_BYTES)
        reader.end()
        return cls(node, commitment, entries, signature)

    def _body(self) -> bytes:
        entries = b"".join(entry.to_bytes() for entry in self.entries)
        return u64(self.node) + self.seed_commitment + u32(len(self.entries)) + entries


@dataclass(frozen=True, slots=True)
class Delivery:
    """The shares that a node's neighbours sealed for it; `peer` of each entry is its owner."""

    entries: tuple[SealedShares, ...]

    def to_bytes(self) -> bytes:
        """Returns its bytes."""
        return u32(len(self.entries)) + b"".join(entry.to_bytes() for entry in self.entries)

    @classmethod
    def read(cls, data: bytes, peer: str) -> "Delivery":
        """Returns the message in `data`."""
        reader = Reader(data, peer, "the delivery of shares")
        entries = SealedShares.take_all(reader, peer, "the delivery of shares")
        reader.end()
        return cls(entries)


@dataclass(frozen=True, slots=True)
class Survivors:
    """Whose masked vectors are in the sum; with the nodes' signatures on that, once there are any.

    Args:
        nodes: Their ids, rising.
        signatures: By node id, see `survivors_statement`.
    """

    nodes: tuple[int, ...]
    signatures: Signatures = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Returns its bytes."""
        signatures = b"".join(u64(node) + self.signatures[node] for node in sorted(self.signatures))
        return write_ids(self.nodes) + u32(len(self.signatures)) + signatures

    @classmethod
    def read(cls, data: bytes, peer: str) -> "Survivors":
        """Returns the message in `data`."""
        reader = Reader(data, peer, "the list of survivors")
        nodes = _take_ids(reader, peer, "the list of survivors")
        pairs = [
            (reader.u64(), reader.take(SIGNATURE_BYTES))
            for _ in range(reader.count(_ID_BYTES + SIGNATURE_BYTES))
        ]
        reader.end()
        check_ascending([node for node, _ in pairs], peer, "the signatures of survivors")
        return cls(nodes, dict(pairs))


@dataclass(frozen=True, slots=True)
class Revealed:
    """One share that a holder gives up.

    Args:
        owner: Whose secret it is of.
        kind: Of which of them.
        value: The share.
    """

    owner: int
    kind: Kind
    value: int


def survivors_statement(transcript: bytes, nodes: Sequence[int]) -> bytes:
    """Returns what a node signs to say that it was shown these survivors and no others."""
    return _SURVIVORS + transcript + write_ids(nodes)


def write_ids(nodes: Sequence[int]) -> bytes:
    """Returns a list of node ids."""
    return u32(len(nodes)) + b"".join(map(u64, nodes))


def read_ids(data: bytes, peer: str, what: str) -> tuple[int, ...]:
    """Returns the rising list of node ids in `data`."""
    reader = Reader(data, peer, what)
    nodes = _take_ids(reader, peer, what)
    reader.end()
    return nodes


def write_revealed(shares: Iterable[Revealed]) -> bytes:
    """Returns a holder's answer: shares by rising id of their owner, one per owner."""
    parts = [
        u64(each.owner) + u8(each.kind) + each.value.to_bytes(SHARE_BYTES, "big") for each in shares
    ]
    return u32(len(parts)) + b"".join(parts)


def read_revealed(data: bytes, peer: str) -> tuple[Revealed, ...]:
    """Returns the shares in a holder's answer."""
    reader = Reader(data, peer, "the revealed shares")
    shares = tuple(_take_revealed(reader, peer) for _ in range(reader.count(_SHARE_ENTRY)))
    reader.end()
    check_ascending([each.owner for each in shares], peer, "the revealed shares")
    return shares


def _take_revealed(reader: Reader, peer: str) -> Revealed:
    owner, kind = reader.u64(), reader.u8()
    value = int.from_bytes(reader.take(SHARE_BYTES), "big")
    if kind not in set(Kind) or value >= PRIME:
        raise ProtocolError(peer, "malformed", "the revealed shares: no such kind or number")
    return Revealed(owner, Kind(kind), value)


def _take_ids(reader: Reader, peer: str, what: str) -> tuple[int, ...]:
    nodes = tuple(reader.u64() for _ in range(reader.count(_ID_BYTES)))
    check_ascending(list(nodes), peer, what)
    return nodes
