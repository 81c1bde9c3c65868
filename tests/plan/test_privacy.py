"""The table [privacy]: what it fills in, and every combination that is refused, with the reason."""

import pytest

from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan
from fedsec.plan.privacy import clip_noise, expected, honest, population
from fedsec.plan.secure_aggregation import update_clip
from fedsec.plan.summary import summary

HEAD = 'schema = 1\nname = "a plan"\n[task]\nname = "digits"\n'
NODES = "[nodes]\nmin_available = 10\n"
TRAINING = "[training]\nrounds = 5\n"
SECURE = '[secure_aggregation]\nmode = "semi-honest"\n'
MECHANISM = "epsilon = 8.0\ndelta = 1e-5\nnoise_multiplier = 1.0\nclip = 0.5\n"


def text(privacy: str, *, nodes: str = NODES, training: str = TRAINING, head: str = HEAD) -> str:
    secure = SECURE if '"distributed"' in privacy else ""
    return head + training + nodes + secure + "[privacy]\n" + privacy + MECHANISM


def problem(given: str) -> str:
    with pytest.raises(ConfigError) as caught:
        FederationPlan.parse(given)
    return str(caught.value)


def test_a_plan_without_the_table_is_what_it_was() -> None:
    plan = FederationPlan.parse(HEAD + TRAINING + NODES)
    assert plan.privacy is None
    assert "privacy" not in plan.canonical_json()


@pytest.mark.parametrize("model", ["central", "local", "distributed", "example"])
def test_each_model_has_a_smallest_plan(model: str) -> None:
    plan = FederationPlan.parse(text(f'model = "{model}"\n'))
    assert plan.privacy is not None
    assert plan.privacy.model == model
    assert population(plan) == expected(plan) == 10
    assert honest(plan) == (9 if model == "distributed" else 10)  # one of ten is corrupt always


def test_the_summary_says_who_adds_how_much_noise() -> None:
    plan = FederationPlan.parse(text('model = "central"\nsampling = 0.5\n'))
    assert dict(summary(plan))["privacy"] == (
        "the coordinator adds noise to the aggregate, noise multiplier 1, clip 0.5; of 10 nodes, "
        "each drawn with probability 0.5 in secret; at most epsilon 8 at delta 1e-05"
    )
    assert "; a round draws in secret and goes on" in dict(summary(plan))["nodes"]  # no quorum
    plan = FederationPlan.parse(text('model = "distributed"\ndropouts = 2\n'))
    assert "of 10 nodes, at least 7 of them honest" in dict(summary(plan))["privacy"]
    plan = FederationPlan.parse(text('model = "central"\nclip_quantile = 0.4\nclip_noise = 2.0\n'))
    assert "clip from 0.5 towards the 0.4 quantile" in dict(summary(plan))["privacy"]


def test_numbers_that_follow_from_others() -> None:
    central = 'model = "central"\npopulation = 1000\nsampling = 0.1\nclip_quantile = 0.5\n'
    plan = FederationPlan.parse(text(central))
    assert (population(plan), expected(plan), clip_noise(plan)) == (1000, 100.0, 5.0)
    spread = 'model = "distributed"\npopulation = 12\ndropouts = 2\ncorrupt = 3\n'
    assert honest(FederationPlan.parse(text(spread))) == 7


TOLD = "metrics = { train-loss = [0, 4] }\n"
REFUSED = [
    ("local", "sampling = 0.5\n", {}, 'privacy.sampling: 0.5 is read by model = "central" only'),
    ("central", "bits = 16\n", {}, 'privacy.bits: 16 is read by model = "distributed" only'),
    ("central", "clip_noise = 3.0\n", {}, "together with privacy.clip_quantile only"),
    (
        "central",
        "",
        {"training": TRAINING + 'weighting = "examples"\nmax_examples = 10\n'},
        'training.weighting: "examples": a node claims its own weight',
    ),
    (
        "example",
        "",
        {"training": TRAINING + 'weighting = "examples"\nmax_examples = 10\n'},
        'training.weighting: "examples": how many examples a node has is withheld',
    ),
    ("central", "", {"nodes": NODES + "fraction = 0.5\n"}, "nodes.fraction: 0.5: a share that is"),
    ("central", "population = 9\n", {}, "privacy.population: 9 is less than nodes.min_available"),
    ("central", "sampling = 0.5\n", {"nodes": NODES + "quorum = 2\n"}, "nodes.quorum: 2: with"),
    ("central", "clip_quantile = 0.5\n", {}, "privacy.clip_noise: 0.5 must be more than half"),
    ("central", "metrics_noise = 2.0\n", {}, "privacy.metrics_noise: 2 is read together with"),
    ("central", TOLD + "metrics_noise = 1.0\n", {}, "privacy.metrics_noise: 1 leaves nothing of"),
    (
        "central",
        TOLD + "metrics_noise = 1.2\nclip_quantile = 0.5\nclip_noise = 0.7\n",
        {},
        "privacy.metrics_noise: 1.2 leaves nothing of",
    ),
    ("local", "metrics = { loss = [1, 1] }\n", {}, "privacy.metrics.loss: [1, 1] is no range"),
    (
        "local",
        "metrics = { acuracy = [0, 1] }\n",
        {},
        "privacy.metrics.acuracy: no node of this task can tell it; these can be told: train-loss,",
    ),
    ("example", TOLD, {}, "privacy.metrics: noise in the training covers no figure"),
    ("distributed", "dropouts = 5\ncorrupt = 3\n", {}, "10 nodes less 5 dropouts less 3 corrupt"),
    (
        "distributed",
        "dropouts = 2\n",
        {"nodes": NODES + "quorum = 7\n"},
        "nodes.quorum: 7 is less than the 8 that",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "keys", "other", "message"), REFUSED)
def test_what_may_not_be_combined(
    model: str, keys: str, other: dict[str, str], message: str
) -> None:
    assert message in problem(text(f'model = "{model}"\n' + keys, **other))


def test_the_summary_says_which_figures_are_told() -> None:
    plan = FederationPlan.parse(text('model = "local"\n' + TOLD))
    means = "of nodes: told as noised means over"
    told = f"{means} those whose answers count: train-loss in 0..4; no others"
    assert dict(summary(plan))["figures"] == told
    plan = FederationPlan.parse(text('model = "central"\n' + TOLD))
    told = f"{means} those that answer (an answer that is rejected counts as the middle of a range)"
    assert dict(summary(plan))["figures"].startswith(told)
    drawn = FederationPlan.parse(text('model = "central"\nsampling = 0.5\n' + TOLD))
    assert "the 5 drawn on average (how many were is a secret" in dict(summary(drawn))["figures"]
    plan = FederationPlan.parse(text('model = "local"\n'))
    assert dict(summary(plan))["figures"] == "of nodes: withheld, all of them"


@pytest.mark.parametrize(("model", "clip"), [("central", ""), ("local", "clip = 300.0\n")])
def test_figures_do_not_go_into_a_sum_that_others_noise(model: str, clip: str) -> None:
    secure = '[secure_aggregation]\nmode = "semi-honest"\n' + clip
    given = text(f'model = "{model}"\n' + TOLD) + secure
    assert "a secure sum carries updates only; leave it out, or choose" in problem(given)


def test_noised_updates_go_into_a_secure_sum_with_a_clip_of_their_own() -> None:
    given = text('model = "local"\n') + '[secure_aggregation]\nmode = "semi-honest"\n'
    assert "secure_aggregation.clip: missing" in problem(given)
    assert "with its noise: about sqrt(d) * 2 * noise_multiplier * clip" in problem(given)
    plan = FederationPlan.parse(given + "clip = 300.0\n")
    assert update_clip(plan) == 300.0


@pytest.mark.parametrize("model", ["central", "distributed", "example"])
def test_no_figure_of_a_secure_sum_leaves_beside_the_noise(model: str) -> None:
    clip = "clip = 1.0\n" if model == "example" else ""
    secure = '[secure_aggregation]\nmode = "semi-honest"\n' + clip
    given = HEAD + TRAINING + NODES + secure + "metrics = { train-loss = [0.0, 9.0] }\n"
    given += f'[privacy]\nmodel = "{model}"\n' + MECHANISM
    found = problem(given)
    assert "secure_aggregation.metrics: train-loss: told without noise" in found
    assert ("or write privacy.metrics" in found) == (model == "distributed")


def test_a_delta_that_gives_one_node_away_is_refused() -> None:
    given = text('model = "local"\n').replace("1e-5", "0.2")
    assert "privacy.delta: 0.2 would allow one of 10 nodes to be published" in problem(given)


def test_a_foreign_app_has_no_guarantee() -> None:
    given = text('model = "central"\n', head='schema = 1\nname = "x"\n[app]\nname = "theirs"\n', training="")  # fmt: skip
    assert "privacy: must be left out: what the app 'theirs' releases is not known" in problem(
        given
    )


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("epsilon = 51.0", "a number > 0 and <= 50"),
        ("delta = 0.0", "a number >= 1e-15 and < 1"),
        ("noise_multiplier = 0.0", "a number in 0.05..1000"),
        ("clip = 0.0", "a number > 0 and <= 1000000"),
    ],
)
def test_numbers_out_of_range(line: str, allowed: str) -> None:
    key = line.partition(" ")[0]
    lines = [x for x in MECHANISM.splitlines() if not x.startswith(key)]
    given = HEAD + TRAINING + NODES + '[privacy]\nmodel = "local"\n' + "\n".join([*lines, line])
    assert allowed in problem(given).replace("1e+06", "1000000").replace("1000000.0", "1000000")
