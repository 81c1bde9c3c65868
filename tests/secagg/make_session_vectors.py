"""Writes tests/vectors/secagg-sessions.json: `python -m tests.secagg.make_session_vectors`.

What is said in each session is computed by `tests/secagg/reference.py`, never by fedsec.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.secagg import naive
from tests.secagg.reference import replay

Case = dict[str, Any]
PATH = Path(__file__).parents[1] / "vectors" / "secagg-sessions.json"
FEW = 6
LONGEST = 256


def chance(node: int, length: int) -> bytes:
    blocks = (
        hashlib.sha512(f"entropy {node} {i}".encode()).digest() for i in range(1 + length // 64)
    )
    return b"".join(blocks)[:length]


def session(
    ids: Sequence[int],
    lost: Mapping[int, str],
    *,
    threshold: int,
    corrupt: str = "0.1",
    dropout: str = "0.1",
    word_bits: int = 32,
    malicious: bool = False,
) -> Case:
    """Returns what a vector gives; `threshold` says how much entropy a node needs."""
    top = 2**word_bits
    return {
        "malicious": malicious,
        "plan": hashlib.sha256(b"a plan").hexdigest(),
        "run": 2**64 - 17,
        "round": 3,
        "attempt": 2,
        "group": 1,
        "word_bits": word_bits,
        "words": 9,
        "asked": naive.ASKED.hex(),
        "corrupt": corrupt,
        "dropout": dropout,
        "draws": 3,
        "nodes": [
            {
                "node": node,
                "signer": hashlib.sha256(f"signer {node}".encode()).hexdigest(),
                "entropy": chance(node, 4 * 32 + 2 * 40 * (threshold - 1)).hex(),
                "vector": [node % top, (top - node) % top, *(node * i % top for i in range(7))],
            }
            for node in ids
        ],
        "lost": [{"node": node, "stage": stage} for node, stage in lost.items()],
    }


def told(case: Case) -> Case:
    """Returns the vector with what becomes of it."""
    end = replay(case)
    return case | end | {way: shown(case, end[way]) for way in ("sent", "said")}


def shown(case: Case, messages: Mapping[str, Mapping[int, bytes]]) -> Case:
    """Returns messages as they stand in a vector: of many nodes, digests of what is long."""
    whole = len(case["nodes"]) <= FEW

    def text(data: bytes) -> str:
        if whole or len(data) <= LONGEST:
            return data.hex()
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    return {
        stage: {"all": text(*set(said.values()))}
        if len(set(said.values())) == 1
        else {str(node): text(data) for node, data in said.items()}
        for stage, said in messages.items()
    }


def cases() -> list[Case]:
    few = (1, 2, 3, 5, 8, 13, 21, 34, 2**63, 2**64 - 1)
    many = range(1000, 1066)
    rates = {"corrupt": "0.02", "dropout": "0.05"}
    return [
        told(case)
        for case in (
            session(few[:5], {5: "vector"}, threshold=4),
            session(few, {2: "shares", 2**63: "vector", 8: "revealed"}, threshold=7, word_bits=16),
            session(few[:6], {}, threshold=5, malicious=True),
            session(
                few,
                {1: "nonce", 13: "vector", 3: "signature"},
                threshold=7,
                malicious=True,
            ),
            session(many, {1003: "shares", 1040: "vector", 1041: "revealed"}, threshold=3, **rates),
            session(
                many,
                {1000: "nonce", 1065: "shares", 1030: "vector", 1031: "signature"},
                threshold=7,
                malicious=True,
                **rates,
            ),
        )
    ]


def main() -> None:
    """Writes the file."""
    values = {"spec": "docs/spec/secagg.md", "sessions": cases()}
    PATH.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
