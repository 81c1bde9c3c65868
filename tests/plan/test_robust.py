"""`[robust]` in a plan: what it accepts, what it refuses and why, and the values that it makes."""

import dataclasses
from typing import get_args

import pytest

from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan, Robust
from fedsec.plan.robust import RuleName, Stage
from fedsec.plan.robust_rules import TRUSTING
from fedsec.plan.summary import summary
from fedsec.robust import (
    PREMIXES,
    RULES,
    Arc,
    Bucketing,
    CenteredClipping,
    Clip,
    Median,
    MultiKrum,
    Nnm,
    Pipeline,
    TrimmedMean,
)

BASE = """
schema = 1
name = "a test"
[task]
name = "digits"
[training]
rounds = 3
{training}
[nodes]
min_available = 10
quorum = {quorum}
[robust]
{robust}
"""


def parse(robust: str, *, quorum: int = 10, training: str = "") -> FederationPlan:
    return FederationPlan.parse(BASE.format(robust=robust, quorum=quorum, training=training))


def robust(text: str, **more: int) -> Robust:
    section = parse(text, **more).robust
    assert section is not None
    return section


@pytest.mark.parametrize(
    ("text", "pipeline"),
    [
        ('rule = "median"\nbyzantine = 4', Pipeline(Median())),
        (
            'rule = "trimmed-mean"\nbyzantine = 3\nbefore = ["nnm"]',
            Pipeline(TrimmedMean(3), (Nnm(3),)),
        ),
        (
            'rule = "multi-krum"\nbyzantine = 0.3\noptions = { keep = 2, neighbours = 5 }',
            Pipeline(MultiKrum(3, keep=2, neighbours=5)),
        ),
        (
            (
                'rule = "centered-clipping"\nbyzantine = 1\noptions = { radius = 2 }\n'
                'before = ["arc", { name = "bucketing", size = 3 }, { name = "clip", norm = 0.5 }]'
            ),
            Pipeline(CenteredClipping(1, radius=2), (Arc(1), Bucketing(3, 1), Clip(0.5))),
        ),
        (
            'rule = "median"\nbyzantine = 2\nbefore = ["bucketing"]',
            Pipeline(Median(), (Bucketing(2, 2),)),
        ),
    ],
)
def test_a_plan_makes_the_pipeline_that_it_names(text: str, pipeline: Pipeline) -> None:
    section = robust(text)
    assert section.pipeline(section.count(10)) == pipeline


def test_every_rule_and_stage_of_the_tables_has_its_name_in_plans() -> None:
    assert set(get_args(RuleName)) == set(RULES)
    stages = Stage.model_fields["name"].annotation
    assert set(get_args(stages)) == set(PREMIXES)


@pytest.mark.parametrize("rule", sorted(set(RULES) - set(TRUSTING)))
def test_every_rule_can_be_had_from_a_plan(rule: str) -> None:
    options = "options = { radius = 1.0 }" if rule == "centered-clipping" else ""
    section = robust(f'rule = "{rule}"\nbyzantine = 1\n{options}')
    made = section.pipeline(1)
    assert type(made.rule) is RULES[rule].made_by
    assert [f.name for f in dataclasses.fields(made.rule)].count("byzantine") == (rule != "median")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('rule = "kum"\nbyzantine = 1', 'did you mean "krum"?'),
        ('rule = "krum"', "robust.byzantine: missing; allowed: an integer in 0..100000 or a"),
        ('rule = "krum"\nbyzantine = -1', "robust.byzantine = -1: allowed"),
        ('rule = "krum"\nbyzantine = 0.5', "robust.byzantine = 0.5: allowed"),
        ('rule = "krum"\nbyzantine = "2"', 'robust.byzantine = "2": allowed'),
        ('rule = "krum"\nbyzantine = true', "robust.byzantine = true: allowed"),
        ('rule = "krum"\nbyzantine = 1\nf = 2', "robust.f: unknown key"),
        ('rule = "krum"\nbyzantine = 4', "need n >= 2f+3 = 11"),
        ('rule = "krum"\nbyzantine = 0.4', "0.4: krum: 10 updates are too few for byzantine = 4"),
        ('rule = "median"\nbyzantine = 5', "median: 10 updates are too few for byzantine = 5"),
        ('rule = "bulyan"\nbyzantine = 2', "need n >= 4f+3 = 11"),
        (
            'rule = "median"\nbyzantine = 2\nbefore = [{ name = "bucketing", size = 3 }]',
            "bucketing: 10 updates are too few for byzantine = 2: need n >= 2*3*f+1 = 13",
        ),
        ('rule = "fltrust"\nbyzantine = 1', 'robust.root: missing: "fltrust" trusts an update'),
        ('rule = "monna"\nbyzantine = 1', 'robust.root: missing: "monna" trusts an update that'),
        (
            'rule = "median"\nbyzantine = 1\nroot = "clean"',
            'robust.root: "clean" is read by "fltrust" and "monna" only',
        ),
        ('rule = "monna"\nbyzantine = 1\nroot = "../x"', 'robust.root = "../x": allowed'),
        (
            'rule = "monna"\nbyzantine = 1\nroot = "x"\noptions = { trusted = 0 }',
            'robust.options.trusted: unknown; "monna" knows: none',
        ),
        ('rule = "monna"\nbyzantine = 5\nroot = "x"', "need n >= 2f+1 = 11"),
        (
            'rule = "centered-clipping"\nbyzantine = 1',
            'robust.options.radius: missing: "centered-clipping" needs it',
        ),
        (
            'rule = "multi-krum"\nbyzantine = 1\noptions = { kep = 2 }',
            'robust.options.kep: unknown; "multi-krum" knows: keep, neighbours',
        ),
        ('rule = "median"\nbyzantine = 1\noptions = { x = 2 }', '"median" knows: none'),
        (
            'rule = "multi-krum"\nbyzantine = 1\noptions = { keep = 2.5 }',
            "robust.options.keep: 2.5: allowed: an integer",
        ),
        (
            'rule = "dnc"\nbyzantine = 1\noptions = { filter_factor = true }',
            "robust.options.filter_factor: True: allowed: a number",
        ),
        (
            'rule = "multi-krum"\nbyzantine = 1\noptions = { keep = 0 }',
            "robust.options: keep must be >= 1, got 0",
        ),
        ('rule = "multi-krum"\nbyzantine = 1\noptions = { keep = 10 }', "keep must be <= n-f = 9"),
        ('rule = "mean"\nbyzantine = 0\noptions = { byzantine = 3 }', "byzantine: unknown"),
        ('rule = "mean"\nbyzantine = 0\nbefore = ["clip"]', "robust.before.0: missing: write {"),
        (
            'rule = "mean"\nbyzantine = 0\nbefore = [{ name = "nnm", size = 2 }]',
            'robust.before.0: size = 2 is read by "bucketing" only, this is "nnm"',
        ),
        (
            'rule = "mean"\nbyzantine = 0\nbefore = [{ name = "nnm", norm = 2.0 }]',
            'robust.before.0: norm = 2.0 is read by "clip" only, this is "nnm"',
        ),
        ('rule = "mean"\nbyzantine = 0\nbefore = "nnm"', 'robust.before = "nnm": allowed: a list'),
        ('rule = "mean"\nbyzantine = 0\nbefore = ["mnn"]', 'did you mean "nnm"?'),
        ('rule = "mean"\nbyzantine = 0\non_suspect = "ban"', 'allowed: "log", "exclude"'),
        ('rule = "mean"\nbyzantine = 0\nweight_cap = 2.0', "weight_cap: 2 is read with training."),
    ],
)
def test_what_would_be_no_defence_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert reason in str(caught.value)


def test_the_fewest_answers_that_make_a_round_must_do() -> None:
    """f follows from the nodes that are drawn, not from those that answer."""
    text = 'rule = "multi-krum"\nbyzantine = 0.3'
    assert robust(text, quorum=9).count(10) == 3
    with pytest.raises(ConfigError, match=r"need n >= 2f\+3 = 9; .*nodes\.quorum = 8 answers"):
        parse(text, quorum=8)


def test_weights_go_with_rules_that_take_them() -> None:
    weighted = 'weighting = "examples"\nmax_examples = 100'
    parse('rule = "trimmed-mean"\nbyzantine = 2\nweight_cap = 2.0', training=weighted)
    for rule in ("trimmed-mean", "geometric-median"):
        parse(f'rule = "{rule}"\nbyzantine = 1', training=weighted)
        wrong = r"weight_cap: 3: 2 of 10 answers could claim half .* less than 2\.5"
        with pytest.raises(ConfigError, match=wrong):
            parse(f'rule = "{rule}"\nbyzantine = 2', training=weighted)
        few = weighted.replace("100", "3")  # two times three are less than eight
        parse(f'rule = "{rule}"\nbyzantine = 2', training=few)
    with pytest.raises(ConfigError, match='these do: "mean", "trimmed-mean", "geometric-median"'):
        parse('rule = "median"\nbyzantine = 2', training=weighted)
    with pytest.raises(ConfigError, match=r"does not go with robust\.before"):
        parse('rule = "mean"\nbyzantine = 2\nbefore = ["nnm"]', training=weighted)


def test_a_flower_app_takes_the_strategy_instead() -> None:
    with pytest.raises(ConfigError, match=r"from fedsec\.flower import RobustFedAvg"):
        FederationPlan.parse(
            'schema = 1\nname = "x"\n[app]\nname = "theirs"\n[robust]\nrule = "mean"\nbyzantine = 0'
        )


def test_the_digest_of_a_plan_without_it_is_what_it_was() -> None:
    text = BASE.format(robust="", quorum=10, training="").replace("[robust]", "")
    assert "robust" not in FederationPlan.parse(text).canonical_json()
    named = 'rule = "mean"\nbyzantine = 0\nbefore = ["nnm"]'
    spelt = 'rule = "mean"\nbyzantine = 0\nbefore = [{ name = "nnm" }]\non_suspect = "log"'
    assert parse(named).digest == parse(spelt).digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'rule = "trimmed-mean"\nbyzantine = 3\nbefore = ["nnm", { name = "clip", norm = 2.5 }]',
            "nnm, then clip 2.5, then trimmed-mean; withstands 3 of the nodes; suspects are named",
        ),
        (
            'rule = "multi-krum"\nbyzantine = 0.2\noptions = { keep = 4 }\non_suspect = "exclude"',
            "multi-krum (keep 4); withstands 0.2 times the nodes; suspects are left out of their round",
        ),
        (
            'rule = "fltrust"\nbyzantine = 7\nroot = "x"',
            "fltrust trusting the coordinator's data x; withstands 7 of the nodes; suspects are named",
        ),
        ('rule = "mean"\nbyzantine = 1', "mean; withstands no hostile node; suspects are named"),
    ],
)
def test_a_plan_says_it_in_words(text: str, words: str) -> None:
    assert dict(summary(parse(text)))["robust"] == words


# --- beside other defences -------------------------------------------------------------------------

CENTRAL = """
[privacy]
model = "central"
epsilon = 8.0
delta = 1e-5
noise_multiplier = 2.0
clip = 1.0
"""
SECURE = """
[secure_aggregation]
mode = "semi-honest"
clip = 1.0
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            'rule = "median"\nbyzantine = 2' + CENTRAL,
            '"median" as it stands here has no known sens',
        ),
        ('rule = "krum"\nbyzantine = 2' + CENTRAL, '"mean", "median", "trimmed-mean", "centered-'),
        (
            'rule = "trimmed-mean"\nbyzantine = 2\nbefore = ["nnm"]' + CENTRAL,
            '"trimmed-mean" as it stands here has no known sensitivity',
        ),
        (
            'rule = "mean"\nbyzantine = 1\non_suspect = "exclude"' + CENTRAL,
            'robust.on_suspect: "exclude": who is left out would depend on the updates',
        ),
        (
            'rule = "trimmed-mean"\nbyzantine = 2' + CENTRAL + "sampling = 0.5",
            "privacy.sampling: 0.5: amplification is known for the plain mean, not for",
        ),
        (
            'rule = "median"\nbyzantine = 2' + SECURE,
            'robust.rule: "median" compares updates, and the coordinator sees their one sum',
        ),
        (
            'rule = "mean"\nbyzantine = 0\nbefore = ["arc"]' + SECURE,
            '"arc + mean" compares updates',
        ),
        (
            'rule = "fltrust"\nbyzantine = 2\nroot = "clean"' + CENTRAL.replace("central", "local"),
            'robust.root: "clean": the model would tell of these records without any noise',
        ),
        (
            'rule = "fltrust"\nbyzantine = 2\nroot = "clean"' + SECURE,
            '"fltrust" compares updates',
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'rule = "trimmed-mean"\nbyzantine = 2' + CENTRAL,
        'rule = "mean"\nbyzantine = 1\nbefore = [{ name = "clip", norm = 0.5 }]' + CENTRAL,
        'rule = "median"\nbyzantine = 1\nbefore = [{ name = "bucketing", size = 4 }]' + CENTRAL,
        'rule = "centered-clipping"\nbyzantine = 1\noptions = { radius = 0.1 }' + CENTRAL,
        'rule = "mean"\nbyzantine = 0' + SECURE,
    ],
)
def test_what_goes_together_is_accepted(text: str) -> None:
    assert parse(text).robust is not None
