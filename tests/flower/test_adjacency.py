"""Standard deviation, sensitivity and price share one adjacency: by trying all neighbours.

What a run does to updates of one entry is done to every small input and to each of its neighbours,
under the same noise. The largest change, and the noise that the run adds, give an epsilon by brute
force, which the price must come to: more would be a waste, less a false claim.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from fedsec.flower.audited import SAME, distance
from fedsec.flower.audited_central import CentralMechanism, central
from fedsec.flower.audited_nodes import LocalMechanism
from fedsec.flower.auditing import mechanism_of
from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.combination import Combination, Combined
from fedsec.flower.perturb import Perturb
from fedsec.flower.private import central_mechanism
from fedsec.flower.publishing import Publish
from fedsec.flower.strategy import Matrix
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.plan.visibility import group_size
from fedsec.privacy.accounting import spent
from fedsec.privacy.keystream import Keystream
from fedsec.vectors import Arrays
from tests.privacy.oracles import brute_force_epsilon

CLIP, DELTA = 0.5, 1e-5
CLAIMS = (-1e30, -CLIP, 0.0, CLIP, float("nan"))
"""What a node may send; to clip it is the run's business."""


def plan(model: str, more: str = "", nodes: int = 4, head: str = "") -> FederationPlan:
    return FederationPlan.parse(f"""
        schema = 1
        name = "small"
        {head}
        [task]
        name = "digits"
        [training]
        rounds = 2
        [nodes]
        min_available = {nodes}
        [privacy]
        model = "{model}"
        epsilon = 50.0
        delta = {DELTA}
        noise_multiplier = 1.0
        clip = {CLIP}
        {more}
        """)


TRIMMED = '[robust]\nrule = "trimmed-mean"\nbyzantine = 1\n'
BUCKETS = '[robust]\nrule = "median"\nbyzantine = 0\nbefore = [{ name = "bucketing", size = 2 }]\n'
GROUPS = '[secure_aggregation]\nmode = "semi-honest"\ngroup_size = 4\ncorrupt_per_group = 1\n'
PLANS = {
    "mean": plan("central"),
    "trimmed mean": plan("central", TRIMMED),
    "median over buckets": plan("central", BUCKETS, nodes=6),
    "drawn in secret": plan("central", "sampling = 0.5"),
    "groups": plan("central", GROUPS, nodes=8, head='visibility = "groups"'),
    "local": plan("local"),
}
MOST = 125  # inputs of all nodes; more are drawn


def inputs(nodes: int, claims: tuple[float, ...]) -> Iterator[Matrix]:
    """Yields what all nodes may send (n, 1): all combinations, or many of them."""
    if len(claims) ** nodes <= MOST:
        chosen = list(product(claims, repeat=nodes))
    else:
        rng = np.random.default_rng(1)
        chosen = [tuple(rng.choice(claims, nodes)) for _ in range(MOST)]
    for values in chosen:
        yield np.array(values, np.float32)[:, np.newaxis]


def neighbours(rows: Matrix, adjacency: str, claims: tuple[float, ...]) -> Iterator[Matrix]:
    """Yields rows in which the first node is another one."""
    if adjacency == "add-or-remove":
        yield rows[1:]
        return
    for value in claims if adjacency == "replace-one" else (0.0,):
        other = rows.copy()
        other[0] = value
        yield other


def change_and_std(of: FederationPlan, adjacency: str | None = None) -> tuple[float, float]:
    """Returns the most that one node changes, and the noise on it, of a run's own values."""
    mechanism, adjacency = mechanism_of(of), adjacency or terms(of).guarantee.adjacency
    assert isinstance(mechanism, CentralMechanism | LocalMechanism)
    std = local_std if isinstance(mechanism, LocalMechanism) else central_std
    # no node noises, or adds to a sum, what is not finite
    claims = CLAIMS[:-1] if std is local_std or group_size(of) is not None else CLAIMS
    found = 0.0
    for answered in mechanism.survivors:
        for rows in inputs(answered, claims):
            here = mechanism.release(rows, Keystream(SAME))
            for other in neighbours(rows, adjacency, claims):
                found = max(found, distance(mechanism.release(other, Keystream(SAME)), here))
    return found, std(of)


def central_std(of: FederationPlan) -> float:
    return central_mechanism(of, CLIP).std(1)


def local_std(of: FederationPlan) -> float:
    assert of.privacy is not None
    return Perturb.of(of.privacy).mechanism.std(1)


def brute_force(of: FederationPlan, change: float, std: float, steps: int) -> float:
    assert of.privacy is not None
    rate = 1.0 if of.privacy.sampling is None else of.privacy.sampling
    return brute_force_epsilon(change, std, DELTA, sampling=rate, steps=steps)


@pytest.mark.parametrize("name", PLANS)
def test_the_price_is_that_of_the_worst_neighbours(name: str) -> None:
    of = PLANS[name]
    change, std = change_and_std(of)
    for steps in (1, 2):
        claimed = spent([terms(of).price.times(steps)], DELTA)
        exact = brute_force(of, change, std, steps)
        assert claimed * 0.99 < exact <= claimed * (1 + 1e-3)


def test_a_weight_that_a_node_claims_changes_nothing() -> None:
    """Neighbours may differ in it, too."""

    def weighty(of: FederationPlan, publish: Publish, source: Keystream) -> Combination:
        inner = central(of, publish, source)

        def combine(attempt: Attempt, collected: Collected, memory: Arrays) -> Combined:
            weights = np.linspace(1, 1e6, len(collected.rows))
            return inner(attempt, replace(collected, weights=weights), memory)

        return combine

    for name in ("mean", "trimmed mean", "median over buckets"):
        of = PLANS[name]
        honest, claimed = CentralMechanism(of), CentralMechanism(of, weighty)
        for rows in list(inputs(honest.units, CLAIMS))[::3]:
            one, two = (each.release(rows, Keystream(SAME)) for each in (honest, claimed))
            assert distance(one, two) == 0


def test_the_price_of_another_adjacency_would_be_found_out() -> None:
    """A row that is replaced moves the mean twice as far as one that becomes zero."""
    of = PLANS["mean"]
    change, std = change_and_std(of, "replace-one")
    claimed = spent([terms(of).price], DELTA)
    assert brute_force(of, change, std, 1) > 1.9 * claimed
