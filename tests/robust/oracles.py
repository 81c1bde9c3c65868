"""The papers' formulas, written naively in float64: one row, one coordinate, one subset at a time."""

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Doubles = NDArray[np.float64]


def doubles(values: ArrayLike) -> Doubles:
    return np.asarray(values, np.float64)


def mean(rows: Doubles, f: int) -> Doubles:
    return np.array([math.fsum(column) / len(column) for column in rows.T])


def median(rows: Doubles, f: int) -> Doubles:
    out = []
    for column in rows.T:
        ranked = sorted(column)
        out.append((ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2)
    return np.array(out)


def trimmed_mean(rows: Doubles, f: int) -> Doubles:
    return np.array([np.mean(sorted(column)[f : len(column) - f]) for column in rows.T])


def nearest_to_median(column: list[float], keep: int) -> float:
    ranked = sorted(column)
    middle = (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2
    return float(np.mean(sorted(ranked, key=lambda value: abs(value - middle))[:keep]))


def meamed(rows: Doubles, f: int) -> Doubles:
    return np.array([nearest_to_median(list(column), len(rows) - f) for column in rows.T])


def krum_order(rows: Doubles, neighbours: int) -> list[int]:
    """From the best; of equal scores (each other's only neighbour) the more central first."""
    scores, totals = krum_scores(rows, neighbours), krum_scores(rows, len(rows))
    return sorted(range(len(rows)), key=lambda i: (scores[i], totals[i]))


def krum_scores(rows: Doubles, neighbours: int) -> list[float]:
    scores = []
    for i, a in enumerate(rows):
        gaps = sorted(float(np.sum((a - b) ** 2)) for j, b in enumerate(rows) if j != i)
        scores.append(sum(gaps[:neighbours]))
    return scores


def multi_krum(rows: Doubles, f: int, keep: int | None = None) -> Doubles:
    best = krum_order(rows, len(rows) - f - 2)
    return doubles(rows[best[: keep or len(rows) - f - 2]].mean(axis=0))


def krum(rows: Doubles, f: int) -> Doubles:
    return multi_krum(rows, f, keep=1)


def bulyan(rows: Doubles, f: int) -> Doubles:
    left = list(range(len(rows)))
    picked = [
        left.pop(krum_order(rows[left], max(1, len(left) - f - 2))[0])
        for _ in range(len(rows) - 2 * f)
    ]
    keep = len(picked) - 2 * f
    return np.array([nearest_to_median(list(column), keep) for column in rows[picked].T])


def geometric_median(rows: Doubles, f: int) -> Doubles:
    point = np.zeros(rows.shape[1])
    for _ in range(2000):
        pull = [1 / max(1e-6, float(np.linalg.norm(row - point))) for row in rows]
        before, point = point, np.average(rows, axis=0, weights=pull)
        if np.linalg.norm(point - before) < 1e-10:
            break
    return point


def diameter(rows: Doubles) -> float:
    pairs = itertools.combinations(rows, 2)
    return max((float(np.linalg.norm(a - b)) for a, b in pairs), default=0.0)


def minimum_diameter(rows: Doubles, f: int) -> float:
    subsets = itertools.combinations(range(len(rows)), len(rows) - f)
    return min(diameter(rows[list(subset)]) for subset in subsets)


def monna(rows: Doubles, f: int) -> Doubles:
    near = sorted(rows, key=lambda row: float(np.linalg.norm(row - rows[0])))
    return doubles(np.mean(near[: len(rows) - f], axis=0))


def cge(rows: Doubles, f: int) -> Doubles:
    short = sorted(rows, key=lambda row: float(np.linalg.norm(row)))
    return doubles(np.mean(short[: len(rows) - f], axis=0))


def centered_clipping(
    rows: Doubles, radius: float, steps: int, start: Doubles | None = None
) -> Doubles:
    point = np.zeros(rows.shape[1]) if start is None else start
    for _ in range(steps):
        moves = [
            (row - point) * min(1.0, radius / max(1e-300, float(np.linalg.norm(row - point))))
            for row in rows
        ]
        point = point + np.mean(moves, axis=0)
    return point


def fltrust(rows: Doubles, root: Doubles) -> Doubles:
    size = np.linalg.norm(root)
    trust = [max(0.0, float(row @ root / np.linalg.norm(row) / size)) for row in rows]
    scaled = [row * size / np.linalg.norm(row) for row in rows]
    return doubles(
        np.sum([t * row for t, row in zip(trust, scaled, strict=True)], axis=0) / sum(trust)
    )


def caf(rows: Doubles, f: int) -> Doubles:
    trust = np.ones(len(rows))
    best, narrowest = rows.mean(axis=0), math.inf
    while trust.sum() > len(rows) - 2 * f:
        centre = np.average(rows, axis=0, weights=trust)
        gaps = rows - centre
        covariance = sum(c * np.outer(gap, gap) for c, gap in zip(trust, gaps, strict=True))
        values, vectors = np.linalg.eigh(covariance / trust.sum())
        if values[-1] < narrowest:
            best, narrowest = centre, values[-1]
        spread = np.array([float(gap @ vectors[:, -1]) ** 2 for gap in gaps])
        trust = trust * (1 - spread / spread[trust > 0].max())
        trust[trust < 0] = 0.0
    return doubles(best)


def dnc(rows: Doubles, f: int) -> Doubles:
    """With every coordinate sampled, c = 1, one iteration."""
    centred = rows - rows.mean(axis=0)
    direction = np.linalg.svd(centred)[2][0]
    scores = [float(row @ direction) ** 2 for row in centred]
    good = sorted(range(len(rows)), key=lambda i: scores[i])[: len(rows) - f]
    return doubles(rows[good].mean(axis=0))


def nnm(rows: Doubles, f: int) -> Doubles:
    out = []
    for row in rows:
        near = sorted(rows, key=lambda other: float(np.linalg.norm(other - row)))
        out.append(np.mean(near[: len(rows) - f], axis=0))
    return np.array(out)


def clip(rows: Doubles, norm: float) -> Doubles:
    return np.array([row * min(1.0, norm / float(np.linalg.norm(row))) for row in rows])


def arc(rows: Doubles, f: int) -> Doubles:
    n = len(rows)
    norms = sorted(float(np.linalg.norm(row)) for row in rows)
    return clip(rows, norms[n - math.floor(2 * f / n * (n - f)) - 1])
