"""Writes tests/vectors/secagg.json: `python -m tests.secagg.make_vectors`.

What is expected is computed by `tests/secagg/naive.py`, never by the code under test.
"""

import hashlib
import json
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.secagg import naive

Case = dict[str, Any]
TRANSCRIPT = hashlib.sha256(b"a transcript").digest()
PLAN = hashlib.sha256(b"a plan").digest()


def number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big") % naive.P


def private(text: str) -> X25519PrivateKey:
    raw = bytearray(hashlib.sha256(text.encode()).digest())
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return X25519PrivateKey.from_private_bytes(bytes(raw))


def key_cases() -> list[Case]:
    cases: list[Case] = []
    for a, b, bits in ((1, 2, 32), (2, 1, 16), (2**64 - 1, 7, 32)):
        own, other = private(f"own {a}"), private(f"other {b}")
        secret = own.exchange(other.public_key())
        seed = number(f"seed {a}")
        cases.append(
            {
                "own_private": own.private_bytes_raw().hex(),
                "other_public": other.public_key().public_bytes_raw().hex(),
                "transcript": TRANSCRIPT.hex(),
                "own": a,
                "other": b,
                "word_bits": bits,
                "seed": seed.to_bytes(32, "big").hex(),
                "pair_secret": secret.hex(),
                "mask": naive.mask(secret, TRANSCRIPT, a, b, bits).hex(),
                "self": naive.self_mask(seed, TRANSCRIPT, a, bits).hex(),
                "seal": naive.seal(secret, TRANSCRIPT, a, b).hex(),
                "seed_commitment": naive.seed_commitment(seed, TRANSCRIPT, a).hex(),
            }
        )
    small = (0, 1, 2**255 - 20, 2**255 - 19)
    cases += [
        {"other_public": point.to_bytes(32, "little").hex(), "error": "bad-key"} for point in small
    ]
    return cases


def mask_cases() -> list[Case]:
    derived = hashlib.sha256(b"a mask").digest()
    wrapping = derived[:16] + (2**128 - 1).to_bytes(16, "big")
    return [
        {
            "derived": stream.hex(),
            "word_bits": bits,
            "offset": offset,
            "words": naive.words(stream, 9, bits, offset),
        }
        for stream in (derived, wrapping)
        for bits in (16, 32)
        for offset in (0, 3, 8, 65_536)
    ]


def shamir_cases() -> list[Case]:
    cases = []
    for threshold, indices in ((1, [1, 2]), (2, [1, 2, 3]), (5, [1, 9, 200, 65_535, 7, 8])):
        drawn = b"".join(
            hashlib.sha512(f"{threshold} {i}".encode()).digest()[:40] for i in range(threshold - 1)
        )
        # the first coefficient drawn is that of the highest power
        drawn_numbers = [int.from_bytes(drawn[i : i + 40], "big") for i in range(0, len(drawn), 40)]
        secret = number(f"secret {threshold}")
        coefficients = [secret, *reversed(drawn_numbers)]
        cases.append(
            {
                "secret": hex(secret),
                "threshold": threshold,
                "entropy": drawn.hex(),
                "indices": indices,
                "shares": [hex(naive.polynomial(coefficients, x)) for x in indices],
            }
        )
    return cases


def share_cases() -> list[Case]:
    key = hashlib.sha256(b"a seal key").digest()
    shares = (number("share 1"), naive.P - 1)
    aad = naive.lab("share") + TRANSCRIPT + struct.pack(">QQI", 3, 4, 17)

    def sealed(first: int, second: int) -> bytes:
        plain = first.to_bytes(32, "big") + second.to_bytes(32, "big")
        return AESGCM(key).encrypt(bytes(12), plain, aad)

    good: Case = {
        "key": key.hex(),
        "transcript": TRANSCRIPT.hex(),
        "source": 3,
        "target": 4,
        "index": 17,
        "sealed": sealed(*shares).hex(),
    }
    bad = {"error": "bad-share"}
    flipped = bytearray(sealed(*shares))
    flipped[5] ^= 1
    return [
        good
        | {
            "shares": [hex(each) for each in shares],
            "commitments": [
                naive.share_commitment(TRANSCRIPT, kind, 3, 4, share).hex()
                for kind, share in zip((1, 2), shares, strict=True)
            ],
        },
        good | {"transcript": bytes(32).hex()} | bad,
        good | {"source": 5} | bad,
        good | {"target": 5} | bad,
        good | {"index": 18} | bad,
        good | {"key": bytes(32).hex()} | bad,
        good | {"sealed": flipped.hex()} | bad,
        good | {"sealed": sealed(*shares)[:-1].hex()} | bad,
        good | {"sealed": sealed(naive.P, 1).hex()} | bad,
        good | {"sealed": sealed(1, naive.P).hex()} | bad,
    ]


def make_offer(node: int, context: bytes, commitment: bytes = bytes(32)) -> tuple[bytes, str]:
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"sign {node}".encode()).digest())
    body = struct.pack(">Q", node) + key.public_key().public_bytes_raw()
    body += private(f"mask {node}").public_key().public_bytes_raw()
    body += private(f"seal {node}").public_key().public_bytes_raw() + commitment
    return body + key.sign(naive.lab("offer") + context + body), key.private_bytes_raw().hex()


def session_cases() -> list[Case]:
    cases = []
    for malicious in (False, True):
        names = ("malicious", "plan", "run", "round", "attempt", "group", "word_bits", "words")
        fields = (malicious, PLAN, 2**63, 7, 2, 1, 32, 1_000_000)
        context = naive.context(fields)
        nonces = {n: hashlib.sha256(f"nonce {n}".encode()).digest() for n in (5, 9)}
        commitments = {
            n: hashlib.sha256(naive.lab("nonce") + context + struct.pack(">Q", n) + nonce).digest()
            for n, nonce in nonces.items()
        }
        offers = [
            make_offer(n, context, commitments[n] if malicious else bytes(32))[0] for n in (5, 9)
        ]
        tail = struct.pack(">I", 2) + b"".join(offers)
        tail += struct.pack(">I", 2 * malicious)
        if malicious:
            tail += b"".join(struct.pack(">Q", n) + nonce for n, nonce in nonces.items())
        transcript = hashlib.sha256(
            naive.lab("transcript") + context + struct.pack(">II", 4, 3) + tail
        ).digest()
        cases.append(
            dict(zip(names, fields, strict=True))
            | {
                "plan": PLAN.hex(),
                "asked": naive.ASKED.hex(),
                "neighbours": 4,
                "threshold": 3,
                "context": context.hex(),
                "roster": tail.hex(),
                "nonce_commitments": [each.hex() for each in commitments.values()],
                "transcript": transcript.hex(),
                "graph_seed": hashlib.sha256(naive.lab("graph") + transcript).hexdigest(),
            }
        )
    return cases


def message_cases() -> list[Case]:
    context = naive.context((False, PLAN, 1, 1, 1, 0, 32, 10))
    offer, secret = make_offer(5, context)
    other, _ = make_offer(4, context)
    entry = struct.pack(">Q", 6) + bytes(range(144))
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    body = struct.pack(">Q", 5) + bytes(32) + struct.pack(">I", 1) + entry
    shares = body + key.sign(naive.lab("shares") + TRANSCRIPT + body)
    ids = struct.pack(">IQQ", 2, 5, 6)
    said = key.sign(naive.lab("survivors") + TRANSCRIPT + ids)
    survivors = ids + struct.pack(">IQ", 1, 5) + said
    revealed = struct.pack(">IQB", 1, 6, 2) + bytes(31) + b"\x07"
    kinds: dict[str, tuple[bytes, ...]] = {
        "offer": (offer,),
        "roster": (struct.pack(">I", 1) + offer + bytes(4),),
        "shares": (shares,),
        "delivery": (struct.pack(">I", 1) + entry,),
        "survivors": (survivors,),
        "revealed": (revealed,),
    }
    common: Case = {"context": context.hex(), "transcript": TRANSCRIPT.hex(), "signer": secret}
    cases: list[Case] = []

    def add(kind: str, data: bytes, error: str = "") -> None:
        cases.append(
            common | {"kind": kind, "data": data.hex()} | ({"error": error} if error else {})
        )

    for kind, (data,) in kinds.items():
        add(kind, data)
        add(kind, data[:-1], "malformed")
        add(kind, data + b"\x00", "malformed")
        add(kind, b"", "malformed")
    many = struct.pack(">I", 2**32 - 1)
    add("roster", many + offer, "malformed")
    add("roster", struct.pack(">I", 2) + offer + other + bytes(4), "malformed")
    add("roster", struct.pack(">I", 2) + offer + offer + bytes(4), "malformed")
    add("delivery", many + entry, "malformed")
    add("delivery", struct.pack(">I", 2) + entry + entry, "malformed")
    add("survivors", struct.pack(">IQQI", 2, 6, 5, 0), "malformed")
    add("revealed", struct.pack(">IQB", 1, 6, 3) + bytes(32), "malformed")
    add("revealed", struct.pack(">IQB", 1, 6, 1) + naive.P.to_bytes(32, "big"), "malformed")
    for at in (3, 20, 50, 90, 120, 190):
        changed = bytearray(offer)
        changed[at] ^= 1
        add("offer", bytes(changed), "bad-signature")
    changed = bytearray(shares)
    changed[60] ^= 1
    add("shares", bytes(changed), "bad-signature")
    changed = bytearray(survivors)
    changed[-1] ^= 1
    add("survivors", bytes(changed), "bad-signature")
    return cases


def asked_cases() -> list[Case]:
    weight = np.arange(6, dtype="<f4").reshape(2, 3)
    with BytesIO() as file:
        np.save(file, weight)
        array = ["weight", ["float32", [2, 3], "numpy.ndarray"], file.getvalue().hex()]
    config = [
        ["steps", 3],
        ["on", True],
        ["rate", 0.1],
        ["name", "\u00e4"],
        ["key", {"hex": "00ff"}],
    ]
    cases: dict[str, list[Any]] = {
        "nothing": [],
        "a model": [["arrays", "arrays", [array]]],
        "all kinds": [
            ["model", "arrays", [array, ["bias", *array[1:]]]],
            ["figures", "metrics", [["loss", -0.5], ["counts", [1, -2]]]],
            ["config", "configs", [*config, ["many", ["a", "b"]]]],
        ],
    }
    return [
        {"name": name, "records": records, "digest": naive.asked(records).hex()}
        for name, records in cases.items()
    ]


def main() -> None:
    vectors = {
        "spec": "docs/spec/secagg.md",
        "session": session_cases(),
        "messages": message_cases(),
        "keys": key_cases(),
        "masks": mask_cases(),
        "shamir": shamir_cases(),
        "shares": share_cases(),
        "asked": asked_cases(),
    }
    path = Path(__file__).parents[1] / "vectors/secagg.json"
    path.write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
