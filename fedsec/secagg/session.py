"""What one attempt at one sum is about, and the transcript that everything in it is bound to.

Both sides make these values for themselves, from the plan and their own settings; none is taken
from the other side. Specification: docs/spec/secagg.md, sections "Session" and "Transcript".
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedsec.errors import ConfigError
from fedsec.secagg.codec import label, u8, u32, u64
from fedsec.secagg.masks import word_type
from fedsec.secagg.messages import Offer

DIGEST_BYTES = 32
MAX_WORDS = 1 << 33
_TRANSCRIPT, _GRAPH, _NONCE = label("transcript"), label("graph"), label("nonce")


@dataclass(frozen=True, slots=True)
class Session:
    """One attempt at one sum.

    Args:
        plan: SHA-256 of the plan, 32 bytes: through it modulus, clip, weights and assumptions.
        run: Number of the run.
        round: Number of the round, from 1.
        attempt: Which attempt at the round, from 1.
        group: Which group of the round's cohort sums here, from 0.
        asked: SHA-256 of what the members were asked to work on, 32 bytes: the model and all that
            came with it.
        words: Length of the vector (d,).
        word_bits: 16 or 32; sums are mod 2^word_bits.
        malicious: Whether the coordinator is taken to lie.
    """

    plan: bytes
    run: int
    round: int
    attempt: int
    words: int
    word_bits: int = 32
    malicious: bool = False
    group: int = 0
    asked: bytes = field(kw_only=True)

    def __post_init__(self) -> None:
        word_type(self.word_bits)
        for name, digest in (("plan", self.plan), ("asked", self.asked)):
            if len(digest) != DIGEST_BYTES:
                raise ConfigError(f"{name} must be a digest of 32 bytes, got {len(digest)}")
        if not 1 <= self.words <= MAX_WORDS:
            raise ConfigError(f"words must be in 1..{MAX_WORDS}, got {self.words}")

    @property
    def context(self) -> bytes:
        """The session in bytes, for whatever is hashed or signed in it."""
        return b"".join(
            (
                u8(self.malicious),
                self.plan,
                u64(self.run),
                u32(self.round),
                u32(self.attempt),
                u32(self.group),
                u8(self.word_bits),
                u64(self.words),
                self.asked,
            )
        )


def make_transcript(
    session: Session,
    offers: Sequence[Offer],
    nonces: Mapping[int, bytes],
    *,
    neighbours: int,
    threshold: int,
) -> bytes:
    """Returns the transcript of a session's members, 32 bytes.

    Args:
        session: The session.
        offers: The members', by rising node id.
        nonces: Of every member, by node id; empty in semi-honest mode.
        neighbours: k, as computed for so many members.
        threshold: t, likewise.
    """
    digest = hashlib.sha256(_TRANSCRIPT + session.context)
    digest.update(u32(neighbours) + u32(threshold))
    digest.update(u32(len(offers)) + b"".join(offer.to_bytes() for offer in offers))
    digest.update(u32(len(nonces)) + b"".join(u64(n) + nonces[n] for n in sorted(nonces)))
    return digest.digest()


def graph_seed(transcript: bytes) -> bytes:
    """Returns the seed (32 bytes) from which everyone draws the same graph."""
    return hashlib.sha256(_GRAPH + transcript).digest()


def commit_nonce(session: Session, node: int, nonce: bytes) -> bytes:
    """Returns a node's commitment (32 bytes) to its part of the graph's seed."""
    return hashlib.sha256(_NONCE + session.context + u64(node) + nonce).digest()
