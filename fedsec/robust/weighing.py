"""The arithmetic of rules that weigh rows: from products among the rows to one weight for each.

None of these functions sees a row: distances, spectra and norms all follow from the products.
"""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, eigsh

from fedsec.robust.aggregate import Doubles
from fedsec.robust.diameter import least_diameter
from fedsec.robust.distance_rules import Dnc, GeometricMedian
from fedsec.robust.norm_rules import CenteredClipping

MANY = 200
_SETTLED = 1e-9
_NO_DIRECTION = 1e-60


@dataclass(frozen=True)
class Weighing:
    """What a rule makes of the rows.

    Attributes:
        weights: Factor of each row (m,).
        scores: What it held against each row (m,), or None.
        start: Factor of the reference vector.
    """

    weights: Doubles
    scores: Doubles | None = None
    start: float = 0.0


def mean_of(chosen: NDArray[np.intp] | list[int], m: int, scores: Doubles | None) -> Weighing:
    """Returns equal weights for the `chosen` of `m` rows."""
    weights = np.zeros(m)
    weights[chosen] = 1 / len(chosen)
    return Weighing(weights, scores)


def krum_scores(distances: Doubles, neighbours: int) -> Doubles:
    """Returns the sum of squared distances to each row's nearest others (m,)."""
    others = distances.copy()
    np.fill_diagonal(others, np.inf)
    scores: Doubles = np.sort(others, axis=1)[:, :neighbours].sum(axis=1)
    return scores


def _best(distances: Doubles, scores: Doubles) -> NDArray[np.intp]:
    """Returns the rows from the lowest score.

    Of two that are each other's only neighbour the more central comes first, so that the choice
    does not hang on the order in which they came.
    """
    return np.lexsort((distances.sum(axis=1), scores))


def krum(distances: Doubles, neighbours: int, keep: int) -> Weighing:
    """Returns equal weights for the `keep` rows of lowest score."""
    scores = krum_scores(distances, neighbours)
    return mean_of(_best(distances, scores)[:keep], len(scores), scores)


def bulyan_picks(distances: Doubles, f: int) -> NDArray[np.intp]:
    """Returns the m-2f rows that Krum picks one after another, in this order."""
    left = list(range(len(distances)))
    picked = []
    for _ in range(len(distances) - 2 * f):
        among = distances[np.ix_(left, left)]
        scores = krum_scores(among, max(1, len(left) - f - 2))
        picked.append(left.pop(int(_best(among, scores)[0])))
    return np.array(picked)


def turns(picked: NDArray[np.intp], m: int) -> Doubles:
    """Returns how many of the `m` rows were picked before each, all of them for the rest (m,)."""
    before = np.full(m, float(len(picked)))
    before[picked] = np.arange(len(picked))
    return before


def geometric_median(gram: Doubles, rule: GeometricMedian, shares: Doubles) -> Weighing:
    """Returns the weights after the last Weiszfeld step; scores are distances to its point."""
    squares = np.diag(gram)
    gaps = np.sqrt(squares)
    weights = np.zeros(len(gram))
    for _ in range(rule.iterations):
        pull = shares / np.maximum(gaps, rule.smoothing)
        before, weights = weights, pull / pull.sum()
        along = gram @ weights
        gaps = np.sqrt(np.maximum(squares - 2 * along + weights @ along, 0.0))
        if (np.abs(weights - before) <= _SETTLED * weights).all():  # a small weight may yet grow
            break
    return Weighing(weights, gaps)


def minimum_diameter(distances: Doubles, f: int) -> Weighing:
    """Returns equal weights for the m-f rows of least diameter.

    The search goes through the rows from the most central one, so that it does not hang on the
    order in which they came. Scores are the squared distances to the farthest kept row.
    """
    order = np.argsort(distances.sum(axis=1), kind="stable")
    kept = order[least_diameter(distances[np.ix_(order, order)], f)]
    return mean_of(kept, len(distances), distances[:, kept].max(axis=1))


def nearest_to(distances: Doubles, keep: int) -> Weighing:
    """Returns equal weights for the `keep` rows of least `distances` (m,)."""
    return mean_of(np.argsort(distances, kind="stable")[:keep], len(distances), distances)


def monna(distances: Doubles, keep: int) -> Weighing:
    """Returns equal weights for the reference and the `keep` rows nearest to it.

    Args:
        distances: Squared, of each row to the reference (m,).
        keep: How many rows.
    """
    weights = np.zeros(len(distances))
    weights[np.argsort(distances, kind="stable")[:keep]] = 1 / (keep + 1)
    return Weighing(weights, distances, 1 / (keep + 1))


def caf(gram: Doubles, f: int) -> Weighing:
    """Returns the weights of the mean with the narrowest spread; scores are weight lost."""
    m = len(gram)
    trust = np.ones(m)
    narrowest, best = np.inf, trust / m
    lost = np.zeros(m)
    while trust.sum() > m - 2 * f or narrowest == np.inf:
        total = trust.sum()
        left = np.flatnonzero(trust > 0)
        share = trust[left] / total
        part = gram[np.ix_(left, left)]
        along = part @ share
        spread = part - along[:, None] - along[None, :] + share @ along
        root = np.sqrt(share)
        value, vector = top_eigenpair(spread * np.outer(root, root))
        top = max(value, 0.0)
        if top < narrowest:
            narrowest, best, lost = top, _spread_out(share, left, m), 1 - trust
        projections = (spread @ (root * vector)) ** 2
        peak = projections.max()
        if not peak > 0:
            break  # what is left does not differ
        trust[left] *= 1 - projections / peak
    return Weighing(best, lost)


def top_eigenpair(matrix: Doubles) -> tuple[float, Doubles]:
    """Returns the largest eigenvalue of a symmetric matrix (m, m) and its unit eigenvector (m,).

    To machine precision and without chance. Time O(m^3); above `MANY` about O(m^2), by Lanczos
    steps from a fixed start.
    """
    m = len(matrix)
    if m > MANY:
        start = 1 + np.arange(m) / m
        with suppress(ArpackError):  # it did not settle: the dense way always does
            values, vectors = eigsh(matrix, k=1, which="LA", v0=start, rng=np.random.default_rng(0))
            return float(values[0]), vectors[:, 0]
    values, vectors = np.linalg.eigh(matrix)
    return float(values[-1]), vectors[:, -1]


def _spread_out(share: Doubles, left: NDArray[np.intp], m: int) -> Doubles:
    weights = np.zeros(m)
    weights[left] = share
    return weights


def centered_clipping(
    rule: CenteredClipping,
    squares: Doubles,
    gram: Doubles | None,
    start: tuple[Doubles, float] | None,
) -> Weighing:
    """Returns the weights after all steps; scores are distances to the last place but one.

    Args:
        rule: Radius and number of steps.
        squares: Squared norms (m,).
        gram: Products (m, m); None: one step from the origin, which needs norms only.
        start: Products of the rows with the reference (m,), and its squared norm; None: origin.
    """
    m = len(squares)
    dots, square = start or (np.zeros(m), 0.0)
    weights, left = np.zeros(m), 1.0
    gaps = np.sqrt(squares)
    for _ in range(rule.iterations):
        along = left * dots
        here: float = left**2 * square
        if gram is not None:
            pulled = gram @ weights
            here += float(2 * left * (weights @ dots) + weights @ pulled)
            along = along + pulled
        gaps = np.sqrt(np.maximum(squares - 2 * along + here, 0.0))
        step = np.minimum(1.0, rule.radius / np.maximum(gaps, rule.radius)) / m
        weights = weights * (1 - step.sum()) + step
        left *= 1 - step.sum()
    return Weighing(weights, gaps, left if start is not None else 0.0)


def fltrust(squares: Doubles, dots: Doubles, square: float) -> Weighing:
    """Returns the weights of rows that point the reference's way; scores are 1 - cosine."""
    norms = np.sqrt(squares * square)
    told = squares > _NO_DIRECTION * square  # else rounding decides where a row points
    cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=told & (norms > 0))
    trust = np.maximum(cosines, 0.0)
    total = trust.sum()
    if not total > 0:
        return Weighing(np.zeros(len(dots)), 1 - cosines)
    scale = np.sqrt(np.divide(square, squares, out=np.zeros_like(dots), where=told))
    return Weighing(trust / total * scale, 1 - cosines)


def dnc(samples: list[Doubles], rule: Dnc, f: int) -> Weighing:
    """Returns equal weights for the rows that no sample drops; scores are the worst projections.

    Args:
        samples: Sampled columns (m, sample) of each iteration.
        rule: How many a sample drops.
        f: Hostile rows.
    """
    m = len(samples[0])
    good = np.ones(m, np.bool_)
    worst = np.zeros(m)
    for sample in samples:
        centred = sample - sample.mean(axis=0)
        values, vectors = np.linalg.eigh(centred @ centred.T)
        scores = max(float(values[-1]), 0.0) * vectors[:, -1] ** 2  # squared projections
        order = np.argsort(scores, kind="stable")
        good[order[m - rule.drops(f) :]] = False
        worst = np.maximum(worst, scores)
    return mean_of(np.flatnonzero(good), m, worst)
