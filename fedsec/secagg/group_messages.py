"""What nodes and coordinator say to each other as groups are drawn, in canonical bytes.

Every reader raises ProtocolError, code ``malformed``, for bytes that are not exactly a message.
Specification: docs/spec/secagg-groups.md, section "Exchange".
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsec.errors import ProtocolError
from fedsec.secagg.codec import Reader, check_ascending, label, u8, u32, u64
from fedsec.secagg.groups import draw_groups
from fedsec.secagg.keys import KEY_BYTES, SIGNATURE_BYTES, verify
from fedsec.secagg.messages import NONCE_BYTES

COMMITMENT_BYTES = 32
ENTRY_BYTES = 8 + KEY_BYTES + COMMITMENT_BYTES + SIGNATURE_BYTES
REVEAL_BYTES = NONCE_BYTES + SIGNATURE_BYTES
_ENTRY, _NONCE = label("group-entry"), label("group-nonce")
_LIST, _REVEAL, _SEED = label("group-list"), label("group-reveal"), label("group-seed")


@dataclass(frozen=True, slots=True)
class Split:
    """What a draw of groups is about; both sides make it from the plan.

    Args:
        plan: SHA-256 of the plan, 32 bytes.
        run: Number of the run.
        draw: Which draw of the run, from 1.
        size: g, nodes of the smallest group.
        malicious: Whether the coordinator is taken to lie.
        fewest: Least nodes that are split, >= 2 g.
        most: Most nodes that are split.
    """

    plan: bytes
    run: int
    draw: int
    size: int
    malicious: bool
    fewest: int
    most: int

    @property
    def context(self) -> bytes:
        """The draw in bytes, for whatever is hashed or signed in it."""
        numbers = u64(self.run) + u32(self.draw) + u32(self.size)
        return u8(self.malicious) + self.plan + numbers


@dataclass(frozen=True, slots=True)
class Entry:
    """A node's key and its commitment to a nonce, signed.

    Args:
        node: Its id.
        signing_key: Ed25519; in malicious mode that of the roster.
        commitment: To its nonce.
        signature: Over the draw and all of the above.
    """

    node: int
    signing_key: bytes
    commitment: bytes
    signature: bytes = b""

    def signed_by(self, key: Ed25519PrivateKey, split: Split) -> "Entry":
        """Returns the entry with its signature."""
        return replace(self, signature=key.sign(_ENTRY + split.context + self._body()))

    def check(self, split: Split) -> None:
        """Raises ProtocolError, ``bad-signature``, unless it is signed for this draw."""
        message = _ENTRY + split.context + self._body()
        verify(self.signing_key, self.signature, message, str(self.node), "the entry")

    def to_bytes(self) -> bytes:
        """Returns its 136 bytes."""
        return self._body() + self.signature

    @classmethod
    def take(cls, reader: Reader) -> "Entry":
        """Returns the next entry of a message."""
        return cls(
            reader.u64(),
            reader.take(KEY_BYTES),
            reader.take(COMMITMENT_BYTES),
            reader.take(SIGNATURE_BYTES),
        )

    @classmethod
    def read(cls, data: bytes, peer: str) -> "Entry":
        """Returns the entry in `data`."""
        reader = Reader(data, peer, "the entry")
        entry = cls.take(reader)
        reader.end()
        return entry

    def _body(self) -> bytes:
        return u64(self.node) + self.signing_key + self.commitment


@dataclass(frozen=True, slots=True)
class Reveal:
    """A node's nonce, and its signature on the list that it was shown."""

    nonce: bytes = field(repr=False)
    signature: bytes

    @classmethod
    def of(cls, nonce: bytes, key: Ed25519PrivateKey, digest: bytes) -> "Reveal":
        """Returns what the owner of `key` reveals to those who list the entries of `digest`."""
        return cls(nonce, key.sign(_REVEAL + digest))

    def check(self, split: Split, entry: Entry, digest: bytes) -> None:
        """Returns when it is what the owner of `entry` committed to, for this list.

        Raises:
            ProtocolError: ``bad-nonce`` or ``bad-signature``.
        """
        peer = str(entry.node)
        if commit(split, entry.node, self.nonce) != entry.commitment:
            raise ProtocolError(peer, "bad-nonce", "its nonce breaks its commitment")
        message = _REVEAL + digest
        verify(entry.signing_key, self.signature, message, peer, "the list that it was shown")

    def to_bytes(self) -> bytes:
        """Returns its 96 bytes."""
        return self.nonce + self.signature

    @classmethod
    def read(cls, data: bytes, peer: str) -> "Reveal":
        """Returns the reveal in `data`."""
        reader = Reader(data, peer, "the revealed nonce")
        reveal = cls(reader.take(NONCE_BYTES), reader.take(SIGNATURE_BYTES))
        reader.end()
        return reveal


@dataclass(frozen=True, slots=True)
class Entries:
    """All entries by rising node id and, once they are there, what each node revealed.

    Args:
        entries: Of every node that is to be split.
        reveals: In the same order; empty before.
    """

    entries: tuple[Entry, ...]
    reveals: tuple[Reveal, ...] = ()

    def to_bytes(self) -> bytes:
        """Returns its bytes: 4 + 136 n + 4 + 96 n."""
        return _listed(self.entries) + _listed(self.reveals)

    @classmethod
    def read(cls, data: bytes, peer: str) -> "Entries":
        """Returns the list in `data`."""
        reader = Reader(data, peer, "the list of entries")
        entries = tuple(Entry.take(reader) for _ in range(reader.count(ENTRY_BYTES)))
        reveals = tuple(
            Reveal(reader.take(NONCE_BYTES), reader.take(SIGNATURE_BYTES))
            for _ in range(reader.count(REVEAL_BYTES))
        )
        reader.end()
        check_ascending([entry.node for entry in entries], peer, "the list of entries")
        return cls(entries, reveals)

    def digest(self, split: Split) -> bytes:
        """Returns the 32 bytes that stand for the entries of a draw."""
        return hashlib.sha256(_LIST + split.context + _listed(self.entries)).digest()


def commit(split: Split, node: int, nonce: bytes) -> bytes:
    """Returns a node's commitment (32 bytes) to its part of the seed."""
    return hashlib.sha256(_NONCE + split.context + u64(node) + nonce).digest()


def seed_of(split: Split, drawing: Entries) -> bytes:
    """Returns the seed (32 bytes) that all nonces together make."""
    nonces = b"".join(reveal.nonce for reveal in drawing.reveals)
    return hashlib.sha256(_SEED + drawing.digest(split) + nonces).digest()


def groups_of(split: Split, drawing: Entries) -> tuple[tuple[int, ...], ...]:
    """Returns the ids of each group, as a checked drawing makes them."""
    nodes = [entry.node for entry in drawing.entries]
    return draw_groups(nodes, split.size, seed_of(split, drawing))


def _listed(items: Iterable[Entry | Reveal]) -> bytes:
    parts = [item.to_bytes() for item in items]
    return u32(len(parts)) + b"".join(parts)
