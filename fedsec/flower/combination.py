"""What is made of the rows of a round: pre-aggregation and rule, and what privacy adds to them.

A combination is a value made from the plan. What it must remember from one round to the next goes
in and comes out, so that it is stored with the state of the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.records import NodeRecord
from fedsec.flower.reporting import Json
from fedsec.flower.strategy import Mean, Rule
from fedsec.vectors import Arrays, Vector


@dataclass(frozen=True, eq=False)
class Combined:
    """One vector, and what is told of how it came about.

    Args:
        vector: Along which the model moves (d,).
        memory: What the next round's call gets.
        figures: For the report of the round, which everybody who may watch the run reads.
        records: Of each row; told to the same people, unless the plan promises central privacy.
    """

    vector: Vector
    memory: Arrays
    figures: Mapping[str, Json] = field(default_factory=dict)
    records: tuple[NodeRecord, ...] = ()


class Combination(Protocol):
    """How the rows of a round become one vector."""

    def __call__(self, attempt: Attempt, collected: Collected, memory: Arrays) -> Combined:
        """Returns one vector (d,).

        Args:
            attempt: Which one, and who was asked.
            collected: From at least as many nodes as the quorum; never changed.
            memory: What the round before left; empty before the first.

        Raises:
            AttemptMissed: Too little was collected for what the plan promises.
            BudgetExhausted: The release would cost more privacy than is left; nothing is released.
        """
        ...


@dataclass(frozen=True, slots=True)
class Weighted:
    """A rule on the rows and their weights.

    Args:
        rule: From rows and shares to one vector.
    """

    rule: Rule = Mean()  # noqa: RUF009 - frozen

    def __call__(self, attempt: Attempt, collected: Collected, memory: Arrays) -> Combined:
        """See `Combination`."""
        del attempt
        shares = collected.weights / collected.weights.sum()
        return Combined(self.rule(collected.rows, shares), memory)


@dataclass(frozen=True, slots=True)
class OverPopulation:
    """The sum of all updates over a public number, whoever answered.

    For sums that are noised before they get here: what they are divided by must not tell more. A
    row times its weight is a sum.

    Args:
        nodes: How many can take part, as the plan says, >= 1.
    """

    nodes: int

    def __call__(self, attempt: Attempt, collected: Collected, memory: Arrays) -> Combined:
        """See `Combination`."""
        del attempt
        shares = collected.weights / self.nodes
        vector: Vector = shares.astype(np.float32) @ collected.rows
        return Combined(vector, memory)
