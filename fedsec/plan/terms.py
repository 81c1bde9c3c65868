"""What a plan's privacy costs and whom it holds against: pure, from the plan alone.

Prices do not depend on the size of the model. Noise of integers is measured against the norm after
rounding, and that norm is at least `MIN_NORM` grid steps, for which the price is an upper bound.
"""

from fedsec.errors import ConfigError
from fedsec.plan.federation import FederationPlan
from fedsec.plan.privacy import Privacy, honest
from fedsec.privacy.distributed import MIN_NORM
from fedsec.privacy.events import Gaussian, Price, Skellam
from fedsec.privacy.exactness import residue
from fedsec.privacy.ledger import Guarantee, Terms


def terms(plan: FederationPlan) -> Terms:
    """Returns guarantee, price of one release, and the most releases of the whole plan.

    Raises:
        ConfigError: The plan has no node-level privacy, so that no price follows from it.
    """
    privacy, rounds = plan.privacy, plan.learning[1].rounds
    if privacy is None or privacy.model == "example":
        model = 'model = "example" is priced on each node' if privacy else "no table [privacy]"
        raise ConfigError(f"the plan states no price of its own: {model}")
    guarantee, priced = _guarantee(plan, privacy), price(privacy, privacy.noise_multiplier)
    if privacy.model == "distributed":
        return Terms(guarantee, priced, rounds * plan.round.attempts, per_attempt=True)
    return Terms(guarantee, priced, rounds)


def price(privacy: Privacy, multiplier: float) -> Price:
    """Returns the price of one release with a noise multiplier of one's own."""
    lost = residue(privacy.epsilon)
    if privacy.model == "distributed":
        noise = (multiplier * MIN_NORM) ** 2
        return Price(Skellam(l1=MIN_NORM**2, l2=MIN_NORM, variance=noise), delta=lost)
    rate = 1.0 if privacy.sampling is None else privacy.sampling
    return Price(Gaussian(multiplier, sampling=rate), delta=lost)


def _guarantee(plan: FederationPlan, privacy: Privacy) -> Guarantee:
    match privacy.model:
        case "local":
            return Guarantee(
                "node",
                "replace-one",
                "coordinator",
                "each node's own software clips and adds noise before anything leaves it",
            )
        case "distributed":
            shares = f"at least {honest(plan)} nodes in each add their share of the noise and tell "
            trust = f"secure aggregation opens nothing but sums, and {shares}it nobody"
            section = plan.secure_aggregation
            if section is None or section.mode == "semi-honest":  # else it may invent nodes
                trust = f"the coordinator keeps to the protocol; {trust}"
            return Guarantee("node", "zero-out", "coordinator", trust)
        case _ if privacy.sampling is not None:
            return Guarantee(
                "node",
                "add-or-remove",
                "model-holders",
                "the coordinator clips, adds the noise and draws the nodes in secret; who sees its "
                "traffic with each node, or which answers failed, tells nobody",
            )
        case _:
            trust = "the coordinator clips and adds the noise"
            if plan.secure_aggregation is not None:  # it sees no single update
                trust = "every node clips its own update; the coordinator adds the noise"
            return Guarantee("node", "zero-out", "nodes", trust)
