"""The ledger's decisions, with a composer whose epsilons are easy to add up."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.errors import BudgetExhausted, ConfigError, StateError
from fedsec.privacy.events import Gaussian, Price, Skellam
from fedsec.privacy.ledger import (
    Book,
    Budget,
    Charge,
    Guarantee,
    Terms,
    holds_against,
    weakest_adjacency,
)

CENTRAL = Guarantee("node", "zero-out", "model-holders", "the coordinator adds the noise")
ONE = Price(Gaussian(1.0))


class Adding:
    """Each use costs 1 / multiplier; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, prices: Sequence[Price], delta: float) -> float:
        self.asked += 1
        total = 0.0
        for price in prices:
            assert isinstance(price.event, Gaussian)
            total += price.count / price.event.noise_multiplier
        return total


def charge(key: str, price: Price = ONE, guarantee: Guarantee = CENTRAL) -> Charge:
    return Charge(key, guarantee, price, run="7", plan="ab", round=1)


def test_a_charge_comes_back_from_json_equal() -> None:
    made = Charge("k", CENTRAL, Price(Skellam(5.0, 2.0, 9.0), 4, 1e-12), "7", "ab", 3, 2)
    assert Charge.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    "change",
    [
        {"key": ""},
        {"key": 5},
        {"key": "k" * 501},
        {"round": -1},
        {"round": True},
        {"attempt": 1.0},
        {"more": 1},
        {"price": {"count": 1}},
        {"price": {"event": {"kind": "gaussian", "noise_multiplier": 1.0}, "count": 0}},
        {"price": 7},
        {"guarantee": {"unit": "node"}},
        {"guarantee": None},
    ],
)
def test_what_is_no_charge_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="not a charge"):
        Charge.from_json(charge("k").to_json() | change)


@pytest.mark.parametrize("name", ["unit", "adjacency", "observer", "column"])
def test_a_guarantee_says_only_what_is_known(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be one of"):
        replace(CENTRAL, **{name: "all"})


def test_a_guarantee_names_its_trust() -> None:
    with pytest.raises(ConfigError, match="trust must be text"):
        replace(CENTRAL, trust="")


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_is_positive_and_finite(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="epsilon must be > 0"):
        Budget(epsilon, 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_a_budget_has_a_delta(delta: float) -> None:
    with pytest.raises(ConfigError, match="delta must be in"):
        Budget(1.0, delta)


def spend(book: Book, prices: Sequence[Price], budget: Budget, composer: Adding) -> int:
    """Charges until the first refusal; returns how many were admitted."""
    for number, price in enumerate(prices):
        made = charge(f"release {number}", price)
        try:
            book.admit(made, budget, composer)
        except BudgetExhausted:
            return number
        book.enter(made)
    return len(prices)


@settings(derandomize=True)
@given(
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), max_size=40),
    st.integers(min_value=1, max_value=30),
)
def test_exactly_what_the_budget_holds_is_admitted(multipliers: list[float], epsilon: int) -> None:
    prices = [Price(Gaussian(multiplier)) for multiplier in multipliers]
    total, affordable = 0.0, 0
    for multiplier in multipliers:
        total += 1 / multiplier
        if total > epsilon:
            break
        affordable += 1
    assert spend(Book(), prices, Budget(float(epsilon), 1e-5), Adding()) == affordable


def test_the_composer_is_asked_about_log_n_times_for_equal_charges() -> None:
    composer = Adding()
    assert spend(Book(), [ONE] * 1000, Budget(10_000.0, 1e-5), composer) == 1000
    assert composer.asked <= 12


def test_what_cannot_be_composed_is_refused() -> None:
    for answer in (math.nan, math.inf):
        with pytest.raises(BudgetExhausted):
            Book().admit(charge("k"), Budget(1.0, 1e-5), lambda _prices, _delta, a=answer: a)


def test_a_refusal_names_release_figures_source_and_what_to_do() -> None:
    book, budget = Book(), Budget(1.5, 1e-5, "privacy.epsilon in server.toml")
    book.enter(charge("run 7 round 1"))
    with pytest.raises(BudgetExhausted) as caught:
        book.admit(charge("run 7 round 2"), budget, Adding())
    text = str(caught.value)
    for part in ("run 7 round 2", "would be 2 ", "1e-05", "privacy.epsilon in server.toml", "1.5"):
        assert part in text


def test_columns_and_units_have_accounts_of_their_own() -> None:
    book, budget, composer = Book(), Budget(1.0, 1e-5), Adding()
    promised, example = replace(CENTRAL, column="promised"), replace(CENTRAL, unit="example")
    for number, guarantee in enumerate((CENTRAL, promised, example)):
        made = charge(f"k{number}", guarantee=guarantee)
        book.admit(made, budget, composer)
        book.enter(made)
    assert book.epsilon(composer, 1e-5, column="promised", unit="node") == 1.0
    assert book.epsilon(composer, 1e-5, column="promised", unit="example") == 0.0
    with pytest.raises(BudgetExhausted):
        book.admit(charge("k9"), budget, composer)


def test_adjacencies_compose_in_one_account() -> None:
    book, replaced = Book(), replace(CENTRAL, adjacency="replace-one")
    book.enter(charge("a"))
    book.enter(charge("b", guarantee=replaced))
    assert book.epsilon(Adding(), 1e-5, column="enforced", unit="node") == 2.0
    assert weakest_adjacency(book.charges) == "zero-out"
    assert weakest_adjacency([charge("b", guarantee=replaced)]) == "replace-one"


def test_the_sampler_s_delta_reaches_the_composer() -> None:
    book, seen = Book(), []
    book.enter(charge("a", Price(Gaussian(1.0), 2, 4e-9)))
    book.enter(charge("b", Price(Gaussian(1.0), 1, 2e-9)))
    book.epsilon(lambda p, _d: seen.extend(p) or 0.0, 1e-5, column="enforced", unit="node")
    (price,) = seen
    assert (price.event, price.count) == (Gaussian(1.0), 3)
    assert price.delta == pytest.approx(6e-9)


def test_a_guarantee_holds_against_whoever_sees_less() -> None:
    central = charge("a")
    local = charge("b", guarantee=replace(CENTRAL, observer="coordinator"))
    assert holds_against([local], "model-holders")
    assert holds_against([local], "coordinator")
    assert holds_against([local, central], "model-holders")
    assert not holds_against([local, central], "nodes")
    assert not holds_against([local, central], "coordinator")


def test_the_same_release_is_found_and_another_with_its_key_refused() -> None:
    book = Book()
    assert not book.find(charge("k"))
    book.enter(charge("k"))
    assert book.find(charge("k"))
    with pytest.raises(StateError, match="other terms"):
        book.find(charge("k", Price(Gaussian(2.0))))
    with pytest.raises(StateError, match="twice"):
        book.enter(charge("k"))


def test_terms_name_releases_by_round_or_by_attempt() -> None:
    per_round = Terms(CENTRAL, ONE, releases=10)
    first = per_round.charge(run="7", plan="ab", round_number=3, attempt=1)
    assert first == per_round.charge(run="7", plan="ab", round_number=3, attempt=2)
    assert (first.key, first.round, first.attempt) == ("run 7 round 3", 3, 0)
    per_attempt = Terms(CENTRAL, ONE, releases=30, per_attempt=True)
    second = per_attempt.charge(run="7", plan="ab", round_number=3, attempt=2)
    assert (second.key, second.attempt) == ("run 7 round 3 attempt 2", 2)


def test_a_reservation_is_the_whole_plan() -> None:
    made = Terms(CENTRAL, ONE, releases=30).reservation(run="7", plan="ab")
    assert made.price == Price(Gaussian(1.0), 30)
    assert made.round == 0
