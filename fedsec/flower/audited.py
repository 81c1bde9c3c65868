"""A mechanism of privacy as an audit sees it: rows in, a release out.

It is the very value that a run uses, made from the same plan; an audit of another value, e.g. one
with a planted defect, takes it in its place.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedsec.errors import ConfigError
from fedsec.flower.strategy import Matrix
from fedsec.plan import FederationPlan, Privacy
from fedsec.plan.figures import figures_of, update_multiplier
from fedsec.plan.privacy import population
from fedsec.plan.terms import terms
from fedsec.privacy.audit import worst_rows
from fedsec.privacy.events import Price
from fedsec.privacy.keystream import Keystream
from fedsec.vectors import Vector

SAME = bytes(32)
"""Key of releases whose noise is to be the same."""


class Mechanism(Protocol):
    """Something that says it is private."""

    @property
    def units(self) -> int:
        """How many rows there can be."""
        ...

    @property
    def survivors(self) -> tuple[int, ...]:
        """How many of them may be there, in the cases worth a test."""
        ...

    @property
    def price(self) -> Price:
        """Of one release."""
        ...

    @property
    def multiplier(self) -> float:
        """Claimed: standard deviation of the noise over what one unit can change."""
        ...

    @property
    def replaces(self) -> bool:
        """Whether neighbours differ by another row, rather than by a row of zeros."""
        ...

    @property
    def sampling(self) -> float:
        """With which probability a unit takes part in a round."""
        ...

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """Returns the release of `rows` (m, d), m of the units, the noise drawn from `source`."""
        ...

    def sensitivity(self, survivors: int, clip: float) -> float:
        """Returns the most that one unit can change, in L2, as stated: the claim counts with it.

        Args:
            survivors: How many rows are there.
            clip: Largest L2 norm of a row that it is said to let through.
        """
        ...

    def changes(
        self, survivors: int, size: int, clip: float, rng: np.random.Generator
    ) -> Iterator[tuple[float, str]]:
        """Yields how far releases of neighbouring rows are apart, in L2, noise aside; and of which.

        Args:
            survivors: How many rows are there.
            size: d, entries of a row.
            clip: Largest L2 norm of a row that it is said to let through.
            rng: Of directions.
        """
        ...


@dataclass(frozen=True)
class Planned(ABC):
    """What the mechanisms have in common: their claim is the plan's.

    Args:
        plan: With a table [privacy].
    """

    plan: FederationPlan

    @property
    def units(self) -> int:
        """See `Mechanism`."""
        return population(self.plan)

    @property
    def replaces(self) -> bool:
        """See `Mechanism`: as the plan's guarantee says, on which its price rests."""
        return terms(self.plan).guarantee.adjacency == "replace-one"

    @property
    def sampling(self) -> float:
        """See `Mechanism`."""
        return 1.0

    @property
    def price(self) -> Price:
        """See `Mechanism`."""
        return terms(self.plan).price

    @property
    def multiplier(self) -> float:
        """See `Mechanism`: of the noise on updates, which share the price with figures."""
        return update_multiplier(self.plan)

    @property
    def privacy(self) -> Privacy:
        """The plan's table."""
        return privacy_of(self.plan)

    @abstractmethod
    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`."""

    @abstractmethod
    def sensitivity(self, survivors: int, clip: float) -> float:
        """See `Mechanism`."""

    def changes(
        self, survivors: int, size: int, clip: float, rng: np.random.Generator
    ) -> Iterator[tuple[float, str]]:
        """See `Mechanism`: the first row changes, among others that suit it."""
        for name, rows in worst_rows(survivors, size, clip, rng):
            yield self.change(rows, self.moved(rows, 0)), name

    def moved(self, rows: Matrix, row: int) -> Matrix:
        """Returns the neighbour of `rows` that is farthest off in one of them."""
        other = rows.copy()
        other[row] = -rows[row] if self.replaces else 0.0
        return other

    def change(self, rows: Matrix, other: Matrix) -> float:
        """Returns the distance of two releases with the same noise."""
        one, two = (self.release(each, Keystream(SAME)) for each in (rows, other))
        return distance(one, two)


def privacy_of(plan: FederationPlan) -> Privacy:
    """Returns the table [privacy].

    Raises:
        ConfigError: The plan has none.
    """
    if plan.privacy is None:
        raise ConfigError("the plan has no table [privacy]: there is nothing to audit")
    return plan.privacy


def distance(one: Vector, two: Vector) -> float:
    """Returns how far two releases (d,) are apart, in L2."""
    return float(np.linalg.norm(one.astype(np.float64) - two))


def without_figures(rows: Matrix, privacy: Privacy) -> Matrix:
    """Returns rows (m, d + k) behind which each of the k figures that the plan tells is missing."""
    figures = figures_of(privacy)
    if figures is None:
        return rows
    return np.hstack((rows, np.zeros((len(rows), figures.count), np.float32)))
