"""What a site answers to a plan."""

import pytest

from fedsec.errors import PolicyRefusal
from fedsec.plan import FederationPlan
from fedsec_client.policy import check_plan
from fedsec_client.settings import NodeSettings

PLAN = """
schema = 1
name = "p"
[task]
name = "digits"
[training]
rounds = 10
[nodes]
min_available = 3
quorum = 2
"""
FLOWER = """
schema = 1
name = "p"
[app]
name = "mine"
[nodes]
min_available = 3
"""
SITE = """
schema = 1
[data.digits]
connector = "digits"
[apps.mine]
client = "package.module:app"
"""


def ask(plan: str, site: str) -> None:
    check_plan(FederationPlan.parse(plan), NodeSettings.parse(site))


def test_the_built_in_app_on_named_data_is_allowed_by_default() -> None:
    ask(PLAN, SITE)


def test_an_app_is_allowed_once_the_operator_says_so() -> None:
    ask(FLOWER, SITE + '[policy]\nallowed_apps = ["mine"]')


@pytest.mark.parametrize(
    ("plan", "site", "reason"),
    [
        (FLOWER, SITE, 'the app "mine" is not in this node\'s policy.allowed_apps'),
        (
            PLAN,
            SITE + "[policy]\nallowed_apps = []",
            'the app "fedsec" is not in this node\'s policy.allowed_apps',
        ),
        (
            PLAN.replace('name = "digits"', 'name = "hospital.ecg:task"\ndata = "digits"'),
            SITE,
            'the task "hospital.ecg:task" is not in this node\'s policy.allowed_tasks',
        ),
        (PLAN, "schema = 1", 'this node has no data set named "digits"'),
        (
            PLAN,
            SITE + "[policy]\nmin_nodes = 3",
            "nodes.quorum = 2 is less than this node's policy.min_nodes = 3",
        ),
        (
            PLAN.replace("quorum = 2", "quorum = 1"),
            SITE,
            "nodes.quorum = 1 is less than this node's policy.min_nodes = 2",
        ),
        (
            FLOWER.replace("= 3", "= 1"),
            SITE + '[policy]\nallowed_apps = ["mine"]',
            "nodes.quorum = 1 is less than this node's policy.min_nodes = 2",
        ),
        (
            PLAN,
            SITE + "[policy]\nmax_rounds = 9",
            "training.rounds = 10 is more than this node's policy.max_rounds = 9",
        ),
    ],
)
def test_a_refusal_says_why(plan: str, site: str, reason: str) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        ask(plan, site)
    assert str(caught.value) == reason  # and nothing else about the site
