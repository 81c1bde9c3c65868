"""Pre-aggregations: what is done to the rows before a rule sees them. Parameters only.

Sources: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Fixing by Mixing: A Recipe for
Optimal Byzantine ML under Heterogeneity", AISTATS 2023, algorithm 2 (nearest-neighbour mixing).
Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR
2022, algorithm 1. Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan, "Adaptive Gradient Clipping
for Robust Federated Learning", ICLR 2025, algorithm 2 (ARC).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fedsec.robust.faults import (
    Faults,
    at_least,
    check_byzantine,
    check_minority,
    count_byzantine,
    need,
    positive,
)


@dataclass(frozen=True)
class Premix(ABC):
    """n rows in, m rows out, each a linear combination of the rows that came in."""

    @abstractmethod
    def check(self, n: int) -> None:
        """Raises unless the promise holds for `n` rows.

        Raises:
            ConfigError: n is too small.
        """

    def rows(self, n: int) -> int:
        """Returns m."""
        return n

    def row_change(self, change: float, n: int) -> float | None:
        """Returns how far one row out moves at most when one row in moves by `change`.

        None where more than one row may move, so that no bound of the rule holds.
        """
        del change, n
        return None


@dataclass(frozen=True)
class Nnm(Premix):
    """Replaces each row by the mean of the n-f rows nearest to it, itself included.

    Withstands f < n/2. Time O(n^2 d); in front of a rule that only looks at distances the mixed
    rows are never formed.

    Args:
        byzantine: f, or a share of the rows.
    """

    byzantine: Faults

    def __post_init__(self) -> None:
        check_byzantine(self.byzantine)

    def check(self, n: int) -> None:
        """Needs n >= 2f+1."""
        check_minority("nnm", n, count_byzantine(self.byzantine, n))


@dataclass(frozen=True)
class Bucketing(Premix):
    """Replaces the rows, in random order, by the means of `size` at a time; the last may hold less.

    Evens out how much honest rows differ. f hostile rows spoil up to f of the n/s buckets, so the
    rule behind it needs f < n/(2s). Draws: needs `rng`, unless `size` is 1. Before what goes by
    norms or distances it costs a pass in float64, time O(n^2 d / s).

    Args:
        size: s, >= 1.
        byzantine: f, or a share of the rows.
    """

    size: int
    byzantine: Faults = 0

    def __post_init__(self) -> None:
        at_least("size", self.size, 1)
        check_byzantine(self.byzantine)

    def check(self, n: int) -> None:
        """Needs n >= 2sf+1."""
        f = count_byzantine(self.byzantine, n)
        need("bucketing", n, f, 2 * self.size * f + 1, f"2*{self.size}*f+1")

    def rows(self, n: int) -> int:
        """ceil(n/s)."""
        return -(-n // self.size)

    def row_change(self, change: float, n: int) -> float:
        """Change over the rows in the smallest bucket: buckets are disjoint, drawn without data."""
        return change / (n % self.size or min(self.size, n))


@dataclass(frozen=True)
class Clip(Premix):
    """Scales each row that is longer than `norm` down to it.

    Args:
        norm: C, > 0, in the unit of the updates.
    """

    norm: float

    def __post_init__(self) -> None:
        positive("norm", self.norm)

    def check(self, n: int) -> None:
        """Needs n >= 1."""
        need("clip", n, 0, 1, "1")

    def row_change(self, change: float, n: int) -> float:
        """Clipping does not expand, and no row ends farther than 2C from another."""
        del n
        return min(change, 2 * self.norm)


@dataclass(frozen=True)
class Arc(Premix):
    """Scales the floor(2 (f/n) (n-f)) longest rows down to the next longest (adaptive clipping).

    Withstands f < n/2; keeps the promise of the rule behind it. Time O(n d).

    Args:
        byzantine: f, or a share of the rows.
    """

    byzantine: Faults

    def __post_init__(self) -> None:
        check_byzantine(self.byzantine)

    def check(self, n: int) -> None:
        """Needs n >= 2f+1."""
        check_minority("arc", n, count_byzantine(self.byzantine, n))
