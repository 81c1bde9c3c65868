"""Releases of a run: charged once each, the same whenever they are asked for."""

from pathlib import Path

import numpy as np
import pytest

from fedsec.errors import BudgetExhausted, ConfigError
from fedsec.flower.publishing import (
    DELTA_KEY,
    DIRECTORY_KEY,
    EPSILON_KEY,
    LEDGER_KEY,
    Publisher,
    Trial,
    take_on,
)
from fedsec.ledgerfile import LedgerFile
from fedsec.plan.terms import terms
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.ledger import Budget, Guarantee, Terms
from fedsec.releases import Releases
from fedsec.vectors import Vector
from tests.flower.fakes import plan

GUARANTEE = Guarantee("node", "zero-out", "model-holders", "a test")
PER_ROUND = Terms(GUARANTEE, Price(Gaussian(1.0)), releases=3)
PER_ATTEMPT = Terms(GUARANTEE, Price(Gaussian(1.0)), releases=6, per_attempt=True)
PRIVACY = """
[privacy]
model = "MODEL"
epsilon = 8.0
delta = 1e-5
noise_multiplier = 4.0
clip = 1.0
"""


class Making:
    """Makes a new vector each time, and counts."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> Vector:
        self.made += 1
        return np.full(3, self.made, np.float32)


def publisher(directory: Path, of: Terms = PER_ROUND, run: int = 7) -> Publisher:
    ledger = LedgerFile(directory / "ledger")
    return Publisher(of, run, "ab", ledger, Releases(directory / "releases"))


def charges(directory: Path) -> int:
    return len(LedgerFile(directory / "ledger").entries())


@pytest.mark.parametrize("durable", [True, False])
def test_attempts_at_a_round_get_the_same_release(tmp_path: Path, durable: bool) -> None:
    made = Making()
    publish = publisher(tmp_path) if durable else Trial(PER_ROUND)
    first = publish(1, 1, made)
    np.testing.assert_array_equal(publish(1, 2, made), first)
    assert publish(2, 1, made)[0] == 2
    assert made.made == 2
    assert (charges(tmp_path) if durable else len(publish.book.charges)) == 2


@pytest.mark.parametrize("durable", [True, False])
def test_where_an_attempt_is_a_release_each_one_is_charged(tmp_path: Path, durable: bool) -> None:
    made = Making()
    publish = publisher(tmp_path, PER_ATTEMPT) if durable else Trial(PER_ATTEMPT)
    assert [publish(1, attempt, made)[0] for attempt in (1, 2, 2)] == [1, 2, 2]
    assert (charges(tmp_path) if durable else len(publish.book.charges)) == 2


def test_a_restart_publishes_the_same_and_charges_nothing(tmp_path: Path) -> None:
    first = publisher(tmp_path)(1, 1, Making())
    again = Making()
    np.testing.assert_array_equal(publisher(tmp_path)(1, 1, again), first)
    assert again.made == 0
    assert charges(tmp_path) == 1


def test_lost_releases_are_charged_anew(tmp_path: Path) -> None:
    """A run id that is offered again, after its state was removed, buys nothing for nothing."""
    publisher(tmp_path)(1, 1, Making())
    for path in (tmp_path / "releases").iterdir():
        path.unlink()
    publisher(tmp_path)(1, 1, Making())
    assert charges(tmp_path) == 2


def test_a_promise_is_charged_when_it_is_taken_on_and_once(tmp_path: Path) -> None:
    promised = Terms(
        Guarantee("node", "zero-out", "nodes", "a test", column="promised"), Price(Gaussian(1.0)), 3
    )
    for _ in range(2):
        publisher(tmp_path, promised).accept()
    ((_, charge),) = LedgerFile(tmp_path / "ledger").entries()
    assert charge.price == Price(Gaussian(1.0), 3)


def test_what_is_enforced_must_be_affordable_as_a_whole_but_is_charged_by_release(
    tmp_path: Path,
) -> None:
    def limited(epsilon: float) -> Publisher:
        ledger = LedgerFile(
            tmp_path / "ledger", {"enforced": Budget(epsilon, 1e-5)}, lambda p, _: p[0].count
        )
        return Publisher(PER_ROUND, 7, "ab", ledger, Releases(tmp_path / "releases"))

    with pytest.raises(BudgetExhausted):
        limited(2.0).accept()
    publish = limited(3.0)
    publish.accept()
    assert not (tmp_path / "ledger").exists()
    for number in (1, 2):
        publish(number, 1, Making())
    limited(3.0).accept()  # a run that goes on is not asked for its whole price again
    limited(3.0)(3, 1, Making())
    with pytest.raises(BudgetExhausted):
        limited(3.0)(4, 1, Making())


def test_a_trial_has_a_budget_too() -> None:
    publish = Trial(PER_ROUND, Budget(1.0, 1e-5), lambda p, _: p[0].count)
    publish(1, 1, Making())
    made = Making()
    with pytest.raises(BudgetExhausted):
        publish(2, 1, made)
    assert made.made == 0


def test_a_plan_without_privacy_publishes_nothing() -> None:
    assert take_on(plan(), {}, run=1) is None
    example = plan(more=PRIVACY.replace("MODEL", "example"))
    assert take_on(example, {}, run=1) is None


def test_a_plan_with_privacy_needs_a_ledger() -> None:
    with pytest.raises(ConfigError, match="fedsec-ledger"):
        take_on(plan(more=PRIVACY.replace("MODEL", "central")), {}, run=1)


def test_the_coordinator_charges_its_own_noise_by_release(tmp_path: Path) -> None:
    central = plan(more=PRIVACY.replace("MODEL", "central"))
    config = {LEDGER_KEY: str(tmp_path / "ledger"), DIRECTORY_KEY: str(tmp_path / "run")}
    publish = take_on(central, config, run=5)
    assert publish is not None
    assert not (tmp_path / "ledger").exists()
    publish(1, 1, Making())
    ((_, charge),) = LedgerFile(tmp_path / "ledger").entries()
    assert charge.price == terms(central).price
    assert charge.guarantee.column == "enforced"
    assert charge.run.startswith("5/")
    assert charge.plan == central.digest
    assert (tmp_path / "run" / "releases").is_dir()


def test_the_coordinator_takes_the_nodes_noise_as_a_promise(tmp_path: Path) -> None:
    local = plan(more=PRIVACY.replace("MODEL", "local"))
    take_on(local, {LEDGER_KEY: str(tmp_path / "ledger")}, run=5)
    ((_, charge),) = LedgerFile(tmp_path / "ledger").entries()
    assert charge.price == terms(local).whole
    assert charge.guarantee.column == "promised"


def test_the_federation_s_budget_refuses_a_plan_before_anybody_trains(tmp_path: Path) -> None:
    central = plan(more=PRIVACY.replace("MODEL", "central"))
    config = {LEDGER_KEY: str(tmp_path / "ledger"), EPSILON_KEY: 0.5, DELTA_KEY: 1e-5}
    with pytest.raises(BudgetExhausted, match="budget"):
        take_on(central, config, run=5)
    assert take_on(central, config | {EPSILON_KEY: 8.0}, run=5) is not None


@pytest.mark.parametrize("more", [{EPSILON_KEY: 1.0}, {DELTA_KEY: 0.5}, {EPSILON_KEY: "x"}])
def test_a_budget_out_of_range_is_refused(tmp_path: Path, more: dict[str, float]) -> None:
    central = plan(more=PRIVACY.replace("MODEL", "central"))
    with pytest.raises(ConfigError, match="fedsec-budget-epsilon"):
        take_on(central, {LEDGER_KEY: str(tmp_path / "ledger"), **more}, run=5)


def test_a_plan_that_costs_more_than_it_says_is_not_run(tmp_path: Path) -> None:
    dear = plan(more=PRIVACY.replace("MODEL", "central").replace("epsilon = 8.0", "epsilon = 0.5"))
    with pytest.raises(
        ConfigError, match=r"costs epsilon = .* more than its privacy\.epsilon = 0\.5"
    ):
        take_on(dear, {LEDGER_KEY: str(tmp_path / "ledger")}, run=5)
    assert not (tmp_path / "ledger").exists()
