"""Writes tests/vectors/secagg-groups.json: `python -m tests.secagg.make_groups_vectors`.

Computed from the formulas of docs/spec/secagg-groups.md, never by the code that the vectors test.
"""

import hashlib
import json
from pathlib import Path

from scipy.stats import hypergeom

from tests.secagg.make_graph_vectors import order

PATH = Path(__file__).parents[1] / "vectors" / "secagg-groups.json"
LABEL = b"fedsec-v1/secagg/groups\0"


def groups(nodes: list[int], size: int, seed: bytes) -> list[list[int]]:
    count = len(nodes) // size
    least, larger = len(nodes) // count, len(nodes) % count
    places, ids, made = order(len(nodes), seed, LABEL), sorted(nodes), []
    for number in range(count):
        many = least + (number < larger)
        made.append(sorted(ids[place] for place in places[:many]))
        places = places[many:]
    return made


def crowding(nodes: int, corrupt: int, size: int, most: int, draws: int) -> float:
    count = nodes // size
    least, larger = nodes // count, nodes % count
    sizes = [least + 1] * larger + [least] * (count - larger)
    return min(1.0, draws * sum(float(hypergeom.sf(most, nodes, corrupt, z)) for z in sizes))


def main() -> None:
    """Writes the file."""
    seed = hashlib.sha256(b"fedsec test vector").digest()
    asked: list[tuple[list[int], int]] = [
        (list(range(8)), 4),
        ([2**64 - 1, 7, 3, 1 << 40, 5, 9, 11, 13, 1], 4),
        (list(range(100, 114)), 5),
        (list(range(27)), 5),
        (list(range(0, 500, 5)), 10),
    ]
    refused: list[tuple[list[int], int]] = [(list(range(9)), 5), (list(range(9)), 3), ([1] * 8, 4)]
    chances = (
        (25, 2, 5, 1, 3),
        (100, 5, 10, 3, 1),
        (1000, 20, 5, 3, 1),
        (1000, 20, 10, 3, 3),
        (1000, 100, 10, 3, 3),
        (27, 1, 5, 1, 3),
    )
    values = {
        "groups": [
            *(
                {"nodes": ids, "size": size, "seed": seed.hex(), "groups": groups(ids, size, seed)}
                for ids, size in asked
            ),
            *(
                {"nodes": ids, "size": size, "seed": seed.hex(), "error": "refused"}
                for ids, size in refused
            ),
            {"nodes": list(range(8)), "size": 4, "seed": seed.hex()[2:], "error": "refused"},
        ],
        "crowding": [
            {
                "nodes": n,
                "corrupt": corrupt,
                "size": size,
                "most": most,
                "draws": draws,
                "bound": crowding(n, corrupt, size, most, draws),
            }
            for n, corrupt, size, most, draws in chances
        ],
    }
    lines = [
        f'  "{name}": [\n    ' + ",\n    ".join(json.dumps(case) for case in cases) + "\n  ]"
        for name, cases in values.items()
    ]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
