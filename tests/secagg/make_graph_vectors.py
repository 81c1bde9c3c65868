"""Writes tests/vectors/secagg-graph.json: `python -m tests.secagg.make_graph_vectors`.

Rings and graphs are computed here from the formulas of docs/spec/secagg-graph.md, parameters from
SciPy's tails, never by the code that the vectors test.
"""

import hashlib
import json
import math
from fractions import Fraction
from pathlib import Path

from scipy.special import gammaln
from scipy.stats import hypergeom

PATH = Path(__file__).parents[1] / "vectors" / "secagg-graph.json"


def order(nodes: int, seed: bytes, label: bytes = b"fedsec-v1/secagg-ring\0") -> list[int]:
    stream = b"".join(
        hashlib.sha256(label + seed + block.to_bytes(8, "big")).digest() for block in range(nodes)
    )
    places, at = list(range(nodes)), 0
    for last in reversed(range(1, nodes)):
        while True:
            word = int.from_bytes(stream[at : at + 4], "big")
            at += 4
            if word < 2**32 // (last + 1) * (last + 1):
                break
        chosen = word % (last + 1)
        places[last], places[chosen] = places[chosen], places[last]
    return places


def graph(nodes: int, neighbours: int, seed: bytes) -> list[list[int]]:
    if neighbours == nodes - 1:
        return [[other for other in range(nodes) if other != own] for own in range(nodes)]
    places = order(nodes, seed)
    side = neighbours // 2
    return [
        sorted(
            places[(places.index(own) + step) % nodes]
            for step in (*range(-side, 0), *range(1, side + 1))
        )
        for own in range(nodes)
    ]


def parameters(
    mode: str, nodes: int, corrupt: str, dropout: str, *, draws: int, lost: int
) -> dict[str, int | str]:
    """Returns k, t and the least number of survivors, or `error`, by floating point."""
    bad = max(1, math.ceil(Fraction(corrupt) * nodes))
    gone = math.floor(Fraction(dropout) * nodes)
    half = (nodes + bad) // 2 + 1
    refused: dict[str, int | str] = {"error": "infeasible"}
    if nodes - bad - gone < 3:
        return refused
    if nodes <= 64:
        threshold = max(2 * nodes // 3 + 1, half)
        least = max(threshold, bad + 3)
        if nodes - gone < least:
            return refused
        return {"neighbours": nodes - 1, "threshold": threshold, "least": least}
    bits = (80 if mode == "malicious" else 40) + 1 + math.log2(draws)
    if mode == "malicious":
        bits += math.log2(math.comb(nodes + lost, lost)) + lost + 1
    for k in range(2, nodes - 1, 2):
        if _cut(nodes, k, bad + gone) > -bits * math.log(2):
            continue
        a = next(a for a in range(k + 2) if _log_tail(nodes, bad, k, a) <= -bits * math.log(2))
        low = max(2, (k + a - 1) // 2 + 1 if mode == "malicious" else a)
        g = next(g for g in range(k + 2) if _log_tail(nodes, gone, k, g) <= -30 * math.log(2))
        if low <= k - g + 1:
            return {"neighbours": k, "threshold": k - g + 1, "least": nodes - gone}
    low = half if mode == "malicious" else bad + 1
    if low > nodes - gone:
        return refused
    return {"neighbours": nodes - 1, "threshold": nodes - gone, "least": nodes - gone}


def _cut(nodes: int, k: int, bad: int) -> float:
    if k > bad:
        return -math.inf
    ways = gammaln(bad + 1) + gammaln(nodes - k + 1) - gammaln(nodes + 1) - gammaln(bad - k + 1)
    return float(ways + math.log(nodes * (nodes - k - 1) / 2))


def _log_tail(nodes: int, marked: int, drawn: int, many: int) -> float:
    return math.log(nodes) + float(hypergeom.logsf(many - 1, nodes, marked, drawn))


def main() -> None:
    """Writes the file."""
    seed = hashlib.sha256(b"fedsec test vector").digest()
    asked = [
        (mode, nodes, corrupt, dropout, draws, lost)
        for mode in ("semi-honest", "malicious")
        for nodes, corrupt, dropout, draws, *some in (
            (3, "0.1", "0", 1),
            (4, "0.1", "0", 1),
            (5, "0.1", "0.2", 1),
            (10, "0.1", "0.3", 1),
            (10, "0.1", "0.4", 1),
            (20, "0.3333", "0.3", 3),
            (64, "0.2", "0.1", 1),
            (65, "0.1", "0.1", 1),
            (100, "0.1", "0.1", 1),
            (100, "0.2", "0.2", 3),
            (100, "0.3", "0.4", 1),
            (300, "0.05", "0.1", 8),
            (1000, "0.1", "0.1", 3),
            (1000, "0.29", "0.05", 1),
            (64, "0.1", "0.1", 1, 6),
            (100, "0.1", "0.1", 1, 10),
            (1000, "0.1", "0.1", 3, 1),
            (1000, "0.1", "0.1", 3, 10),
            (1000, "0.1", "0.1", 1, 100),
        )
        for lost in some or (0,)
    ]
    values = {
        "rings": [
            {"nodes": nodes, "seed": seed.hex(), "order": order(nodes, seed)}
            for nodes in (1, 2, 5, 65, 100)
        ],
        "graphs": [
            {"nodes": nodes, "neighbours": k, "seed": seed.hex(), "graph": graph(nodes, k, seed)}
            for nodes, k in ((5, 4), (9, 4), (65, 20))
        ],
        "parameters": [
            {
                "mode": mode,
                "nodes": nodes,
                "corrupt": corrupt,
                "dropout": dropout,
                "draws": draws,
                "lost": lost,
                **parameters(mode, nodes, corrupt, dropout, draws=draws, lost=lost),
            }
            for mode, nodes, corrupt, dropout, draws, lost in asked
        ],
    }
    lines = [
        f'  "{name}": [\n    ' + ",\n    ".join(json.dumps(case) for case in cases) + "\n  ]"
        for name, cases in values.items()
    ]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
