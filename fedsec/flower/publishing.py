"""What a run releases under privacy: made once, stored, charged, and only then handed out.

The coordinator publishes noised aggregates so, a node its noised updates; each to its own ledger.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias

from fedsec.errors import ConfigError
from fedsec.ledgerfile import NO_BUDGETS, Budgets, LedgerFile, compose
from fedsec.plan import FederationPlan, Privacy
from fedsec.plan.terms import terms
from fedsec.privacy.ledger import Book, Budget, Composer, Terms
from fedsec.releases import Releases
from fedsec.vectors import Vector

LEDGER_KEY = "fedsec-ledger"
"""In `run_config`: path of the ledger that the coordinator keeps."""

EPSILON_KEY, DELTA_KEY = "fedsec-budget-epsilon", "fedsec-budget-delta"
"""In `run_config`: the most that all runs of that ledger may cost; no limit if left out."""

DIRECTORY_KEY = "fedsec-directory"
"""In `run_config`: directory of the run; beside the ledger if left out."""

RELEASES_DIRECTORY = "releases"

RunConfig: TypeAlias = Mapping[str, bool | int | float | str]


class Publish(Protocol):
    """How a release gets out."""

    def __call__(self, round_number: int, attempt: int, make: Callable[[], Vector]) -> Vector:
        """Returns the vector (d,) of a release, the same one whenever it is asked for.

        Args:
            round_number: Counted from 1.
            attempt: Counted from 1.
            make: Returns the noised vector; called if the release was not made before.

        Raises:
            BudgetExhausted: It would cost more than is left; nothing is released.
        """
        ...


class Publisher:
    """Publishes the releases of one run, durably.

    Args:
        terms: What each costs.
        run: Id of the run.
        plan: Digest of the plan.
        ledger: Is charged.
        releases: Where vectors are stored; its name makes the run's one that is never used again.
    """

    def __init__(
        self, terms: Terms, run: int, plan: str, ledger: LedgerFile, releases: Releases
    ) -> None:
        self._terms = terms
        self._run = f"{run}/{releases.name}"
        self._plan = plan
        self._ledger = ledger
        self._releases = releases

    def __call__(self, round_number: int, attempt: int, make: Callable[[], Vector]) -> Vector:
        """See `Publish`."""
        of_round = f"round {round_number}"
        key = f"{of_round} attempt {attempt}" if self._terms.per_attempt else of_round
        return self._releases.once(key, make, lambda: self.charge(round_number, attempt))

    def charge(self, round_number: int, attempt: int) -> None:
        """Charges a release that is no stored vector; returns when it may go out.

        Raises:
            BudgetExhausted: It would cost more than is left.
        """
        self._ledger.charge(
            self._terms.charge(
                run=self._run, plan=self._plan, round_number=round_number, attempt=attempt
            )
        )

    def accept(self) -> None:
        """Takes the whole plan on: what others promise is charged now, the rest must be affordable.

        Raises:
            BudgetExhausted: It would cost more than is left.
        """
        whole = self._terms.reservation(run=self._run, plan=self._plan)
        if self._terms.guarantee.column == "promised":
            self._ledger.charge(whole)
        elif not self._ledger.charged(self._run):  # else it goes on, and each release is checked
            self._ledger.check(whole)


class Trial:
    """Publishes in memory, for simulations: a budget holds, nothing outlives the process.

    Args:
        terms: What each release costs.
        budget: None sets no limit.
        composer: Reckons, where there is a budget.
    """

    def __init__(
        self, terms: Terms, budget: Budget | None = None, composer: Composer | None = None
    ) -> None:
        self.book = Book()
        self._terms = terms
        self._budget = budget
        self._composer = composer
        self._made: dict[str, Vector] = {}

    def __call__(self, round_number: int, attempt: int, make: Callable[[], Vector]) -> Vector:
        """See `Publish`."""
        charge = self._terms.charge(
            run="trial", plan="trial", round_number=round_number, attempt=attempt
        )
        if not self.book.find(charge):
            if self._budget is not None and self._composer is not None:
                self.book.admit(charge, self._budget, self._composer)
            self._made = {charge.key: make()}  # a round follows the one before
            self.book.enter(charge)
        return self._made[charge.key]


def take_on(plan: FederationPlan, run_config: RunConfig, *, run: int) -> Publisher | None:
    """Returns how the coordinator publishes under this plan, whose price can be paid.

    Where the coordinator adds the noise, each release is charged before it gets out. Where the
    nodes do, the whole plan is charged now, as their promise. What example-level privacy costs
    depends on each node's examples, so the nodes alone keep account of it.

    Args:
        plan: Under which to run.
        run_config: Names the ledger, its budget if there is one, and the run's directory.
        run: Id of the run.

    Returns:
        None for a plan without [privacy], or with ``model = "example"``.

    Raises:
        BudgetExhausted: The plan costs more than is left.
        ConfigError: The plan costs more than it says, there is no ledger to charge, or its budget
            is out of range.
    """
    if plan.privacy is None or plan.privacy.model == "example":
        return None
    path = run_config.get(LEDGER_KEY)
    if not isinstance(path, str) or not path:
        raise ConfigError(
            f"run_config[{LEDGER_KEY!r}] is missing: a plan with [privacy] needs the path of a "
            "ledger, which is kept from run to run"
        )
    of = terms(plan)
    cost_of(of, plan.privacy)
    if plan.privacy.model != "central":
        of = replace(of, guarantee=replace(of.guarantee, column="promised"))
    directory = Path(str(run_config.get(DIRECTORY_KEY) or Path(path).parent / "runs" / str(run)))
    ledger = LedgerFile(Path(path), _budgets(run_config))
    releases = Releases(directory / RELEASES_DIRECTORY)
    publisher = Publisher(of, run, plan.digest, ledger, releases)
    publisher.accept()
    return publisher


def cost_of(of: Terms, privacy: Privacy) -> float:
    """Returns the epsilon of a whole plan at its own delta.

    Raises:
        ConfigError: It is more than the plan says.
    """
    costs = compose([of.whole], privacy.delta)
    if not costs <= privacy.epsilon:  # nor for NaN
        raise ConfigError(
            f"the plan costs epsilon = {costs:.4g} at delta {privacy.delta:g}, more than its "
            f"privacy.epsilon = {privacy.epsilon:g}; `fedsec privacy calibrate` finds the noise "
            "that it needs"
        )
    return costs


def _budgets(run_config: RunConfig) -> Budgets:
    epsilon, delta = run_config.get(EPSILON_KEY), run_config.get(DELTA_KEY)
    if epsilon is None and delta is None:
        return NO_BUDGETS
    try:
        budget = Budget(float(epsilon or 0), float(delta or 0), EPSILON_KEY)
    except ValueError as error:
        raise ConfigError(f"{EPSILON_KEY} = {epsilon}, {DELTA_KEY} = {delta}: {error}") from error
    return {"enforced": budget, "promised": budget}
