"""The ledger of privacy, as pure values: what is charged, to whom, and whether it may be.

    Terms of a plan --charge(round, attempt)--> Charge --Book.admit--> refused: BudgetExhausted
                                                          |
                                                          +--> stored, on the disk --> Book.enter

A book holds every charge ever made and composes them all, whatever adjacency they are stated for.
That is sound because a row that is replaced by zero and a row that is left out are the same change
to a sum over a public denominator, and because noise that hides a replaced row hides that one too
(zero is an allowed row). So the total of a book is stated for the weakest adjacency among its
entries: replace-one only where every entry is.

A guarantee holds against its observer and against everyone who sees less. Where one entry holds
against the holders of the model only, nothing can be said against the coordinator any more.

Source: Dwork, Roth, "The Algorithmic Foundations of Differential Privacy", 2014, section 3.5
(adaptive composition; the sum over releases of different runs is such a composition).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from fedsec.errors import BudgetExhausted, ConfigError, StateError
from fedsec.privacy.events import Event, Price, event_from_json, event_to_json

Unit: TypeAlias = Literal["node", "example"]
Adjacency: TypeAlias = Literal["zero-out", "add-or-remove", "replace-one"]
Observer: TypeAlias = Literal["coordinator", "nodes", "model-holders"]
Column: TypeAlias = Literal["enforced", "promised"]

Composer: TypeAlias = Callable[[Sequence[Price], float], float]
"""From prices and a delta to the epsilon of all of them together; infinite where there is none."""

OBSERVERS: tuple[Observer, ...] = get_args(Observer)
"""From the one who sees the most to the one who sees the least."""

MAX_TEXT = 500
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "unit": get_args(Unit),
    "adjacency": get_args(Adjacency),
    "observer": OBSERVERS,
    "column": get_args(Column),
}


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may ever be spent: `epsilon` at `delta`.

    Args:
        epsilon: > 0.
        delta: In (0, 1).
        source: Where it is set, for messages, e.g. ``"privacy.epsilon in server.toml"``.

    Raises:
        ConfigError: A parameter is out of range.
    """

    epsilon: float
    delta: float
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float("inf"):
            raise ConfigError(f"epsilon must be > 0 and finite, got {self.epsilon}")
        if not 0 < self.delta < 1:
            raise ConfigError(f"delta must be in (0, 1), got {self.delta}")


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a charge pays for.

    Args:
        unit: Whose presence is hidden: all that one node has, or one example.
        adjacency: Which change of that unit is hidden.
        observer: From whom, and from all who see less.
        trust: What it rests on, in one sentence, e.g. ``"the coordinator adds the noise"``.
        column: ``"enforced"`` by who keeps the ledger, or ``"promised"`` to them by others.

    Raises:
        ConfigError: A value is unknown or the sentence too long.
    """

    unit: Unit
    adjacency: Adjacency
    observer: Observer
    trust: str
    column: Column = "enforced"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        _text("trust", self.trust)


@dataclass(frozen=True, slots=True)
class Charge:
    """One release, paid once: a key that was charged before is not charged again.

    Args:
        key: Names the release in its ledger, e.g. ``"run 7 round 3"``.
        guarantee: What is paid for.
        price: Of the release.
        run: Names the run.
        plan: Digest of the plan.
        round: Counted from 1; 0 for what concerns the whole run.
        attempt: Counted from 1; 0 where attempts cost nothing.

    Raises:
        ConfigError: A value is out of range.
    """

    key: str
    guarantee: Guarantee
    price: Price
    run: str
    plan: str
    round: int = 0
    attempt: int = 0

    def __post_init__(self) -> None:
        for name in ("key", "run", "plan"):
            _text(name, getattr(self, name))
        for name in ("round", "attempt"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ConfigError(f"{name} must be an integer >= 0, got {value!r}")

    def to_json(self) -> dict[str, Any]:
        """Returns the charge for the ledger."""
        price = {
            "event": event_to_json(self.price.event),
            "count": self.price.count,
            "delta": self.price.delta,
        }
        where = {name: getattr(self, name) for name in ("key", "run", "plan", "round", "attempt")}
        return {**where, "guarantee": asdict(self.guarantee), "price": price}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Charge":
        """Returns the charge that `to_json` wrote.

        Raises:
            ConfigError: It is none.
        """
        try:
            fields, price = dict(given), dict(given["price"])
            price["event"] = event_from_json(price["event"])
            fields["guarantee"] = Guarantee(**fields["guarantee"])
            fields["price"] = Price(**price)
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"not a charge: {error}") from error


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan costs: its guarantee, the price of one release, and how many there can be.

    Args:
        guarantee: Of every release.
        price: Of one release.
        releases: The most that a completed run makes, >= 1; attempts included where each one
            that was answered is a release.
        per_attempt: Whether an attempt is a release of its own; else a round is.
    """

    guarantee: Guarantee
    price: Price
    releases: int
    per_attempt: bool = False

    @property
    def whole(self) -> Price:
        """The price of the whole plan."""
        return self.price.times(self.releases)

    def charge(self, *, run: str, plan: str, round_number: int, attempt: int) -> Charge:
        """Returns the charge of one release.

        Args:
            run: Id of the run.
            plan: Digest of the plan.
            round_number: Counted from 1.
            attempt: Counted from 1; part of the key only where an attempt is a release.
        """
        counted = attempt if self.per_attempt else 0
        key = f"run {run} round {round_number}" + (f" attempt {counted}" if counted else "")
        return Charge(key, self.guarantee, self.price, run, plan, round_number, counted)

    def reservation(self, *, run: str, plan: str) -> Charge:
        """Returns the charge of the whole plan at once, for a promise that others keep."""
        return Charge(f"run {run} plan {plan}", self.guarantee, self.whole, run, plan)


Prices: TypeAlias = Counter[tuple[Event, float]]
"""How often each event was charged, and at which delta per event."""


class Book:
    """Every charge of a ledger, and what they come to. Not for several threads at once."""

    def __init__(self) -> None:
        self._charges: dict[str, Charge] = {}
        self._totals: dict[tuple[Column, Unit], Prices] = {}
        self._known: dict[tuple[Column, Unit, Budget], tuple[Prices, int]] = {}

    @property
    def charges(self) -> Sequence[Charge]:
        """All charges, in order."""
        return list(self._charges.values())

    def find(self, charge: Charge) -> bool:
        """Returns whether this very charge was entered.

        Raises:
            StateError: Its key was used for another charge.
        """
        entered = self._charges.get(charge.key)
        if entered is not None and entered != charge:
            raise StateError(
                f"the release {charge.key!r} is in the ledger already with other terms: "
                f"{entered.price} for {entered.guarantee.unit}s, now {charge.price} for "
                f"{charge.guarantee.unit}s; a release is charged once, so give this one a new key"
            )
        return entered is not None

    def enter(self, charge: Charge) -> None:
        """Adds a charge that was admitted.

        Raises:
            StateError: Its key is taken.
        """
        if charge.key in self._charges:
            raise StateError(f"the release {charge.key!r} stands in the ledger twice")
        self._charges[charge.key] = charge
        self._total(charge).update(_prices(charge.price))

    def admit(self, charge: Charge, budget: Budget, composer: Composer) -> None:
        """Returns where the charge can be paid; the book stays as it is.

        Composing is dear, and charges come alike: so it is looked far enough ahead that the
        composer is asked about log(n) times for n equal charges.

        Raises:
            BudgetExhausted: With this charge more would be spent than `budget`.
        """
        account = (charge.guarantee.column, charge.guarantee.unit, budget)
        wanted = self._total(charge) + _prices(charge.price)
        affordable, ahead = self._known.get(account, (Counter(), 1))
        if wanted <= affordable:
            return
        while ahead > 1:
            further = self._total(charge) + _prices(charge.price.times(ahead))
            if composer(_as_prices(further), budget.delta) <= budget.epsilon:
                self._known[account] = (further, 2 * ahead)
                return
            ahead //= 2
        would_be = composer(_as_prices(wanted), budget.delta)
        if not would_be <= budget.epsilon:  # nor for NaN
            raise BudgetExhausted(_refusal(charge, would_be, budget))
        self._known[account] = (wanted, 2 * ahead)

    def epsilon(self, composer: Composer, delta: float, *, column: Column, unit: Unit) -> float:
        """Returns what all charges of a column and unit come to at `delta`; 0 for none."""
        total = self._totals.get((column, unit))
        return composer(_as_prices(total), delta) if total else 0.0

    def _total(self, charge: Charge) -> Prices:
        of = charge.guarantee
        return self._totals.setdefault((of.column, of.unit), Counter())


def weakest_adjacency(charges: Iterable[Charge]) -> Adjacency:
    """Returns the adjacency for which the total of `charges` holds."""
    found = {charge.guarantee.adjacency for charge in charges}
    return found.pop() if len(found) == 1 else "zero-out"


def holds_against(charges: Iterable[Charge], observer: Observer) -> bool:
    """Returns whether every one of `charges` holds against `observer`."""
    rank = OBSERVERS.index(observer)
    return all(OBSERVERS.index(charge.guarantee.observer) <= rank for charge in charges)


def _prices(price: Price) -> Prices:
    return Counter({(price.event, price.delta / price.count): price.count})


def _as_prices(total: Prices) -> list[Price]:
    return [Price(event, count, delta * count) for (event, delta), count in total.items()]


def _refusal(charge: Charge, would_be: float, budget: Budget) -> str:
    of = charge.guarantee
    source = f" ({budget.source})" if budget.source else ""
    return (
        f"{charge.key}: with this release epsilon would be {would_be:.4g} at delta "
        f"{budget.delta:g}, the budget{source} is {budget.epsilon:g}; unit: {of.unit}, column: "
        f"{of.column}. Nothing was released; end the run here, or raise the budget"
    )


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT:
        raise ConfigError(f"{name} must be text of 1..{MAX_TEXT} characters")
