"""A whole semi-honest session of five nodes by the specification, naively; one is lost at S4."""

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.secagg import naive

IDS, LOST = (1, 2, 3, 5, 8), 5
THRESHOLD, BITS = 4, 32
FIELDS = (False, hashlib.sha256(b"a plan").digest(), 17, 1, 1, 0, BITS, 3)
CONTEXT = naive.context(FIELDS)


@dataclass(frozen=True)
class Member:
    """One node; all its chance comes from a stream that is part of the vector."""

    node: int

    @cached_property
    def entropy(self) -> bytes:
        blocks = (hashlib.sha512(f"entropy {self.node} {i}".encode()).digest() for i in range(6))
        return b"".join(blocks)[: 4 * 32 + 2 * 40 * (THRESHOLD - 1)]

    @cached_property
    def signer(self) -> Ed25519PrivateKey:
        seed = hashlib.sha256(f"signer {self.node}".encode()).digest()
        return Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def vector(self) -> list[int]:
        return [self.node, 2**32 - self.node, 1000 * self.node]

    def private(self, place: int) -> bytes:
        raw = bytearray(self.entropy[32 * place : 32 * place + 32])
        raw[0] &= 248
        raw[31] = raw[31] & 127 | 64
        return bytes(raw)

    def public(self, place: int) -> bytes:
        key = X25519PrivateKey.from_private_bytes(self.private(place))
        return key.public_key().public_bytes_raw()

    def agree(self, place: int, other: "Member") -> bytes:
        own = X25519PrivateKey.from_private_bytes(self.private(place))
        theirs = X25519PrivateKey.from_private_bytes(other.private(place))
        return own.exchange(theirs.public_key())

    @property
    def seed(self) -> int:
        return int.from_bytes(self.entropy[64:96], "big")

    def share(self, kind: int, x: int) -> int:
        """The value at x; of each polynomial the coefficients are drawn from the highest on."""
        width = 40 * (THRESHOLD - 1)
        drawn = self.entropy[128 + (kind - 1) * width : 128 + kind * width]
        powers = [int.from_bytes(drawn[i : i + 40], "big") for i in range(0, width, 40)]
        secret = self.seed if kind == 1 else int.from_bytes(self.private(0), "little")
        return naive.polynomial([secret, *reversed(powers)], x)

    @cached_property
    def offer(self) -> bytes:
        public = self.signer.public_key().public_bytes_raw()
        body = struct.pack(">Q", self.node) + public + self.public(0) + self.public(1) + bytes(32)
        return body + self.signer.sign(naive.lab("offer") + CONTEXT + body)


MEMBERS = {node: Member(node) for node in IDS}
INDEX = {node: place for place, node in enumerate(IDS, 1)}
OFFERS = struct.pack(">I", len(IDS)) + b"".join(m.offer for m in MEMBERS.values())
TRANSCRIPT = hashlib.sha256(
    naive.lab("transcript") + CONTEXT + struct.pack(">II", 4, THRESHOLD) + OFFERS + bytes(4)
).digest()


def shares_of(owner: int) -> bytes:
    me, entries = MEMBERS[owner], b""
    for holder in IDS:
        if holder == owner:
            continue
        x = INDEX[holder]
        values = [me.share(kind, x) for kind in (1, 2)]
        key = naive.seal(me.agree(1, MEMBERS[holder]), TRANSCRIPT, owner, holder)
        aad = naive.lab("share") + TRANSCRIPT + struct.pack(">QQI", owner, holder, x)
        plain = b"".join(value.to_bytes(32, "big") for value in values)
        entries += struct.pack(">Q", holder) + AESGCM(key).encrypt(bytes(12), plain, aad)
        for kind, value in zip((1, 2), values, strict=True):
            entries += naive.share_commitment(TRANSCRIPT, kind, owner, holder, value)
    committed = naive.seed_commitment(me.seed, TRANSCRIPT, owner)
    body = struct.pack(">Q", owner) + committed + struct.pack(">I", len(IDS) - 1) + entries
    return body + me.signer.sign(naive.lab("shares") + TRANSCRIPT + body)


def masked_by(node: int) -> list[int]:
    me = MEMBERS[node]
    total = list(me.vector)
    streams = [(1, naive.self_mask(me.seed, TRANSCRIPT, node, BITS))]
    for other in IDS:
        if other != node:
            derived = naive.mask(me.agree(0, MEMBERS[other]), TRANSCRIPT, node, other, BITS)
            streams.append((1 if other > node else -1, derived))
    for sign, derived in streams:
        for i, word in enumerate(naive.words(derived, len(total), BITS)):
            total[i] = (total[i] + sign * word) % 2**BITS
    return total


def revealed_by(holder: int) -> bytes:
    made = struct.pack(">I", len(IDS))
    for owner in IDS:
        kind = 2 if owner == LOST else 1
        value = MEMBERS[owner].share(kind, INDEX[holder])
        made += struct.pack(">QB", owner, kind) + value.to_bytes(32, "big")
    return made


def cases() -> list[dict[str, Any]]:
    alive = [node for node in IDS if node != LOST]
    total = [sum(MEMBERS[n].vector[i] for n in alive) % 2**BITS for i in range(3)]
    nodes = [
        {
            "node": node,
            "entropy": member.entropy.hex(),
            "signer": member.signer.private_bytes_raw().hex(),
            "vector": member.vector,
            "offer": member.offer.hex(),
            "shares": shares_of(node).hex(),
            "masked": masked_by(node),
            "revealed": revealed_by(node).hex() if node != LOST else "",
        }
        for node, member in MEMBERS.items()
    ]
    _, plan, run, round_number, attempt, group, bits, words = FIELDS
    setting = {"plan": plan.hex(), "run": run, "round": round_number, "attempt": attempt}
    setting["asked"] = naive.ASKED.hex()
    setting |= {"group": group, "word_bits": bits, "words": words}
    return [
        setting | {"transcript": TRANSCRIPT.hex(), "nodes": nodes, "lost": LOST, "total": total}
    ]
