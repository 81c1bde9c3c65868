"""How a worker takes on a plan's privacy: its price is known and paid, or the run is refused."""

import importlib
from dataclasses import replace
from pathlib import Path

from flwr.app import Context

from fedsec.errors import BudgetExhausted, ConfigError, FedsecError, PolicyRefusal
from fedsec.flower.node_privacy import NodePrivacy, refusal, unchanged
from fedsec.flower.perturb import Perturb
from fedsec.flower.publishing import RELEASES_DIRECTORY, Publisher
from fedsec.ledgerfile import Budgets, LedgerFile, compose
from fedsec.plan import FederationPlan
from fedsec.plan.figures import figures_of, joined_of
from fedsec.plan.privacy import Privacy
from fedsec.plan.terms import terms
from fedsec.privacy.keystream import Keystream
from fedsec.privacy.ledger import Budget, Column, Terms
from fedsec.releases import Releases
from fedsec_client.settings import Budget as Cap
from fedsec_client.settings import PrivacyBudget
from fedsec_client.site import Site


def open_privacy(
    plan: FederationPlan, site: Site, context: Context, state_directory: Path
) -> NodePrivacy | None:
    """Returns this node's half of the plan's privacy, taken on; None if the plan has none.

    Args:
        plan: That the site's policy allows.
        site: Names the ledger and its caps.
        context: Of the app, whose data are read.
        state_directory: Of the run; releases lie there until the run has ended.

    Raises:
        PolicyRefusal: The plan costs more than it says, or than this node's budget allows.
        ConfigError: The model or the data cannot be trained so, or the ledger cannot be used.
    """
    if plan.privacy is None:
        return None
    cost = _terms(plan, plan.privacy, site, context)
    _check(cost, plan.privacy)
    ledger = LedgerFile(Path(site.ledger), _budgets(site.budget))
    releases = Releases(state_directory / RELEASES_DIRECTORY)
    publisher = Publisher(cost, context.run_id, plan.digest, ledger, releases)
    try:
        publisher.accept()
    except BudgetExhausted as error:
        raise refusal(error) from error
    return _half(plan, plan.privacy, publisher)


def _half(plan: FederationPlan, privacy: Privacy, publisher: Publisher) -> NodePrivacy:
    """Returns what the node does in each round; `publisher` has taken the plan on."""
    figures = figures_of(privacy)
    match privacy.model:
        case "local":
            perturb = Perturb.of(privacy)
            return NodePrivacy(
                publisher, lambda update, _heading: perturb(update, Keystream()), figures=figures
            )
        case "example":
            return NodePrivacy(publisher, unchanged)
        case "distributed":  # the sum's form adds this node's share of the noise
            joined, pay = joined_of(plan), publisher.charge
            if joined is None:
                return NodePrivacy(None, unchanged, pay)
            return NodePrivacy(None, lambda update, _heading: joined(update), pay, figures)
        case _:
            return NodePrivacy(None, unchanged, figures=figures)


def _terms(plan: FederationPlan, privacy: Privacy, site: Site, context: Context) -> Terms:
    """Returns what the plan costs this node, in which column."""
    if privacy.model != "example":
        of = terms(plan)
        column: Column = "promised" if privacy.model == "central" else "enforced"
        return replace(of, guarantee=replace(of.guarantee, column=column))
    app = importlib.import_module(site.client.partition(":")[0])
    try:
        of_examples: Terms = app.example_terms(context)
    except FedsecError:
        raise
    except Exception as error:  # its text may show an example
        raise ConfigError(
            "the model fails on this node's examples; why is in worker.log"
        ) from error
    return of_examples


def _check(cost: Terms, privacy: Privacy) -> None:
    """Returns where the plan costs this node no more than it says, whoever wrote it."""
    if not compose([cost.whole], privacy.delta) <= privacy.epsilon:
        by = "with this node's examples " if privacy.model == "example" else ""
        raise PolicyRefusal(
            f"{by}the plan would cost more than privacy.epsilon = {privacy.epsilon:g} at delta "
            f"{privacy.delta:g}; raise privacy.noise_multiplier, or train less"
        )


def _budgets(given: PrivacyBudget) -> Budgets:
    caps: dict[Column, Cap | None] = {"enforced": given.enforced, "promised": given.promised}
    return {
        column: Budget(cap.epsilon, cap.delta, f"policy.budget.{column} in node.toml")
        for column, cap in caps.items()
        if cap is not None
    }
