"""From updates to one vector: screen the rows, measure, mix, weigh, combine.

One pass measures norms, and products where a stage looks at distances; a second one combines the
rows. Where norms or distances decide behind buckets, another pass forms these, block by block, and
measures them. Beside the input there are n^2 numbers and a few column blocks per thread.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from types import MappingProxyType
from typing import Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.robust.aggregate import Aggregate, Diagnostics, Doubles, Mixed
from fedsec.robust.apply import Work, apply
from fedsec.robust.blocks import Block, Rows, Scratch, exact_squares, open_rows
from fedsec.robust.combine import combine, mix_rows, plain_sum
from fedsec.robust.coordinate_rules import Mean
from fedsec.robust.faults import TooManyFaults, count_byzantine
from fedsec.robust.geometry import Measured, measure_gram, measure_norms
from fedsec.robust.mixing import Mixture, mix
from fedsec.robust.needs import (
    check_options,
    check_reference,
    chooses,
    formed_at,
    looks_at_products,
    wants_accuracy,
    wants_products,
)
from fedsec.robust.options import Options, Row, Updates
from fedsec.robust.ordering import by_contents
from fedsec.robust.pipeline import Pipeline
from fedsec.robust.premixing import Arc, Bucketing, Nnm, Premix
from fedsec.robust.report import report
from fedsec.robust.rule import Rule
from fedsec.robust.shares import cap_shares
from fedsec.vectors import is_finite


@dataclass(frozen=True)
class _Call:
    """A rule with the options of one call; `fedsec.robust.rule.Options` says what they are."""

    rule: Rule
    before: tuple[Premix, ...] = ()
    weights: Doubles | None = None
    weight_cap: float = 3.0
    reference: Row | None = None
    rng: np.random.Generator | None = None
    unusable: Literal["drop", "zero"] = "drop"
    threads: int = 1
    diagnose: bool = True


def aggregate(rule: Rule, updates: Updates, **options: Unpack[Options]) -> Aggregate:
    """Returns what `rule` makes of the updates, and how each row came into it.

    A row that is not finite, or of another shape or dtype than most, is left out and counts
    against f. Rows are differences from the model that was sent; nothing is written to them.

    Args:
        rule: With its parameters.
        updates: A matrix (n, d) or n rows (d,), float16 (worked on in float32), float32, float64.
        **options: See `fedsec.robust.rule.Options`.

    Raises:
        ConfigError: n is too small for a stage, or an option does not go with the rule.
        TooManyFaults: More than f rows are unusable.
    """
    call = _Call(rule, **options)
    check_options(
        rule,
        call.before,
        weights=call.weights,
        reference=call.reference,
        unusable=call.unusable,
        threads=call.threads,
    )
    Pipeline(rule, call.before).check(len(updates))
    if isinstance(rule, Mean) and not call.before:
        at_once = _mean_at_once(call, updates)
        if at_once is not None:
            return at_once
    return apply(_prepared(call, updates))


def _prepared(call: _Call, updates: Updates) -> Work:
    """Returns the rows measured and mixed."""
    rule, before, reference, threads = call.rule, call.before, call.reference, call.threads
    n, zero = len(updates), call.unusable == "zero"
    found, excluded = _measure(
        updates,
        _allowed(rule, before, n),
        zero=zero,
        products=wants_products(rule, before, reference),
        accurate=wants_accuracy(rule, before, reference, n),
        threads=threads,
    )
    check_reference(reference, found.rows)
    dropped = 0 if zero else len(excluded)
    order = by_contents(found.rows) if chooses(rule, before) else None
    draws = _draws(call.rng, before)
    mixing = _Mixing(rule, reference, order, draws, n, dropped, threads)
    found, mixture = mixing(before, found)
    shares = _shares(call, found.rows, n)
    return Work(
        rule,
        n,
        found,
        excluded,
        dropped,
        order,
        mixture,
        shares,
        reference,
        call.rng,
        threads,
        call.diagnose,
    )


def _allowed(rule: Rule, before: tuple[Premix, ...], n: int) -> int:
    """Returns how many rows may be unusable: what the rule and each stage withstand."""
    stages = (stage.byzantine for stage in before if isinstance(stage, Nnm | Arc))
    return min(count_byzantine(faults, n) for faults in (rule.faults, *stages))


def _mean_at_once(call: _Call, updates: Updates) -> Aggregate | None:
    """Returns the mean from one pass; None if a row is not usable, which then shows in the mean."""
    rows, wrong = open_rows(updates, zero=False)
    if wrong or (not call.diagnose and rows.working == np.float64):
        return None  # of float64 only the norms tell a huge row
    n = len(rows)
    shares = _shares(call, rows, n)
    weights = np.full(n, 1 / n) if shares is None else shares
    if call.diagnose:
        return _mean_measured(rows, weights, call.threads)
    vector = plain_sum(rows, weights, call.threads)
    if not is_finite(vector):
        return None
    unknown = np.full(n, np.nan)
    told = Diagnostics(unknown, unknown, unknown, None, MappingProxyType({}), "none")
    return Aggregate(vector, weights, (), told)


def _mean_measured(rows: Rows, weights: Doubles, threads: int) -> Aggregate | None:
    """Returns the mean and how each row lies to it; None if a row is not usable."""
    factors = weights.astype(rows.working)

    def former(block: Block, columns: slice, scratch: Scratch) -> Block:
        del columns, scratch
        product: Block = factors @ block
        return product

    combined = combine(rows, former, threads=threads, diagnose=True, measure=True)
    if combined.squares is None or not is_finite(combined.vector):
        return None
    squares = exact_squares(rows, combined.squares)
    if not np.isfinite(squares).all():
        return None
    found = Measured(rows, {}, squares)
    return report(found, {}, len(rows), combined, weights=weights, scores=None)


def premix(
    before: tuple[Premix, ...],
    updates: Updates,
    *,
    rng: np.random.Generator | None = None,
    byzantine: int = 0,
    threads: int = 1,
) -> Mixed:
    """Returns the rows that pre-aggregations make, formed.

    Args:
        before: Pre-aggregations, in this order.
        updates: As for `aggregate`.
        rng: For bucketing.
        byzantine: How many rows may be unusable; they are left out.
        threads: Over how many the column blocks are spread.

    Raises:
        ConfigError: n is too small for a stage.
        TooManyFaults: More than `byzantine` rows are unusable.
    """
    rule = Mean(byzantine)
    Pipeline(rule, before).check(len(updates))
    products = wants_products(rule, before, None)
    found, excluded = _measure(
        updates, byzantine, zero=False, products=products, accurate=False, threads=threads
    )
    order = by_contents(found.rows) if chooses(rule, before) else None
    mixing = _Mixing(rule, None, order, _draws(rng, before), len(updates), len(excluded), threads)
    found, mixture = mixing(before, found)
    matrix = np.eye(len(found.rows)) if mixture.matrix is None else mixture.matrix
    if order is not None:
        places = np.argsort(order)
        matrix = matrix[np.ix_(places, places)]
    full = np.zeros((len(matrix), len(updates)))
    full[:, found.rows.used] = matrix
    precise = mixture.formed is not None
    return Mixed(mix_rows(found.rows, matrix, threads, precise=precise), full, excluded)


def _measure(
    updates: Updates, allowed: int, *, zero: bool, products: bool, accurate: bool, threads: int
) -> tuple[Measured, dict[int, str]]:
    rows, excluded = open_rows(updates, zero=zero)
    if len(excluded) > allowed:
        raise TooManyFaults(excluded, allowed, len(updates))
    if products:
        found = measure_gram(rows, zero=zero, threads=threads, accurate=accurate)
    else:
        found = measure_norms(rows, zero=zero, threads=threads)
    excluded |= found.excluded
    if len(excluded) > allowed:
        raise TooManyFaults(excluded, allowed, len(updates))
    return found, excluded


@dataclass(frozen=True)
class _Mixing:
    """The way from rows that came in to those that a rule sees.

    Args:
        rule: Sees them.
        reference: See `Options`.
        order: In which the usable rows are mixed; None: as they came.
        seed: Of what is drawn; drawn once, since a second attempt must make the same buckets.
        n: How many rows came in.
        dropped: How many of f unusable ones have used up.
        threads: See `Options`.
    """

    rule: Rule
    reference: Row | None
    order: NDArray[np.intp] | None
    seed: int | None
    n: int
    dropped: int
    threads: int

    def __call__(
        self, before: tuple[Premix, ...], found: Measured, drawn: int = 0
    ) -> tuple[Measured, Mixture]:
        """Returns the rows, measured in float64 if that is needed, and mixed.

        Args:
            before: Stages that are left.
            found: The rows that they meet.
            drawn: How many times rows were put into buckets before.
        """
        formed = formed_at(self.rule, before, self.reference)
        if not formed:
            looks = looks_at_products(self.rule, before, self.reference)
            return self._mixed(before, found, drawn, looks=looks)
        head, rest = before[:formed], before[formed:]
        found, mixture = self._mixed(head, found, drawn, looks=False)
        if mixture.matrix is None:
            raise RuntimeError("buckets are a matrix")
        rows = found.rows.formed(mixture.matrix)
        measured = self._measured(rest, rows)
        drawn += sum(isinstance(stage, Bucketing) and stage.size > 1 for stage in head)
        behind, made = self(rest, measured, drawn)
        found = replace(found, precision=behind.precision)
        return found, made.behind(mixture.matrix, rows)

    def _measured(self, rest: tuple[Premix, ...], rows: Rows) -> Measured:
        """Returns what the `rest` of the stages, and the rule, look at of formed rows."""
        if wants_products(self.rule, rest, self.reference):
            return measure_gram(rows, zero=False, threads=self.threads, accurate=True)
        return measure_norms(rows, zero=False, threads=self.threads)

    def _mixed(
        self, before: tuple[Premix, ...], found: Measured, drawn: int, *, looks: bool
    ) -> tuple[Measured, Mixture]:
        mixture = self._attempt(before, found, drawn, looks=looks)
        if not mixture.certified:
            found = measure_gram(found.rows, zero=False, threads=self.threads, accurate=True)
            mixture = self._attempt(before, found, drawn, looks=looks)
        return found, mixture

    def _attempt(
        self, before: tuple[Premix, ...], found: Measured, drawn: int, *, looks: bool
    ) -> Mixture:
        return mix(
            before,
            found if self.order is None else found.take(self.order),
            lambda byzantine: max(0, count_byzantine(byzantine, self.n) - self.dropped),
            None if self.seed is None else _chances(self.seed, drawn),
            looks=looks,
        )


def _chances(seed: int, drawn: int) -> Iterator[np.random.Generator]:
    """Yields a source for each time that rows are put into buckets, but for those `drawn`."""
    return (np.random.default_rng([seed, number]) for number in count(drawn))


def _draws(rng: np.random.Generator | None, before: tuple[Premix, ...]) -> int | None:
    return None if rng is None or not before else int(rng.integers(1 << 62))


def _shares(call: _Call, rows: Rows, n: int) -> Doubles | None:
    """Returns the capped share of each usable row, or None: alike."""
    if call.weights is None:
        return None
    weights = np.asarray(call.weights, np.float64)
    if weights.shape != (n,):
        raise ConfigError(f"weights must be one for each of {n} rows, got shape {weights.shape}")
    return cap_shares(weights[rows.used], call.weight_cap)
