"""The arithmetic of each rule, once the rows are measured and mixed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.robust import coordinates, weighing
from fedsec.robust.aggregate import Aggregate, Doubles
from fedsec.robust.blocks import Block, Rows, Scratch
from fedsec.robust.combine import Combined, combine, weighted_sum
from fedsec.robust.coordinate_rules import Meamed, Mean, Median, TrimmedMean
from fedsec.robust.distance_rules import (
    Bulyan,
    Caf,
    Dnc,
    GeometricMedian,
    Krum,
    MinimumDiameter,
    Monna,
    MultiKrum,
)
from fedsec.robust.faults import Faults, count_byzantine
from fedsec.robust.geometry import Measured, distances_to, products_with
from fedsec.robust.mixing import Mixture
from fedsec.robust.norm_rules import CenteredClipping, Cge, FlTrust
from fedsec.robust.options import Row
from fedsec.robust.report import report
from fedsec.robust.rule import Rule
from fedsec.robust.weighing import Weighing


@dataclass(frozen=True)
class Work:
    """One call, after its rows were measured.

    Attributes:
        rule: What to do.
        n: How many rows came in.
        found: The usable ones.
        excluded: Why, for each of the others.
        dropped: How many of f they have used up.
        order: Of the usable rows, as they were mixed: their places (n,). None: as they came.
        mixture: The rows after pre-aggregation.
        shares: Weight of each usable row (n,), or None: alike.
        reference: See `Options`.
        rng: See `Options`.
        threads: See `Options`.
        diagnose: See `Options`.
    """

    rule: Rule
    n: int
    found: Measured
    excluded: Mapping[int, str]
    dropped: int
    order: NDArray[np.intp] | None
    mixture: Mixture
    shares: Doubles | None
    reference: Row | None
    rng: np.random.Generator | None
    threads: int
    diagnose: bool

    @property
    def f(self) -> int:
        """How many hostile rows may be among the usable ones."""
        return self.left(self.rule.faults)

    def left(self, byzantine: Faults) -> int:
        """Returns how many of `byzantine` may still be among the usable rows."""
        return max(0, count_byzantine(byzantine, self.n) - self.dropped)

    @property
    def measured(self) -> Rows:
        """The rows that the mixture is a mixture of."""
        return self.found.rows if self.mixture.formed is None else self.mixture.formed

    def ordered(self, values: Block) -> Block:
        """Returns what is known of the usable rows (n, ...), in `order`."""
        return values if self.order is None else values[self.order]

    def as_they_came(self, values: Doubles) -> Doubles:
        """Returns what is known of the usable rows in `order` (n,), as they came."""
        return values if self.order is None else values[np.argsort(self.order)]

    def alike(self) -> Doubles:
        """Returns the rows' shares: equal ones unless others were given."""
        m = len(self.mixture)
        return np.full(m, 1 / m) if self.shares is None else self.shares


def apply(work: Work) -> Aggregate:
    """Returns the result of one call."""
    if isinstance(work.rule, Median | TrimmedMean | Meamed | Bulyan):
        return _by_coordinate(work)
    weighed = _by_distances(work) or _by_norms(work) or _by_reference(work)
    if weighed is None:
        raise ConfigError(f"{work.rule!r} is no rule that fedsec knows")
    return _by_weight(work, weighed)


def _by_distances(work: Work) -> Weighing | None:
    """Returns a weight for each mixed row, from the products among them."""
    rule, mixture, f, m = work.rule, work.mixture, work.f, len(work.mixture)
    match rule:
        case Krum() | MultiKrum():
            keep = 1 if isinstance(rule, Krum) else rule.keep or m - f - 2
            return weighing.krum(mixture.distances(), rule.neighbours or m - f - 2, keep)
        case MinimumDiameter():
            return weighing.minimum_diameter(mixture.distances(), f)
        case GeometricMedian():
            if work.shares is not None:
                _heaviest(work.shares, f)
            return weighing.geometric_median(mixture.products(), rule, work.alike())
        case Caf():
            return weighing.caf(mixture.products(), f)
        case _:
            return None


def _by_norms(work: Work) -> Weighing | None:
    """Returns a weight for each mixed row, from norms, a sample of columns, or nothing."""
    match work.rule:
        case Mean():
            return Weighing(work.alike())
        case Cge():
            norms = np.sqrt(work.mixture.squares)
            return weighing.nearest_to(norms, len(norms) - work.f)
        case Dnc() as rule:
            return weighing.dnc(_samples(work, rule), rule, work.f)
        case _:
            return None


def _by_reference(work: Work) -> Weighing | None:
    """Returns a weight for each mixed row, from how it lies to a trusted row or vector."""
    mixture = work.mixture
    start = None
    if work.reference is not None and not (isinstance(work.rule, Monna) and mixture.matrix is None):
        start = _reference(work, work.reference)
    match work.rule:
        case Monna() as rule:
            keep = len(mixture) - work.f
            if rule.trusted is not None:
                return weighing.nearest_to(_to_trusted(work, rule.trusted), keep)
            if work.reference is None:
                return None
            return weighing.monna(_to_reference(work, work.reference, start), keep)
        case CenteredClipping() as rule:
            return weighing.centered_clipping(rule, mixture.squares, mixture.gram, start)
        case FlTrust() if start is not None:
            return weighing.fltrust(mixture.squares, *start)
        case _:
            return None


def _reference(work: Work, reference: Row) -> tuple[Doubles, float]:
    """Returns the reference's products with the mixed rows, and its squared norm."""
    dots = products_with(work.measured, reference, work.threads)
    long = reference.astype(np.float64)
    return work.mixture.mixed(work.ordered(dots)), float(np.dot(long, long))


def _to_trusted(work: Work, trusted: int) -> Doubles:
    """Returns the squared distance of each mixed row to the one in the trusted row's place."""
    rows = work.found.rows
    places = np.flatnonzero(rows.used == trusted)
    if not len(places) or trusted in work.excluded:
        raise ConfigError(f"Monna trusts row {trusted}, which {work.excluded[trusted]}")
    if work.mixture.matrix is None:
        return work.ordered(distances_to(rows, int(places[0]), work.threads))
    (place,) = np.flatnonzero(work.ordered(rows.used) == trusted)
    nearness: Doubles = work.mixture.distances()[place]
    return nearness


def _to_reference(work: Work, reference: Row, start: tuple[Doubles, float] | None) -> Doubles:
    """Returns the squared distance of each mixed row to the reference."""
    if work.mixture.matrix is None or start is None:
        return work.ordered(distances_to(work.found.rows, reference, work.threads))
    dots, square = start
    return work.mixture.squares - 2 * dots + square


def _samples(work: Work, rule: Dnc) -> list[Doubles]:
    """Returns the sampled columns of the mixed rows, one (m, sample) for each iteration."""
    rows = work.measured
    samples = []
    for _ in range(rule.iterations):
        if rule.sample >= rows.size:
            columns = np.arange(rows.size)
        elif work.rng is None:
            raise ConfigError("Dnc draws coordinates: give rng, or a sample that covers all")
        else:
            columns = np.sort(work.rng.choice(rows.size, rule.sample, replace=False))
        samples.append(work.mixture.mixed(work.ordered(rows.columns(columns))))
    return samples


def _by_weight(work: Work, made: Weighing) -> Aggregate:
    """Returns the weighted sum of the rows."""
    rows, matrix, reference = work.found.rows, work.mixture.matrix, work.reference
    weights = work.as_they_came(made.weights if matrix is None else made.weights @ matrix)
    scores = _scores(work, made.scores)
    precise = work.mixture.formed is not None
    if not (work.diagnose or precise) and (reference is None or not made.start):
        combined = Combined(weighted_sum(rows, weights, work.threads), None, 0.0)
        return report(work.found, work.excluded, work.n, combined, weights=weights, scores=scores)

    def former(block: Block, columns: slice, scratch: Scratch) -> Block:
        del scratch
        out: Block = weights.astype(block.dtype) @ block
        if reference is not None and made.start:
            out += (made.start * reference[columns]).astype(out.dtype)
        return out

    combined = combine(rows, former, threads=work.threads, diagnose=work.diagnose, precise=precise)
    return report(work.found, work.excluded, work.n, combined, weights=weights, scores=scores)


def _by_coordinate(work: Work) -> Aggregate:
    """Returns what the rule makes of each column block, mixed on the way."""
    rows, matrix, order = work.found.rows, work.mixture.matrix, work.order
    places, scores = None, None
    if isinstance(work.rule, Bulyan):
        picks = weighing.bulyan_picks(work.mixture.distances(), work.f)
        places = picks if matrix is not None or order is None else order[picks]
        scores = _scores(work, weighing.turns(picks, len(work.mixture)))
    # Of mixed values that are equally far from the median rounding would choose, so these are
    # summed in `order`; elsewhere it is cheaper to turn the matrix than the rows.
    turns = order is not None and matrix is not None and isinstance(work.rule, Meamed | Bulyan)
    if matrix is not None and order is not None and not turns:
        matrix = matrix[:, np.argsort(order)]
    reduce = _reducer(work)

    def former(block: Block, columns: slice, scratch: Scratch) -> Block:
        del columns
        if matrix is not None:
            mixed = scratch.take("mixed", (len(matrix), block.shape[1]), block.dtype)
            factors = matrix.astype(block.dtype)
            block = np.matmul(factors, work.ordered(block) if turns else block, out=mixed)
        return reduce(block if places is None else block[places], scratch)

    combined = combine(
        rows,
        former,
        threads=work.threads,
        diagnose=work.diagnose,
        precise=work.mixture.formed is not None,
    )
    return report(work.found, work.excluded, work.n, combined, weights=None, scores=scores)


def _scores(work: Work, scores: Doubles | None) -> Doubles | None:
    """Returns the scores of the mixed rows as those of the usable ones, unless buckets mixed."""
    if scores is None or len(scores) != len(work.found.rows):
        return None
    return work.as_they_came(scores)


def _heaviest(shares: Doubles, f: int) -> float:
    """Returns the weight of the f heaviest rows, as much as hostile ones may claim.

    Raises:
        ConfigError: It is half of all, so that they could be the majority.
    """
    held = float(np.sort(shares)[::-1][:f].sum())
    if not held < 0.5:  # noqa: PLR2004 - a majority
        raise ConfigError(
            f"the {f} heaviest rows hold {held:.2f} of the weight, which must be < 0.5: "
            "lower weight_cap"
        )
    return held


def _reducer(work: Work) -> coordinates.Reducer:
    rule, m, f, shares = work.rule, len(work.mixture), work.f, work.shares
    match rule:
        case TrimmedMean() if shares is not None:
            trim = _heaviest(shares, f)
            return lambda block, scratch: coordinates.weighted_trimmed_mean(
                block, shares, trim, scratch
            )
        case TrimmedMean():
            return lambda block, scratch: coordinates.trimmed_mean(block, f, scratch)
        case Meamed() | Bulyan():
            keep = m - f if isinstance(rule, Meamed) else m - 4 * f
            return lambda block, scratch: coordinates.mean_around_median(block, keep, scratch)
        case _:
            return coordinates.median
