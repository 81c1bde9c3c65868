"""A second implementation of docs/spec/secagg.md, from its text alone: nothing of fedsec is used.

`replay` takes what a vector of secagg-sessions.json gives, and returns all that members and
coordinator say to each other, in bytes. It is made to be read beside the specification, and slow.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from itertools import count
from math import ceil, comb, floor
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.secagg import naive
from tests.secagg.make_graph_vectors import order
from tests.secagg.naive import lab

Case = dict[str, Any]
SEED, KEY = 1, 2


u64 = struct.Struct(">Q").pack


def listed(items: Iterable[bytes]) -> bytes:
    made = list(items)
    return struct.pack(">I", len(made)) + b"".join(made)


def parameters(case: Case, n: int, lost: int) -> tuple[int, int]:
    """Returns k and t: docs/spec/secagg-graph.md, section "Parameters"."""
    malicious = case["malicious"]
    bad = max(1, ceil(Fraction(case["corrupt"]) * n))
    gone = floor(Fraction(case["dropout"]) * n)
    half = (n + bad) // 2 + 1
    if n <= 64:
        return n - 1, max(2 * n // 3 + 1, half)
    draws = case["draws"] * (comb(n + lost, lost) * 2 ** (lost + 1) if malicious else 1)
    rare = Fraction(1, 2 ** (81 if malicious else 41))

    def tail(marked: int, k: int, many: int) -> Fraction:
        ways = sum(comb(marked, i) * comb(n - marked, k - i) for i in range(many, k + 1))
        return Fraction(ways, comb(n, k))

    for k in range(2, n - 1, 2):
        cut = Fraction(draws * n * (n - k - 1), 2) * Fraction(comb(bad + gone, k), comb(n, k))
        if cut > rare:
            continue
        b = next(b for b in count() if draws * n * tail(bad, k, b) <= rare)
        lowest = max(2, (k + b - 1) // 2 + 1 if malicious else b)
        fitting = [
            t for t in range(lowest, k + 1) if n * tail(gone, k, k - t + 1) <= Fraction(1, 2**30)
        ]
        if fitting:
            return k, fitting[-1]
    return n - 1, n - gone


class Graph:
    """Who is whose neighbour, and who holds whose shares."""

    def __init__(self, ids: Sequence[int], k: int, transcript: bytes) -> None:
        self.transcript = transcript
        self.complete = k == len(ids) - 1
        self.index = {node: place for place, node in enumerate(ids, 1)}
        seed = hashlib.sha256(lab("graph") + transcript).digest()
        ring = list(range(len(ids))) if self.complete else order(len(ids), seed)
        self.neighbours = {
            ids[position]: sorted(
                ids[ring[(place + step) % len(ids)]]
                for step in ((*range(-(k // 2), 0), *range(1, k // 2 + 1)))
            )
            if not self.complete
            else [node for node in ids if node != ids[position]]
            for place, position in enumerate(ring)
        }

    def holders(self, node: int) -> list[int]:
        return sorted([*self.neighbours[node], *([node] if self.complete else [])])


class Member:
    """One node, that begins with its keys and knows what it was sent."""

    def __init__(self, given: Case, context: bytes, *, malicious: bool, bits: int) -> None:
        self.node, self.vector, self.bits = given["node"], given["vector"], bits
        self.signer = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(given["signer"]))
        self.chance = BytesIO(bytes.fromhex(given["entropy"]))
        self.mask, self.seal = self._private(), self._private()
        self.seed = naive.P
        while self.seed >= naive.P:
            self.seed = int.from_bytes(self.chance.read(32), "big")
        self.nonce = self.chance.read(32)
        committed = hashlib.sha256(lab("nonce") + context + u64(self.node) + self.nonce).digest()
        body = u64(self.node) + self.signer.public_key().public_bytes_raw()
        body += self.mask.public_key().public_bytes_raw()
        body += self.seal.public_key().public_bytes_raw()
        body += committed if malicious else bytes(32)
        self.offer = body + self.signer.sign(lab("offer") + context + body)

    def _private(self) -> X25519PrivateKey:
        raw = bytearray(self.chance.read(32))
        raw[0] &= 248
        raw[31] = raw[31] & 127 | 64
        return X25519PrivateKey.from_private_bytes(bytes(raw))

    def join(self, offers: Mapping[int, bytes], t: int, graph: Graph) -> bytes:
        """Takes the roster; returns the message of shares."""
        self.graph, self.transcript = graph, graph.transcript
        self.mask_keys = {node: offer[40:72] for node, offer in offers.items()}
        self.seal_keys = {node: offer[72:104] for node, offer in offers.items()}
        scalar = int.from_bytes(self.mask.private_bytes_raw(), "little")
        # of a polynomial the coefficient of the highest power is drawn first, the secret is the last
        drawn = {
            kind: [int.from_bytes(self.chance.read(40), "big") for _ in range(t - 1)]
            for kind in (SEED, KEY)
        }
        whole = {SEED: [*drawn[SEED], self.seed][::-1], KEY: [*drawn[KEY], scalar][::-1]}

        def share(kind: int, holder: int) -> int:
            return naive.polynomial(whole[kind], graph.index[holder])

        self.own = share(SEED, self.node)
        entries = []
        for holder in graph.neighbours[self.node]:
            shares = [share(kind, holder) for kind in (SEED, KEY)]
            entry = u64(holder) + self._box(self.node, holder).encrypt(
                bytes(12),
                b"".join(each.to_bytes(32, "big") for each in shares),
                self._bound(self.node, holder),
            )
            for kind, each in zip((SEED, KEY), shares, strict=True):
                entry += naive.share_commitment(self.transcript, kind, self.node, holder, each)
            entries.append(entry)
        body = u64(self.node) + naive.seed_commitment(self.seed, self.transcript, self.node)
        body += listed(entries)
        return body + self.signer.sign(lab("shares") + self.transcript + body)

    def _box(self, source: int, target: int) -> AESGCM:
        other = target if source == self.node else source
        secret = self.seal.exchange(X25519PublicKey.from_public_bytes(self.seal_keys[other]))
        return AESGCM(naive.seal(secret, self.transcript, source, target))

    def _bound(self, source: int, target: int) -> bytes:
        index = struct.pack(">I", self.graph.index[target])
        return lab("share") + self.transcript + u64(source) + u64(target) + index

    def masked(self, delivery: bytes) -> list[int]:
        """Takes the delivery; returns the masked vector."""
        self.held: dict[int, dict[int, int]] = {}
        streams = [(1, naive.self_mask(self.seed, self.transcript, self.node, self.bits))]
        for at in range(4, len(delivery), 152):
            (owner,) = struct.unpack(">Q", delivery[at : at + 8])
            sealed, bound = delivery[at + 8 : at + 88], self._bound(owner, self.node)
            plain = self._box(owner, self.node).decrypt(bytes(12), sealed, bound)
            self.held[owner] = {
                SEED: int.from_bytes(plain[:32], "big"),
                KEY: int.from_bytes(plain[32:], "big"),
            }
            secret = self.mask.exchange(X25519PublicKey.from_public_bytes(self.mask_keys[owner]))
            pair = naive.mask(secret, self.transcript, self.node, owner, self.bits)
            streams.append((1 if owner > self.node else -1, pair))
        return added(self.vector, streams, self.bits)

    def sign(self, survivors: Sequence[int]) -> bytes:
        return self.signer.sign(
            lab("survivors") + self.transcript + listed(u64(node) for node in survivors)
        )

    def revealed(self, survivors: Sequence[int]) -> bytes:
        given = {}
        for owner, shares in self.held.items():
            kind = SEED if owner in survivors else KEY
            given[owner] = u64(owner) + bytes([kind]) + shares[kind].to_bytes(32, "big")
        if self.graph.complete:
            given[self.node] = u64(self.node) + bytes([SEED]) + self.own.to_bytes(32, "big")
        return listed(given[owner] for owner in sorted(given))


def added(vector: Sequence[int], streams: Iterable[tuple[int, bytes]], bits: int) -> list[int]:
    total = list(vector)
    for sign, derived in streams:
        words = naive.words(derived, len(total), bits)
        total = [(old + sign * word) % 2**bits for old, word in zip(total, words, strict=True)]
    return total


def replay(case: Case) -> Case:
    """Returns the vector's outcome: its `sent` and `said` as bytes, by stage and node."""
    malicious, bits, words = case["malicious"], case["word_bits"], case["words"]
    gone = {each["node"]: each["stage"] for each in case["lost"]}
    context = bytes([malicious]) + bytes.fromhex(case["plan"]) + u64(case["run"])
    context += struct.pack(">III", case["round"], case["attempt"], case["group"])
    context += bytes([bits]) + u64(words) + bytes.fromhex(case["asked"])
    members = {
        given["node"]: Member(given, context, malicious=malicious, bits=bits)
        for given in case["nodes"]
    }
    sent: dict[str, dict[int, bytes]] = {}
    said: dict[str, dict[int, bytes]] = {"offer": {i: m.offer for i, m in members.items()}}

    def left(stage: str) -> list[int]:
        return sorted(node for node in said[stage] if gone.get(node) != stage)

    u0 = u1 = left("offer")
    if malicious:
        sent["nonce"] = dict.fromkeys(u0, listed(members[i].offer for i in u0) + listed([]))
        said["nonce"] = {node: members[node].nonce for node in u0}
        u1 = left("nonce")
    nonces = listed(u64(node) + members[node].nonce for node in u1) if malicious else listed([])
    roster = listed(members[node].offer for node in u1) + nonces
    k, t = parameters(case, len(u1), len(u0) - len(u1))
    head = lab("transcript") + context + struct.pack(">II", k, t)
    transcript = hashlib.sha256(head + roster).digest()
    graph = Graph(u1, k, transcript)
    offers = {node: members[node].offer for node in u1}
    sent["shares"] = dict.fromkeys(u1, roster)
    said["shares"] = {node: members[node].join(offers, t, graph) for node in u1}
    u2 = left("shares")
    sent["vector"] = {node: listed(_entries(said["shares"], node, u2)) for node in u2}
    uploads = {node: members[node].masked(sent["vector"][node]) for node in u2}
    said["vector"] = {
        i: b"".join(word.to_bytes(bits // 8, "little") for word in words)
        for i, words in uploads.items()
    }
    u3 = left("vector")
    ids = listed(u64(node) for node in u3)
    asked = dict.fromkeys(u3, ids + listed([]))
    if malicious:
        sent["signature"] = asked
        said["signature"] = {node: members[node].sign(u3) for node in u3}
        signed = left("signature")
        asked = {}
        for node in signed:
            signers = [holder for holder in graph.holders(node) if holder in signed][:t]
            told = listed(u64(each) + said["signature"][each] for each in signers)
            asked[node] = ids + told
    sent["revealed"] = asked
    said["revealed"] = {node: members[node].revealed(u3) for node in asked}
    shares = _by_owner(graph, {node: said["revealed"][node] for node in left("revealed")})
    total = [sum(column) for column in zip(*(uploads[node] for node in u3), strict=True)]
    streams = _to_remove(shares, t, u3, members, graph)
    return {
        "neighbours": k,
        "threshold": t,
        "transcript": transcript.hex(),
        "survivors": u3,
        "total": added(total, streams, bits),
        "sent": sent,
        "said": said,
    }


def _entries(shares: Mapping[int, bytes], holder: int, owners: Sequence[int]) -> Iterable[bytes]:
    """Returns what each owner sealed for a holder, with the owner's id in the place of the holder's."""
    for owner in owners:
        body = shares[owner][44:-64]
        for at in range(0, len(body), 152):
            if body[at : at + 8] == u64(holder):
                yield u64(owner) + body[at + 8 : at + 152]


def _by_owner(graph: Graph, revealed: Mapping[int, bytes]) -> dict[tuple[int, int], dict[int, int]]:
    """Returns shares by index of their holder, for each owner and kind."""
    found: dict[tuple[int, int], dict[int, int]] = {}
    for holder, data in revealed.items():
        for at in range(4, len(data), 41):
            owner, kind = struct.unpack(">QB", data[at : at + 9])
            value = int.from_bytes(data[at + 9 : at + 41], "big")
            found.setdefault((owner, kind), {})[graph.index[holder]] = value
    return found


def _to_remove(
    shares: Mapping[tuple[int, int], Mapping[int, int]],
    t: int,
    survivors: Sequence[int],
    members: Mapping[int, Member],
    graph: Graph,
) -> Iterable[tuple[int, bytes]]:
    """Returns the masks in the sum, with the sign that takes each away."""
    transcript = graph.transcript
    for (owner, kind), known in shares.items():
        if len(known) < t:
            raise ValueError(f"{len(known)} shares of node {owner}, {t} open a secret")
        secret, bits = naive.interpolate(dict(list(known.items())[:t])), members[owner].bits
        if kind == SEED:
            yield -1, naive.self_mask(secret, transcript, owner, bits)
            continue
        private = X25519PrivateKey.from_private_bytes(secret.to_bytes(32, "little"))
        for node in set(graph.neighbours[owner]) & set(survivors):
            pair = private.exchange(members[node].mask.public_key())
            # the survivor `node` added it where `owner` has the higher id
            yield (-1 if owner > node else 1), naive.mask(pair, transcript, owner, node, bits)
