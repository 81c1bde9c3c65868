"""What the charges of a ledger come to: for each column and unit, in all and run by run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedsec.privacy.accounting import ACCOUNTANT, method, spent
from fedsec.privacy.events import Event, Gaussian, Skellam
from fedsec.privacy.ledger import (
    OBSERVERS,
    Adjacency,
    Charge,
    Column,
    Observer,
    Unit,
    holds_against,
    weakest_adjacency,
)

MAX_POINTS = 60
"""Of a curve: composing takes up to a second."""

COLUMNS: Mapping[Column, str] = {
    "enforced": "enforced by who keeps this ledger",
    "promised": "promised to who keeps this ledger",
}
OBSERVER_NAMES: Mapping[Observer, str] = {
    "coordinator": "the coordinator",
    "nodes": "other nodes",
    "model-holders": "holders of the model",
}


@dataclass(frozen=True)
class Account:
    """The charges of one column and unit.

    Args:
        column: Who vouches for it.
        unit: What is hidden.
        charges: In order; at least one.
        delta: At which epsilons hold.
    """

    column: Column
    unit: Unit
    charges: Sequence[Charge]
    delta: float

    @property
    def epsilon(self) -> float:
        """Of all charges together."""
        return spent([charge.price for charge in self.charges], self.delta)

    @property
    def adjacency(self) -> Adjacency:
        """For which that holds."""
        return weakest_adjacency(self.charges)

    @property
    def observers(self) -> list[Observer]:
        """Against whom that holds."""
        return [each for each in OBSERVERS if holds_against(self.charges, each)]

    @property
    def trust(self) -> list[str]:
        """What it rests on."""
        return list(dict.fromkeys(charge.guarantee.trust for charge in self.charges))

    @property
    def accountant(self) -> str:
        """How it was reckoned."""
        return f"{method([charge.price for charge in self.charges])}, {ACCOUNTANT}"

    def by_run(self) -> dict[str, list[Charge]]:
        """Returns the charges of each run, the oldest run first."""
        runs: dict[str, list[Charge]] = {}
        for charge in self.charges:
            runs.setdefault(charge.run, []).append(charge)
        return runs

    def curve(self) -> list[tuple[int, float]]:
        """Returns how epsilon grew: number of charges, epsilon after them; at most 60 points."""
        count = len(self.charges)
        step = max(1, -(-count // MAX_POINTS))
        numbers = [*range(step, count, step), count]
        prices = [charge.price for charge in self.charges]
        return [(number, spent(prices[:number], self.delta)) for number in numbers]


def accounts(charges: Iterable[Charge], delta: float) -> list[Account]:
    """Returns the accounts of a ledger, in the order in which they were opened."""
    found: dict[tuple[Column, Unit], list[Charge]] = {}
    for charge in charges:
        of = charge.guarantee
        found.setdefault((of.column, of.unit), []).append(charge)
    return [Account(column, unit, made, delta) for (column, unit), made in found.items()]


def prices_in_words(charges: Sequence[Charge]) -> str:
    """Returns the mechanisms of `charges` and how often each was used, on one line."""
    counts: dict[Event, int] = {}
    for charge in charges:
        counts[charge.price.event] = counts.get(charge.price.event, 0) + charge.price.count
    return "; ".join(f"{count} x {event_in_words(event)}" for event, count in counts.items())


def event_in_words(event: Event) -> str:
    """Returns a mechanism with its parameters.

    >>> event_in_words(Gaussian(1.1, sampling=0.01))
    'Gaussian, multiplier 1.1, Poisson sampling 0.01'
    """
    match event:
        case Gaussian(noise_multiplier=multiplier, sampling=rate):
            sampled = f", Poisson sampling {rate:.4g}" if rate < 1 else ""
            return f"Gaussian, multiplier {multiplier:.4g}{sampled}"
        case Skellam(l1=l1, l2=l2, variance=variance):
            return f"Skellam, variance {variance:.4g}, L2 {l2:.4g}, L1 {l1:.4g}"
