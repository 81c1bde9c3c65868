"""`visibility` in a plan: what the coordinator sees, how groups follow, and what is refused."""

from fractions import Fraction

import pytest

from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan
from fedsec.plan.privacy import corrupt, honest
from fedsec.plan.secure_aggregation import grid_steps
from fedsec.plan.summary import summary
from fedsec.plan.terms import conditional, terms
from fedsec.plan.visibility import (
    assumptions,
    corrupt_per_group,
    crowded,
    fewest_in_a_sum,
    fewest_rows,
    group_size,
    most_in_a_sum,
    parameters,
    visibility,
)
from fedsec.secagg.groups import crowding

PLAN = """
schema = 1
name = "groups"
visibility = "groups"
[task]
name = "digits"
[training]
rounds = 10
[round]
attempts = 2
[nodes]
min_available = 25
quorum = 21
[secure_aggregation]
mode = "malicious"
clip = 1.0
"""
MEDIAN = '[robust]\nrule = "median"\nbyzantine = 2\n'
PRIVACY = """
[privacy]
model = "distributed"
epsilon = 50.0
delta = 1e-5
noise_multiplier = 2.0
clip = 1.0
dropouts = 1
"""
NOISED = PLAN.replace("clip = 1.0\n", "") + PRIVACY


FLOWER = """
schema = 1
name = "theirs"
visibility = "groups"
[app]
name = "their-app"
[nodes]
min_available = 25
[secure_aggregation]
mode = "semi-honest"
clip = 1.0
"""


def parse(text: str) -> FederationPlan:
    return FederationPlan.parse(text)


def problems(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


def test_left_out_it_is_what_held_before_and_changes_no_digest() -> None:
    plain = PLAN.replace('visibility = "groups"\n', "")
    each = plain[: plain.index("[secure_aggregation]")]
    assert (visibility(parse(plain)), visibility(parse(each))) == ("sum", "each")
    assert (group_size(parse(plain)), group_size(parse(each))) == (None, None)
    for text in (plain, each):
        assert "visibility" not in parse(text).canonical_json()
        assert "group_size" not in parse(text).canonical_json()
        assert "corrupt_per_group" not in parse(text).canonical_json()


def test_numbers_of_groups_follow_from_the_plan() -> None:
    plan = parse(PLAN + "group_size = 5\n" + MEDIAN)
    assert (group_size(plan), corrupt_per_group(plan)) == (5, 1)
    assert (fewest_in_a_sum(plan), most_in_a_sum(plan)) == (4, 6)
    assert (assumptions(plan).corrupt, assumptions(plan).least_corrupt) == (Fraction(0), 1)
    assert parameters(plan, 5).dropouts == 1
    assert group_size(parse(PLAN)) == 5  # if it is not said
    assert grid_steps(plan) == (2**31 - 1) // 6 - 1  # finer than for a sum of a hundred
    with pytest.raises(ConfigError, match="7 nodes in a sum; by secure_aggregation"):
        parameters(plan, 7)


@pytest.mark.timeout(20)
def test_a_plan_with_huge_groups_is_read_at_once() -> None:
    huge = PLAN.replace("min_available = 25\nquorum = 21", "min_available = 60000\nquorum = 60000")
    plan = parse(huge + "group_size = 12000\nmax_nodes = 65535\n" + MEDIAN)
    assert most_in_a_sum(plan) == 14_400  # of 71,999 nodes, were there so many


@pytest.mark.parametrize(
    ("nodes", "quorum", "rows"),
    [(25, 25, 5), (25, 21, 5), (25, 20, 4), (27, 20, 4), (14, 14, 2), (27, 1, 1)],
)
def test_missing_nodes_may_be_whole_groups(nodes: int, quorum: int, rows: int) -> None:
    text = PLAN.replace("= 25", f"= {nodes}").replace("quorum = 21", f"quorum = {quorum}")
    assert fewest_rows(parse(text)) == rows


def test_of_four_nobody_may_leave_and_three_are_no_group() -> None:
    plan = parse(PLAN + "group_size = 4\n")
    assert parameters(plan, 4).dropouts == 0
    assert fewest_in_a_sum(plan) == 4
    assert "group_size = 3" in problems(PLAN + "group_size = 3\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAN.replace('"groups"', '"each"'), 'visibility: "each": [secure_aggregation] hides'),
        (PLAN[: PLAN.index("[secure")], 'visibility: "groups": without a table [secure_agg'),
        (
            PLAN.replace('visibility = "groups"', "") + "group_size = 5\n",
            'group_size: 5 is read with visibility = "groups" only',
        ),
        (
            PLAN.replace('visibility = "groups"', "") + "corrupt_per_group = 2\n",
            'corrupt_per_group: 2 is read with visibility = "groups" only',
        ),
        (PLAN.replace("quorum = 21", "fraction = 0.5"), "groups are the same in every round"),
        (
            PLAN + "group_size = 13\n",
            "make less than two groups of secure_aggregation.group_size = 13; at least 26 are",
        ),
        (PLAN + "corrupt_per_group = 3\n", "a group of 5 cannot withstand 3 corrupt nodes"),
        (PLAN + "corrupt_per_group = 3\n", "group_size = 6 can"),
        (PLAN + MEDIAN.replace("2", "3"), "so with 5 sums of groups of 5"),
        (PLAN.replace("= 21", "= 20") + MEDIAN, "so with 4 sums of groups of 5"),
        (NOISED + "corrupt = 1\n", "secure_aggregation.corrupt_per_group = 1 says it"),
        (
            NOISED.replace("dropouts = 1", "dropouts = 2"),
            "5 nodes less 2 dropouts less 1 corrupt leave 2 honest noise shares; at least 3",
        ),
        (FLOWER, "is handed one mean in each round"),
    ],
)
def test_what_is_refused_and_in_which_words(text: str, said: str) -> None:
    assert said in problems(text)


def test_the_summary_says_who_sees_what_and_how_likely_a_group_holds_too_many() -> None:
    text = "\n".join(sentence for _, sentence in summary(parse(PLAN + MEDIAN)))
    assert "the coordinator sees sums of the updates of groups, not one" in text
    assert "25 nodes make 5 groups of 5; they draw them when the run begins, once" in text
    assert "a round needs 21 answers, so 5 or more sums" in text
    assert "a group of which fewer than 4 answer has none" in text
    assert "a group bears 1 corrupt node; chance that some group of the run has more" in text


def test_noise_is_for_the_fewest_honest_nodes_of_the_smallest_group() -> None:
    plan = parse(NOISED)
    assert (honest(plan), corrupt(plan), fewest_in_a_sum(plan)) == (3, 1, 4)
    assert "at least 3 of each group honest" in dict(summary(plan))["privacy"]
    none = parse(NOISED.replace('"malicious"\n', '"malicious"\ncorrupt_per_group = 0\n'))
    assert honest(none) == 4


MANY = NOISED.replace("= 25", "= 1000").replace("quorum = 21", "quorum = 900").replace(
    '"malicious"\n', '"malicious"\nmax_nodes = 1000\ncorrupt = {}\ngroup_size = {}\n'
    "corrupt_per_group = {}\n"
)  # fmt: skip


@pytest.mark.parametrize(
    ("share", "size", "most", "held"),
    [(0.02, 10, 3, True), (0.02, 12, 5, True), (0.002, 20, 6, False), (0.02, 20, 8, False)],
)
def test_a_guarantee_that_rests_on_luck_says_so(
    share: float, size: int, most: int, held: bool
) -> None:
    plan = parse(MANY.format(share, size, most))
    bad = assumptions(parse(PLAN)).__class__(assumptions(plan).mode, Fraction(str(share)))
    chance = crowding(1000, bad.corrupt_of(1000), size, most, draws=2)
    assert crowded(plan) == chance
    assert conditional(plan) is held
    trust = terms(plan).guarantee.trust
    assert (f"conditional on at most {most} corrupt node" in trust) is held
    assert ("which is part of delta" in trust) is not held
    alone = terms(parse(NOISED)).price.delta
    charged = 0.0 if held else chance  # in full with every release: the first may be the last
    assert terms(plan).price.delta == pytest.approx(alone + charged)


def test_who_colludes_in_one_sum_tells_its_noise_too() -> None:
    one = NOISED.replace('visibility = "groups"\n', "").replace("quorum = 21", "quorum = 24")
    plan = parse(one)
    assert (corrupt(plan), honest(plan)) == (3, 25 - 1 - 3)  # a tenth of 25, rounded up
    assert "1 is less than the 3 of 25 nodes that collude by" in problems(one + "corrupt = 1\n")
    assert honest(parse(one + "corrupt = 5\n")) == 19
