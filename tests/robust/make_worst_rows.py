"""Writes worst_rows.json: row sets that move each priced rule as far as is known.

Run it from the repository: ``python -m tests.robust.make_worst_rows``. The privacy audit reads the
same file.
"""

import json
from pathlib import Path

import numpy as np


def case(values: list[float], *, zero_out: bool = True) -> dict[str, object]:
    rows = [[0.0, value] for value in values]
    return {
        "rows": rows,
        "other": [0.0, -values[0]],
        "tight": {"replace-one": True, "zero-out": zero_out},
    }


def camps() -> list[float]:
    """The changing row, then as many rows at 1 as at -1: it decides."""
    return [1.0] * 6 + [-1.0] * 5


def in_buckets(n: int, size: int) -> list[float]:
    """The changing row among zeros in its bucket; half of the other buckets at 1, half at -1."""
    seed = int(np.random.default_rng(0).integers(1 << 62))  # as a call with this generator draws
    order = np.random.default_rng(seed).permutation(n)
    bucket = np.empty(n, int)
    bucket[order] = np.arange(n) // size
    others = [b for b in range(n // size) if b != bucket[0]]
    side = {b: (1.0 if place % 2 else -1.0) for place, b in enumerate(others)}
    values = [side.get(int(b), 0.0) for b in bucket]
    return [1.0, *values[1:]]


CASES = {
    "mean": case(camps()),
    # f rows at either end leave the changing row in the middle, wherever it is.
    "trimmed mean f=2": case(camps()),
    "trimmed mean f=5": case(camps()),
    # The zero row moves a step from the origin by tau only; 2 tau holds for any public start.
    "centred clipping": case(camps(), zero_out=False),
    "centred clipping, wide": case(camps()),
    "centred clipping, 3 steps": case(camps(), zero_out=False),
    "median of buckets": case(in_buckets(12, 4)),
    "trimmed mean of buckets": case(in_buckets(10, 2)),
    "mean of buckets": case(in_buckets(10, 2)),
    "clipped mean": case(camps()),
}


if __name__ == "__main__":
    path = Path(__file__).with_name("worst_rows.json")
    path.write_text(json.dumps(CASES, indent=1) + "\n", encoding="utf-8")
