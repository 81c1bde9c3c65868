"""What adversaries see and where they write.

The simulator calls an attack when every row holds the update that its node formed in earnest, the
adversaries' rows too. The attack overwrites the adversaries' rows and no others.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError

Matrix: TypeAlias = NDArray[np.float32]
Vector: TypeAlias = NDArray[np.float32]
Knowledge: TypeAlias = Literal["own", "colluders", "omniscient"]
"""What an adversary knows: its own update, those of all adversaries, or those of everyone."""


@dataclass(frozen=True, eq=False)
class View:
    """One round, as adversaries see it.

    Args:
        rows: Everyone's update (n, d); the adversaries' rows are overwritten.
        byzantine: Which rows are the adversaries' (f,), ascending, 1 <= f < n.
        round: Number of the round, from 1.
        rng: Source of the adversaries' chance.
        rule: The coordinator's rule, (n, d) -> (d,), for attacks that try themselves out on it.
        memory: What the attack keeps from one round to the next, by name.

    Raises:
        ConfigError: The row numbers are not ascending, not rows, or leave no honest one.
    """

    rows: Matrix
    byzantine: tuple[int, ...]
    round: int
    rng: np.random.Generator
    rule: Callable[[Matrix], NDArray[Any]] | None = None
    memory: MutableMapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, numbers = len(self.rows), self.byzantine
        ascending = all(a < b for a, b in pairwise(numbers))
        if not numbers or not ascending or numbers[0] < 0 or numbers[-1] >= n:
            raise ConfigError(f"byzantine must be ascending row numbers in 0..{n - 1}: {numbers}")
        if len(numbers) == n:
            raise ConfigError(f"all {n} rows are Byzantine; at least one must be honest")

    @property
    def n(self) -> int:
        """Rows in all."""
        return len(self.rows)

    @property
    def f(self) -> int:
        """Adversaries' rows."""
        return len(self.byzantine)

    @cached_property
    def honest(self) -> Matrix:
        """Returns the honest rows (n - f, d); a view of `rows` where they lie together."""
        keep = np.ones(self.n, np.bool_)
        keep[list(self.byzantine)] = False
        return _rows_at(self.rows, np.flatnonzero(keep))

    @property
    def own(self) -> Matrix:
        """Returns a copy of what the adversaries' rows hold now (f, d)."""
        return self.rows[list(self.byzantine)]

    def known(self, knowledge: Knowledge) -> Matrix:
        """Returns the rows from which adversaries of this `knowledge` estimate the others'."""
        return self.honest if knowledge == "omniscient" else self.own

    def write(self, made: Matrix | Vector) -> None:
        """Puts `made`, one row for each adversary (f, d) or one for all (d,), in their place."""
        self.rows[list(self.byzantine)] = made


class Attack(Protocol):
    """How adversaries answer. A frozen value; what it remembers stands in the view's memory."""

    def __call__(self, view: View) -> None:
        """Overwrites the adversaries' rows of `view`."""
        ...


def _rows_at(rows: Matrix, places: NDArray[np.int64]) -> Matrix:
    first, last = int(places[0]), int(places[-1])
    together = last - first + 1 == len(places)
    return rows[first : last + 1] if together else rows[places]
