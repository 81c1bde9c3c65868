"""What a plan's privacy costs: the guarantee of each model, and prices that do not see the model."""

import pytest

from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan
from fedsec.plan.terms import price, terms
from fedsec.privacy.distributed import MIN_NORM
from fedsec.privacy.events import Gaussian, Skellam

HEAD = """
schema = 1
name = "a plan"
[task]
name = "digits"
[training]
rounds = 5
[round]
attempts = 2
[nodes]
min_available = 10
"""
SUM = '[secure_aggregation]\nmode = "semi-honest"\nmax_nodes = 10\n'


def plan(model: str, more: str = "", tables: str = "") -> FederationPlan:
    mechanism = "epsilon = 8.0\ndelta = 1e-5\nnoise_multiplier = 1.5\nclip = 0.5\n"
    return FederationPlan.parse(f'{HEAD}[privacy]\nmodel = "{model}"\n{mechanism}{more}{tables}')


@pytest.mark.parametrize(
    ("given", "adjacency", "observer", "releases"),
    [
        (plan("central"), "zero-out", "nodes", 5),
        (plan("central", "sampling = 0.5\n"), "add-or-remove", "model-holders", 5),
        (plan("local"), "replace-one", "coordinator", 5),
        (plan("distributed", tables=SUM), "zero-out", "coordinator", 10),
    ],
)
def test_each_model_has_its_guarantee(
    given: FederationPlan, adjacency: str, observer: str, releases: int
) -> None:
    found = terms(given)
    assert found.guarantee.unit == "node"
    assert (found.guarantee.adjacency, found.guarantee.observer) == (adjacency, observer)
    assert (found.releases, found.per_attempt) == (releases, releases == 10)
    assert 0 < found.price.delta < 1e-15


def test_a_semi_honest_sum_trusts_the_coordinator_and_says_so() -> None:
    """One that invents nodes opens an update under a single share of the noise."""
    trust = [
        terms(plan("distributed", tables=SUM.replace("semi-honest", mode))).guarantee.trust
        for mode in ("semi-honest", "malicious")
    ]
    assert [text.startswith("the coordinator keeps to the protocol") for text in trust] == [1, 0]


def test_the_event_is_the_mechanism() -> None:
    assert terms(plan("central")).price.event == Gaussian(1.5)
    assert terms(plan("central", "sampling = 0.5\n")).price.event == Gaussian(1.5, 0.5)
    assert terms(plan("distributed", tables=SUM)).price.event == Skellam(
        l1=MIN_NORM**2, l2=MIN_NORM, variance=(1.5 * MIN_NORM) ** 2
    )


def test_another_multiplier_can_be_priced() -> None:
    privacy = plan("central").privacy
    assert privacy is not None
    assert price(privacy, 3.0).event == Gaussian(3.0)


def test_the_adaptive_clip_costs_nothing_more() -> None:
    adaptive = plan("central", "clip_quantile = 0.5\nclip_noise = 1.0\n")
    assert terms(adaptive).price == terms(plan("central")).price


def test_what_has_no_price_says_so() -> None:
    with pytest.raises(ConfigError, match=r"no table \[privacy\]"):
        terms(FederationPlan.parse(HEAD))
    with pytest.raises(ConfigError, match="priced on each node"):
        terms(plan("example"))
