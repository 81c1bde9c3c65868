"""`[secure_aggregation]` in a plan: what it means, what is refused, and in which words."""

from fractions import Fraction

import pytest

from fedsec.encoding import FixedPoint
from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan
from fedsec.plan.secure_aggregation import (
    MIN_STEPS,
    grid_steps,
    max_weight,
    update_clip,
    word_bits,
)
from fedsec.plan.summary import summary
from fedsec.plan.visibility import parameters
from fedsec.secagg.parameters import Mode

HEAD = 'schema = 1\nname = "a plan"\n'
BUILT_IN = HEAD + '[task]\nname = "digits"\n[training]\nrounds = 5\n'
FLOWER = HEAD + '[app]\nname = "their-app"\n'
NODES = "[nodes]\nmin_available = 10\nquorum = 7\n"
SECTION = '[secure_aggregation]\nmode = "malicious"\nclip = 1.0\n'
PLAN = BUILT_IN + NODES + SECTION


def problems(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        FederationPlan.parse(text)
    return str(caught.value)


def test_the_smallest_section_has_every_default_filled_in() -> None:
    plan = FederationPlan.parse(PLAN)
    section = plan.secure_aggregation
    assert section is not None
    assert (section.corrupt, section.dropout, section.max_nodes) == (0.1, 0.1, 100)
    assert (section.word_bits, section.max_weight, dict(section.metrics)) == (None, None, {})
    assert (update_clip(plan), word_bits(plan)) == (1.0, 32)
    assert section.assumptions(3).mode is Mode.MALICIOUS
    assert section.assumptions(3).security_bits == 80
    assert (plan.round.attempts, section.assumptions(3).draws) == (3, 3)


def test_without_the_section_nothing_changes() -> None:
    plan = FederationPlan.parse(BUILT_IN)
    assert plan.secure_aggregation is None
    assert "secure" not in plan.canonical_json()
    assert "secure sum" not in dict(summary(plan))
    with pytest.raises(ConfigError, match="the plan has no"):
        parameters(plan, 10)


@pytest.mark.parametrize(
    ("written", "meant"), [("0.29", Fraction(29, 100)), ("0.3333333333", Fraction(1, 3))]
)
def test_a_share_is_the_fraction_that_people_mean(written: str, meant: Fraction) -> None:
    plan = FederationPlan.parse(
        PLAN.replace("= 7", "= 8") + f"corrupt = {written}\ndropout = 0.0\n"
    )
    assert plan.secure_aggregation is not None
    assert plan.secure_aggregation.assumptions(1).corrupt == meant


@pytest.mark.parametrize(("bits", "nodes"), [(32, 4), (32, 100), (32, 65_535), (16, 324)])
def test_sums_of_the_largest_entries_do_not_overflow_and_one_step_more_would(
    bits: int, nodes: int
) -> None:
    text = BUILT_IN + "[nodes]\nmin_available = 4\n" + SECTION + "corrupt = 0.05\n"
    plan = FederationPlan.parse(text + f"word_bits = {bits}\nmax_nodes = {nodes}\n")
    largest, steps = 1 << (bits - 1), grid_steps(plan)
    assert nodes * (steps + 1) < largest  # + 1: an entry may be rounded up
    assert nodes * (steps + 2) >= largest
    assert steps == FixedPoint(size=1, clip=1.0, members=nodes, bits=bits).levels >= MIN_STEPS


def test_the_first_number_of_nodes_that_words_cannot_hold_is_refused() -> None:
    text = problems(PLAN + "word_bits = 16\nmax_nodes = 325\n")
    assert "secure_aggregation.word_bits: 16 bits leave 99 steps" in text
    assert "or at most 324 nodes" in text
    assert "leave 0 steps" in problems(PLAN + "word_bits = 16\nmax_nodes = 65535\n")


def test_weights_must_fit_into_a_word() -> None:
    weighted = BUILT_IN + 'weighting = "examples"\nmax_examples = {}\n' + NODES + SECTION
    most = (2**32 - 1) // 100
    assert max_weight(FederationPlan.parse(weighted.format(most))) == most
    assert f"training.max_examples: {most + 1} times" in problems(weighted.format(most + 1))
    assert max_weight(FederationPlan.parse(PLAN)) is None


def test_a_flower_app_says_its_largest_weight_here_and_the_built_in_one_does_not() -> None:
    flower = FLOWER + "[nodes]\nmin_available = 10\n" + SECTION
    assert max_weight(FederationPlan.parse(flower + "max_weight = 500\n")) == 500
    assert max_weight(FederationPlan.parse(flower)) is None
    assert max_weight(FederationPlan.parse(FLOWER)) is None
    assert "is read for a Flower app only" in problems(PLAN + "max_weight = 500\n")
    assert "secure_aggregation.max_weight" in problems(flower + "max_weight = 2147483648\n")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("dropout = 0.4\n", "it can with dropout = 0.3 (the number of nodes is that of the smallest"),
        ("corrupt = 0.3\ndropout = 0.39\n", "(the number of nodes is that of secure_aggregation.max"),
        ("max_nodes = 6\n", "max_nodes: 6 is less than nodes.quorum = 7"),
        ("metrics = { loss = [1, 1] }\n", "metrics.loss: [1, 1] is no range"),
        ("metrics = { loss = [1] }\n", "[low, high], numbers in"),
        ("metrics = { loss = [0, 1e9] }\n", "numbers in -1e6..1e6"),
        ("metrics = { loss = [nan, 1.0] }\n", "numbers in -1e6..1e6"),
        ('mode = "none"\n', 'allowed: "semi-honest", "malicious"'),
        ("corrupt = 1.0\n", "a number >= 0 and < 1"),
        ("clip = 0.0\n", "a number > 0 and <= 1000000"),
        ("word_bits = 24\n", "allowed: 16, 32"),
    ],
)  # fmt: skip
def test_what_is_refused_and_in_which_words(more: str, said: str) -> None:
    key = more.partition(" =")[0]
    kept = "".join(line for line in PLAN.splitlines(keepends=True) if not line.startswith(key))
    assert said in problems(kept + more)


def test_too_many_metrics_are_refused() -> None:
    many = ", ".join(f"m{number} = [0, 1]" for number in range(17))
    assert "metrics: 17 metrics; allowed: 0..16" in problems(PLAN + f"metrics = {{ {many} }}\n")


def test_a_quorum_below_what_opens_a_sum_is_refused() -> None:
    text = PLAN.replace("quorum = 7", "quorum = 6")
    assert "nodes.quorum: 6 is less than the 7 of 10 nodes" in problems(text)


def test_three_nodes_are_too_few() -> None:
    text = problems(BUILT_IN + "[nodes]\nmin_available = 3\n" + SECTION)
    assert "so that 3 honest are left; it can with 4 nodes" in text


def test_no_round_draws_more_nodes_than_words_are_made_for() -> None:
    plan = FederationPlan.parse(PLAN + "max_nodes = 20\n")
    assert (plan.cohort(12), plan.cohort(1000), plan.smallest_cohort) == (12, 20, 10)
    assert FederationPlan.parse(BUILT_IN).cohort(1000) == 1000
    with pytest.raises(ConfigError, match="21 nodes in a sum; by secure_aggregation"):
        parameters(plan, 21)


def test_the_parameters_of_a_round_follow_from_the_plan() -> None:
    got = parameters(FederationPlan.parse(PLAN), 100)
    assert (got.neighbours, got.threshold, got.least) == (32, 22, 90)


def test_the_summary_says_what_is_seen_and_how_few_may_leave() -> None:
    rows = summary(FederationPlan.parse(PLAN + "metrics = { train-loss = [0, 10] }\n"))
    text = "\n".join(sentence for _, sentence in rows)
    assert "the coordinator sees the sum of the updates, not one; nodes check it against" in text
    assert "at most 0.1 of the nodes collude with it and at most 0.1 leave" in text
    assert "of 10 nodes 7 must stay, each has 9 neighbours, 7 shares open a secret" in text
    assert "updates of L2 norm at most 1, 21474835 steps from 0 to there" in text
    assert "told as means: train-loss in 0..10; no others" in text
    semi = FederationPlan.parse(PLAN.replace("malicious", "semi-honest"))
    assert dict(summary(semi))["figures"] == "of nodes: withheld, all of them"
    assert dict(summary(semi))["secure sum"].endswith("it is trusted to keep to the protocol")


# --- beside [privacy] ----------------------------------------------------------------------------

PRIVACY = (
    '[privacy]\nmodel = "{}"\nepsilon = 8.0\ndelta = 1e-5\nnoise_multiplier = 1.0\nclip = 0.5\n'
)
MODE = 'mode = "malicious"\n'
UNCLIPPED = PLAN.replace("clip = 1.0\n", "")


@pytest.mark.parametrize(
    ("model", "bits", "words"),
    [("central", "", 32), ("distributed", "", 16), ("distributed", "bits = 17\n", 32)],
)  # fmt: skip
def test_privacy_says_the_clip_and_its_integers_the_word(model: str, bits: str, words: int) -> None:
    more = "quorum = 10\n" if model == "distributed" else "quorum = 7\n"
    text = UNCLIPPED.replace("quorum = 7\n", more) + PRIVACY.format(model) + bits
    plan = FederationPlan.parse(text)
    assert (update_clip(plan), word_bits(plan)) == (0.5, words)
    assert "updates of L2 norm at most 0.5" in dict(summary(plan))["encoding"]
    twice = text.replace(MODE, MODE + "clip = 1.0\n")
    assert "secure_aggregation.clip: 1 stands beside privacy.clip = 0.5" in problems(twice)


def test_the_clip_of_an_example_is_none_of_an_update() -> None:
    example = PRIVACY.format("example")
    assert update_clip(FederationPlan.parse(PLAN + example)) == 1.0
    assert "secure_aggregation.clip: missing" in problems(UNCLIPPED + example)
    assert "secure_aggregation.clip: missing" in problems(UNCLIPPED)


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("distributed", "bits = 12\n", "word_bits: 16 stands beside privacy.bits = 12"),
        ("central", "sampling = 0.5\n", "privacy.sampling: 0.5: nodes of a secure sum know"),
        ("central", "clip_quantile = 0.5\n", "privacy.clip_quantile: 0.5: the clip cannot adapt"),
        ("central", "population = 101\n", "max_nodes: 100 is less than the 101 nodes"),
    ],
)
def test_what_privacy_and_a_secure_sum_cannot_do_together(model: str, more: str, said: str) -> None:
    section = UNCLIPPED + "word_bits = 16\n"
    assert said in problems(section + PRIVACY.format(model) + more)


def test_shares_of_noise_are_not_shown_one_by_one() -> None:
    text = problems(BUILT_IN + PRIVACY.format("distributed"))
    assert "add a table [secure_aggregation]" in text


# --- beside [robust] -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("robust", "named"),
    [('rule = "median"\n', '"median"'), ('rule = "mean"\nbefore = ["nnm"]\n', '"nnm + mean"')],
)
def test_a_sum_cannot_be_compared_with_itself(robust: str, named: str) -> None:
    text = problems(PLAN + "[robust]\nbyzantine = 2\n" + robust)
    assert f"robust.rule: {named} compares updates" in text
    assert "robust.byzantine" not in text  # one reason is enough


def test_a_mean_of_one_sum_that_expects_somebody_hostile_would_miss_every_round() -> None:
    text = problems(PLAN + '[robust]\nbyzantine = 1\nrule = "mean"\n')
    assert "robust.byzantine: 1: mean: 1 updates are too few for byzantine = 1" in text


def test_a_mean_that_expects_nobody_hostile_is_a_sum() -> None:
    FederationPlan.parse(PLAN + '[robust]\nbyzantine = 0\nrule = "mean"\n')
