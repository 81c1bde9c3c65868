"""What a plan's privacy costs and whom it holds against: pure, from the plan alone.

Prices do not depend on the size of the model. Noise of integers is measured against the norm after
rounding, and that norm is at least `MIN_NORM` grid steps, for which the price is an upper bound.
"""

from dataclasses import replace

from fedsec.errors import ConfigError
from fedsec.plan.federation import FederationPlan
from fedsec.plan.privacy import Privacy, honest
from fedsec.plan.visibility import corrupt_per_group, crowded, group_size
from fedsec.privacy.distributed import MIN_NORM
from fedsec.privacy.events import Gaussian, Price, Skellam
from fedsec.privacy.exactness import residue
from fedsec.privacy.ledger import Guarantee, Terms

CHARGED = 0.5
"""Share of delta up to which the chance of a group with too many corrupt nodes is part of it."""


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
        releases = _most_sums(plan)
        if not conditional(plan):
            priced = replace(priced, delta=priced.delta + crowded(plan))
        return Terms(guarantee, priced, releases, per_attempt=True)
    return Terms(guarantee, priced, rounds)


def conditional(plan: FederationPlan) -> bool:
    """Returns whether the guarantee holds only if groups happen to have few corrupt nodes each.

    Where that is likely enough, the probability that it is not so is charged as delta instead.
    Every release pays it in full, as if the groups were drawn anew each time: then a run that ends
    early has paid for what its one draw risked.
    """
    privacy = plan.privacy
    return privacy is not None and _most_sums(plan) * crowded(plan) > CHARGED * privacy.delta


def _most_sums(plan: FederationPlan) -> int:
    return plan.learning[1].rounds * plan.round.attempts


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
            if group_size(plan) is not None:
                trust += f"; {_about_groups(plan)}"
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


def _about_groups(plan: FederationPlan) -> str:
    """Returns what the guarantee says of groups that were drawn at random."""
    most, chance = corrupt_per_group(plan), crowded(plan)
    section = plan.secure_aggregation
    share = section.corrupt if section is not None else 0.0
    nodes = "corrupt node" if most == 1 else "corrupt nodes"
    if conditional(plan):
        return (
            f"conditional on at most {most} {nodes} in every group: random groups break "
            f"that with a probability of up to {chance:.2g}, if {share:g} of all nodes are corrupt"
        )
    return (
        f"no group has more than {most} {nodes}, if {share:g} of all nodes are, but with a "
        f"probability of at most {chance:.2g}, which is part of delta"
    )
