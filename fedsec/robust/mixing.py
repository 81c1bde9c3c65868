"""The arithmetic of pre-aggregations: each is a matrix, and matrices compose.

The mixed rows are ``M @ rows`` and their products ``M G M^T``: they need not be formed. Buckets are
where something looks at them: `fedsec.robust.needs.formed_at` says why.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fedsec.errors import ConfigError
from fedsec.robust.aggregate import Doubles
from fedsec.robust.blocks import Rows
from fedsec.robust.faults import Faults
from fedsec.robust.geometry import (
    Measured,
    certified,
    mixed_spans,
    norms_certified,
    plain_spans,
    squared_distances,
)
from fedsec.robust.premixing import Arc, Bucketing, Clip, Nnm, Premix


@dataclass(frozen=True)
class Mixture:
    """Rows after pre-aggregation, without the rows.

    Attributes:
        matrix: Factors of the usable rows (m, n); None: the rows themselves.
        squares: Squared norms of the mixed rows (m,); NaN where only products would tell them.
        gram: Products of the mixed rows (m, m), or None.
        spans: As for `certified`, of the mixed rows (m, m); None where there are no products.
        certified: Whether every distance that was looked at is known well enough.
        reach: Relative error bound of `gram`.
        own: Factors of the rows that were measured; None: these are they. Differs from `matrix`
            where buckets were formed.
        formed: The rows that were measured, if not the usable ones.
    """

    matrix: Doubles | None
    squares: Doubles
    gram: Doubles | None
    spans: Doubles | None
    certified: bool
    reach: float
    own: Doubles | None = None
    formed: Rows | None = None

    def __len__(self) -> int:
        return len(self.squares)

    def mixed(self, values: Doubles) -> Doubles:
        """Returns what is linear in the rows that were measured, of the mixed ones (m, ...)."""
        return values if self.own is None else self.own @ values

    def behind(self, matrix: Doubles, formed: Rows) -> "Mixture":
        """Returns the mixture of rows that are themselves mixed, by `matrix`, and were formed."""
        total = matrix if self.matrix is None else self.matrix @ matrix
        return replace(self, matrix=total, formed=formed if self.formed is None else self.formed)

    def products(self) -> Doubles:
        """Returns the products of the mixed rows (m, m).

        Raises:
            ConfigError: They were not measured; a stage that looks at them must be in `needs`.
        """
        if self.gram is None:
            raise ConfigError("products among the rows were not measured")
        return self.gram

    def distances(self) -> Doubles:
        """Returns the squared distances of the mixed rows (m, m); as `products`."""
        products = self.products()
        if self.spans is None:
            raise RuntimeError("the spans are made beside the products")
        return squared_distances(products, self.spans, self.reach)


def mix(
    stages: tuple[Premix, ...],
    found: Measured,
    count: Callable[[Faults], int],
    chances: Iterator[np.random.Generator] | None,
    *,
    looks: bool,
) -> Mixture:
    """Returns the rows after all `stages`.

    Args:
        stages: In this order.
        found: The usable rows' norms, and products if a stage needs them.
        count: From a stage's `byzantine` to how many hostile rows are left.
        chances: For bucketing, a source for each time.
        looks: Whether a rule looks at products of the mixed rows.

    Raises:
        ConfigError: A stage draws and there is no source.
    """
    spans = None if found.gram is None else plain_spans(found.squares)
    mixed = Mixture(None, found.squares, found.gram, spans, certified=True, reach=found.reach)
    for stage in stages:
        if isinstance(stage, Nnm):
            mixed = _looked_at(mixed, found)
        elif isinstance(stage, Clip | Arc):
            mixed = _measured(mixed, found)
        matrix = _matrix(stage, mixed, count, chances)
        after = matrix if mixed.matrix is None else matrix @ mixed.matrix
        gram = None if found.gram is None else _products(after, found.gram)
        squares = _squares(stage, mixed, gram, count)
        spans = None if gram is None else mixed_spans(after, found.squares)
        mixed = Mixture(after, squares, gram, spans, mixed.certified, found.reach, own=after)
    return _looked_at(mixed, found) if looks else mixed


def _products(matrix: Doubles, gram: Doubles) -> Doubles:
    """Returns the products of the mixed rows (m', m').

    Symmetric to the last bit, else rounding would say which of two rows is nearer to the other; and
    no row that mixing cancels has a squared norm below 0.
    """
    half = matrix @ gram @ matrix.T / 2
    products: Doubles = half + half.T
    np.fill_diagonal(products, np.maximum(np.diag(products), 0.0))
    return products


def _looked_at(mixed: Mixture, found: Measured) -> Mixture:
    """Returns `mixed`, which stays certified only if its own distances are known well enough."""
    if mixed.matrix is None or mixed.spans is None or not mixed.certified:
        return mixed
    return replace(mixed, certified=certified(found, mixed.spans, mixed.gram))


def _measured(mixed: Mixture, found: Measured) -> Mixture:
    """Returns `mixed`, which stays certified only if its rows' norms are known well enough."""
    if mixed.matrix is None or not mixed.certified:
        return mixed
    return replace(mixed, certified=norms_certified(found, mixed.matrix, mixed.squares))


def _squares(
    stage: Premix, mixed: Mixture, gram: Doubles | None, count: Callable[[Faults], int]
) -> Doubles:
    """Returns the squared norms behind the stage (m',), exactly the limit for what was clipped.

    So that to a rule that goes by norms clipped rows are alike, however products are rounded.
    """
    if isinstance(stage, Clip | Arc):
        return np.minimum(mixed.squares, _limit(stage, mixed.squares, count))
    if gram is not None:
        return np.diag(gram)
    m = stage.rows(len(mixed))
    return mixed.squares if m == len(mixed) else np.full(m, np.nan)


def _limit(stage: Clip | Arc, squares: Doubles, count: Callable[[Faults], int]) -> float:
    """Returns the squared norm beyond which the stage clips a row."""
    if isinstance(stage, Clip):
        return stage.norm * stage.norm
    m, f = len(squares), count(stage.byzantine)
    clipped = int(2 * f / m * (m - f) + 1e-9)
    return float(np.sort(squares)[m - clipped - 1])


def _matrix(
    stage: Premix,
    mixed: Mixture,
    count: Callable[[Faults], int],
    chances: Iterator[np.random.Generator] | None,
) -> Doubles:
    """Returns the factors (m', m) of one stage."""
    m = len(mixed)
    match stage:
        case Nnm():
            distances = mixed.distances()
            np.fill_diagonal(distances, -1.0)  # a row is its own nearest
            keep = m - count(stage.byzantine)
            nearest = np.argsort(distances, axis=1, kind="stable")[:, :keep]
            matrix = np.zeros((m, m))
            np.put_along_axis(matrix, nearest, 1 / keep, axis=1)
            return matrix
        case Bucketing():
            return _buckets(stage.size, m, chances)
        case Clip() | Arc():
            limit = _limit(stage, mixed.squares, count)
            factors = np.ones(m)
            np.divide(limit, mixed.squares, out=factors, where=mixed.squares > limit)
            return np.diag(np.sqrt(factors))
        case _:
            raise ConfigError(f"{stage!r} is no pre-aggregation that fedsec knows")


def _buckets(size: int, m: int, chances: Iterator[np.random.Generator] | None) -> Doubles:
    if size == 1:
        return np.eye(m)
    if chances is None:
        raise ConfigError("bucketing draws which rows go together: give rng")
    order = next(chances).permutation(m)
    matrix = np.zeros((-(-m // size), m))
    for bucket, start in enumerate(range(0, m, size)):
        members = order[start : start + size]
        matrix[bucket, members] = 1 / len(members)
    return matrix
