"""What a site answers to a plan."""

import pytest

from fedsec.errors import ConfigError, PolicyRefusal
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


# --- secure sums -----------------------------------------------------------------------------------

SECURE = PLAN.replace("= 3", "= 10").replace("quorum = 2", "quorum = 7") + (
    '[secure_aggregation]\nmode = "{}"\nclip = 2.0\n'
)
SEMI, MALICIOUS = SECURE.format("semi-honest"), SECURE.format("malicious")


@pytest.mark.parametrize("plan", [SEMI, MALICIOUS])
def test_a_secure_sum_is_welcome_where_none_is_asked_for(plan: str) -> None:
    ask(plan, SITE)


def test_what_is_asked_for_is_enough() -> None:
    most = "max_attempts = 3\nmin_cohort = 10\nmin_neighbours = 9\nmin_threshold = 7\nmin_word_bits = 32\nmax_clip = 2.0\n"
    ask(MALICIOUS, SITE + '[policy]\nsecure_aggregation = "malicious"\n' + most)
    ask(MALICIOUS, SITE + '[policy]\nsecure_aggregation = "semi-honest"\n')


@pytest.mark.parametrize(
    ("plan", "policy", "reason"),
    [
        (PLAN, 'secure_aggregation = "semi-honest"', "the plan has no [secure_aggregation]; this node's policy.secure_aggregation = \"semi-honest\""),
        (FLOWER, 'allowed_apps = ["mine"]\nsecure_aggregation = "malicious"', "the plan has no [secure_aggregation]; this node's policy.secure_aggregation = \"malicious\""),
        (SEMI, 'secure_aggregation = "malicious"', 'secure_aggregation.mode = "semi-honest" is less than this node\'s policy.secure_aggregation = "malicious"'),
        (SEMI, "min_cohort = 11", "in the smallest round of the plan: 10 nodes, less than this node's policy.min_cohort = 11"),
        (SEMI, "min_neighbours = 10", "9 neighbours, less than this node's policy.min_neighbours = 10"),
        (SEMI, "min_threshold = 8", "7 shares that open a secret, less than this node's policy.min_threshold = 8"),
        (SEMI, "max_attempts = 2", "round.attempts = 3 is more than this node's policy.max_attempts = 2"),
        (SEMI + "word_bits = 16\n", "min_word_bits = 32", "words of 16 bits are less than this node's policy.min_word_bits = 32"),
        (SEMI, "max_clip = 1.5", "updates may have an L2 norm of 2, more than this node's policy.max_clip = 1.5"),
    ],
)  # fmt: skip
def test_less_than_a_site_asks_for_is_refused(plan: str, policy: str, reason: str) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        ask(plan, f"{SITE}[policy]\n{policy}\n")
    assert str(caught.value).endswith(reason)


GROUPS = MALICIOUS.replace("[task]", 'visibility = "groups"\n[task]', 1)


@pytest.mark.parametrize(
    ("plan", "policy", "reason"),
    [
        (PLAN, 'visibility = "groups"', 'the coordinator sees each update (visibility = "each"), more than this node\'s policy.visibility = "groups" allows'),
        (PLAN, 'visibility = "sum"', 'the coordinator sees each update (visibility = "each"), more than this node\'s policy.visibility = "sum" allows'),
        (GROUPS, 'visibility = "sum"', 'the coordinator sees the sum of each group (visibility = "groups"), more than this node\'s policy.visibility = "sum" allows'),
        (GROUPS, "min_group = 6", "in the smallest round of the plan: 5 nodes in a group, less than this node's policy.min_group = 6"),
        (GROUPS, "min_cohort = 11", "in the smallest round of the plan: 10 nodes, less than this node's policy.min_cohort = 11"),
        (GROUPS, "min_threshold = 5", "in the smallest round of the plan: 4 shares that open a secret, less than this node's policy.min_threshold = 5"),
    ],
)  # fmt: skip
def test_a_coordinator_that_would_see_more_than_a_site_allows_is_refused(
    plan: str, policy: str, reason: str
) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        ask(plan, f"{SITE}[policy]\n{policy}\n")
    assert str(caught.value) == reason


def test_what_a_site_allows_may_be_seen() -> None:
    for plan, most in ((GROUPS, "groups"), (GROUPS, "each"), (SEMI, "sum"), (PLAN, "each")):
        ask(plan, f'{SITE}[policy]\nvisibility = "{most}"\nmin_group = 5\n')


PRIVACY = """
[privacy]
model = "MODEL"
epsilon = 20.0
delta = 1e-5
noise_multiplier = 4.0
clip = 1.0
"""


@pytest.mark.parametrize(
    ("least", "model", "missing"),
    [
        ("none", None, ""),
        ("none", "central", ""),
        ("promised", None, "no \\[privacy\\]"),
        ("promised", "central", ""),
        ("promised", "local", ""),
        ("enforced", None, "no \\[privacy\\]"),
        ("enforced", "central", "the coordinator's promise"),
        ("enforced", "local", ""),
        ("enforced", "example", ""),
    ],
)
def test_a_site_names_the_least_privacy_that_it_takes_part_in(
    least: str, model: str | None, missing: str
) -> None:
    plan = PLAN.replace("quorum = 2", "") + (PRIVACY.replace("MODEL", model) if model else "")
    site = SITE + f'[policy]\nprivacy = "{least}"\n'
    if missing:
        with pytest.raises(PolicyRefusal, match=missing):
            ask(plan, site)
    else:
        ask(plan, site)


def test_a_budget_that_a_plan_without_privacy_would_pass_by_is_refused() -> None:
    budget = "[policy.budget]\nenforced = { epsilon = 1.0, delta = 1e-5 }\n"
    with pytest.raises(ConfigError, match=r"set policy\.privacy"):
        NodeSettings.parse(SITE + budget)
    NodeSettings.parse(SITE + '[policy]\nprivacy = "promised"\n' + budget)
