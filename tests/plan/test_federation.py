"""A plan: what parses, what it means, and a sentence for everything that does not."""

import copy
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan, toml_example
from fedsec.plan.federation import MAX_BYTES
from fedsec.plan.summary import summary

HEAD = 'schema = 1\nname = "a plan"\n'
TASK = '[task]\nname = "digits"\n'
TRAINING = "[training]\nrounds = 5\n"
SMALLEST = HEAD + TASK + TRAINING
ALGORITHMS = '"fedavg", "fedprox", "fedavgm", "fedadam"'
FLOWER = HEAD + '[app]\nname = "their-app"\n'


def problems(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        FederationPlan.parse(text)
    return str(caught.value)


def test_the_smallest_plan_has_every_default_filled_in() -> None:
    plan = FederationPlan.parse(SMALLEST)
    task, training = plan.learning
    assert plan.built_in
    assert (task.name, task.data, dict(task.options)) == ("digits", "digits", {})
    assert (training.algorithm, training.server_learning_rate) == ("fedavg", 1.0)
    assert (training.local_epochs, training.local_steps, training.momentum) == (1, None, 0.0)
    assert (training.proximal_mu, training.server_momentum, training.beta_1) == (None, None, None)
    assert (plan.nodes.min_available, plan.nodes.quorum, plan.nodes.fraction) == (2, 2, 1.0)
    assert (plan.round.reconnect_s, plan.round.attempts, plan.model.save_every) == (3.0, 3, 0)


def test_the_example_is_a_plan_and_lies_in_examples() -> None:
    plan = FederationPlan.parse(toml_example())
    assert plan.learning[1].rounds == 30
    shipped = Path(__file__).parents[2] / "examples" / "digits.plan.toml"
    assert shipped.read_text(encoding="utf-8") == toml_example()


@pytest.mark.parametrize(
    ("algorithm", "filled"),
    [
        ("fedavg", {"server_learning_rate": 1.0}),
        ("fedprox", {"server_learning_rate": 1.0, "proximal_mu": 0.01}),
        ("fedavgm", {"server_learning_rate": 1.0, "server_momentum": 0.9}),
        ("fedadam", {"server_learning_rate": 0.03, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3}),
    ],
)
def test_each_algorithm_has_its_own_defaults(algorithm: str, filled: dict[str, float]) -> None:
    _, training = FederationPlan.parse(SMALLEST + f'algorithm = "{algorithm}"\n').learning
    own = ("server_learning_rate", "proximal_mu", "server_momentum", "beta_1", "beta_2", "tau")
    given = {key: getattr(training, key) for key in own if getattr(training, key) is not None}
    assert given == filled


def test_a_plan_cannot_be_changed() -> None:
    plan = FederationPlan.parse(SMALLEST + "[nodes]\n")
    with pytest.raises(ValidationError, match="frozen"):
        plan.nodes.quorum = 1
    assert plan.task is not None
    with pytest.raises(TypeError):
        plan.task.options["model"] = "mlp"  # type: ignore[index]
    assert copy.deepcopy(plan) == plan
    assert len({plan, copy.deepcopy(plan)}) == 1


# --- the digest ----------------------------------------------------------------------------------


def test_the_digest_names_the_meaning_not_the_text() -> None:
    plan = FederationPlan.parse(SMALLEST)
    same = FederationPlan.parse(
        'name = "a plan"  # a comment\nschema = 1\n[training]\nlocal_epochs = 1\nrounds = 5\n'
        '[task]\ndata = "digits"\nname = "digits"\n[round]\ndeadline_s = 600\n'
    )
    assert plan.digest == same.digest
    assert plan.digest != FederationPlan.parse(SMALLEST + "seed = 2\n").digest


def test_the_digest_is_the_one_that_was_published() -> None:
    """A later version that changes this one changes what every stored model's metadata means."""
    assert FederationPlan.parse(SMALLEST).digest == (
        "2cf18f60d04addd0ddcd84335b13d9c64cfd842933390548fefdafcea325b77e"
    )


# --- what is wrong is listed, all of it ------------------------------------------------------------


def test_every_error_is_listed_with_path_value_and_range() -> None:
    text = problems(
        HEAD
        + '[task]\nname = "digits"\n[training]\nrouns = 3\nbatch_size = 0\nlearning_rate = "a"\n'
        'algorithm = "fedagv"\nmomentum = 1.0\nlocal_epochs = true\n[nodes]\nfraction = 0.0\n'
        "min_available = -1\n[round]\ndeadline_s = nan\n[tsak]\nname = 1\n"
    )
    assert text.splitlines() == [
        "the plan has 11 errors:",
        "  training.rounds: missing; allowed: an integer in 1..1000000",
        f'  training.algorithm = "fedagv": allowed: {ALGORITHMS}; did you mean "fedavg"?',
        "  training.local_epochs = true: allowed: an integer in 1..10000",
        "  training.batch_size = 0: allowed: an integer in 1..1000000",
        '  training.learning_rate = "a": allowed: a number > 0 and <= 1000',
        "  training.momentum = 1.0: allowed: a number >= 0 and < 1",
        "  training.rouns: unknown key; did you mean training.rounds?",
        "  nodes.min_available = -1: allowed: an integer in 1..100000",
        "  nodes.fraction = 0.0: allowed: a number > 0 and <= 1",
        "  round.deadline_s = nan: allowed: a number > 0 and <= 604800",
        "  tsak: unknown key; did you mean task?",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "schema: missing; allowed: 1"),
        (SMALLEST.replace("1", "2", 1), "the plan: schema = 2: allowed: 1"),
        (SMALLEST.replace('"a plan"', '""'), 'name = "": allowed: 1..100 characters'),
        (SMALLEST.replace('"a plan"', r'"a\u001bplan"'), r'name = "a\x1bplan": allowed: 1..100'),
        (HEAD + "training = 3\n" + TASK, "the plan: training = 3: allowed: a table"),
        (HEAD + "nodes = 3\n" + TASK + TRAINING, "the plan: nodes = 3: allowed: a table"),
        (HEAD + "task = 3\n" + TRAINING, "the plan: task = 3: allowed: a table"),
        (HEAD + '[task]\nname = "own:task"\n' + TRAINING, "task.data: missing; allowed: 1..63"),
        (HEAD + '[task]\nname = "a b"\n' + TRAINING, 'task.name = "a b": allowed: the name of a'),
        (
            HEAD + TASK + "options = { a = [1] }\n" + TRAINING,
            "the plan: task.options.a = [1]: allowed: true or false or an integer or a number or text",
        ),
        (SMALLEST + "seed = -1\n", "training.seed = -1: allowed: an integer in 0..92233720368547758"),
        (SMALLEST + "seed = 1.5\n", "training.seed = 1.5: allowed: an integer in 0..922337203685477"),
        (SMALLEST + "learning_rate = inf\n", "training.learning_rate = inf: allowed: a number > 0"),
        (SMALLEST + "[nodes]\nquorum = '3'\n", 'nodes.quorum = "3": allowed: an integer in 1..1000'),
        (SMALLEST + "zzz = 1\n", "training.zzz: unknown key; known here: algorithm, batch_size"),
        ("schema = ", "the plan is not TOML: Invalid value"),
        ("a = " + "[" * 5000, "the plan is not TOML"),
        ("#" * (MAX_BYTES + 1), f"the plan is longer than {MAX_BYTES} bytes"),
        ("schema = \ud800", "the plan is not TOML"),
    ],
)  # fmt: skip
def test_a_sentence_for_each_error(text: str, sentence: str) -> None:
    assert sentence in problems(text)


def test_a_long_value_is_cut_short_and_shows_no_control_characters() -> None:
    text = problems(SMALLEST + 'optimizer = "' + "x" * 5000 + '\\u001b[2J"\n')
    assert len(text) < 300
    assert "\x1b" not in text


# --- what does not go together -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "key", "reason"),
    [
        ("[nodes]\nmin_available = 3\nquorum = 4\n", "nodes.quorum", "allowed: 1..3"),
        ("[nodes]\nmin_available = 10\nfraction = 0.5\nquorum = 6\n", "nodes.quorum",
         "more than the 5 that nodes.fraction = 0.5 draws of nodes.min_available = 10"),
        ("proximal_mu = 0.1\n", "training.proximal_mu", 'read by algorithm = "fedprox" only'),
        ("server_momentum = 0.5\n", "training.server_momentum", 'algorithm = "fedavgm" only'),
        ("beta_1 = 0.5\n", "training.beta_1", 'algorithm = "fedadam" only, this plan has "fedavg"'),
        ("tau = 0.5\n", "training.tau", 'algorithm = "fedadam" only'),
        ("local_epochs = 1\nlocal_steps = 2\n", "training.local_steps", "give one of the two"),
        ('optimizer = "adam"\nmomentum = 0.5\n', "training.momentum", 'optimizer = "sgd" only'),
        ("max_examples = 10\n", "training.max_examples", 'read with weighting = "examples" only'),
        ('weighting = "examples"\n', "training.max_examples", "needs a cap"),
        ("[round]\nreconnect_s = 9\ndeadline_s = 9\n", "round.reconnect_s", "less than round.dead"),
        ("[round]\nevaluate_every = 6\n", "round.evaluate_every", "allowed: 0..5"),
        ("[model]\nsave_every = 6\n", "model.save_every", "allowed: 0..5"),
        ("[app.config]\nx = 1\n", "app.config", "only a Flower app reads it"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_the_reason(more: str, key: str, reason: str) -> None:
    text = problems(SMALLEST + more)
    assert text.startswith(f"the plan: {key}: ")
    assert reason in text


def test_all_clashes_are_listed() -> None:
    text = problems(SMALLEST + "beta_1 = 0.5\ntau = 0.1\nmax_examples = 3\n")
    assert text.splitlines()[0] == "the plan has 3 errors:"


def test_the_built_in_app_needs_a_task_and_training() -> None:
    assert problems(HEAD).splitlines() == [
        "the plan has 2 errors:",
        '  task: missing: app.name = "fedsec" needs a [task] table',
        '  training: missing: app.name = "fedsec" needs a [training] table',
    ]


def test_a_flower_app_brings_its_own_task() -> None:
    plan = FederationPlan.parse(FLOWER + "config = { lr = 0.1 }\n[nodes]\nmin_available = 3\n")
    assert not plan.built_in
    assert dict(plan.app.config) == {"lr": 0.1}
    with pytest.raises(ConfigError, match="no task and training: the app is 'their-app'"):
        _ = plan.learning


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (TASK, "task"),
        (TRAINING, "training"),
        ("[model]\nsave_every = 1\n", "model"),
        ("[nodes]\nquorum = 1\n", "nodes.quorum"),
        ("[nodes]\nfraction = 1.0\n", "nodes.fraction"),
        ("[round]\nattempts = 1\n", "round.attempts"),
        ("[round]\nevaluate_every = 1\n", "round.evaluate_every"),
    ],
)
def test_what_a_flower_app_decides_itself_is_refused_in_the_plan(more: str, key: str) -> None:
    assert problems(FLOWER + more) == (
        f"the plan: {key}: must be left out: the app 'their-app' decides this for itself"
    )


# --- cohorts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("available", "fraction", "quorum"), [(10, 1.0, 10), (10, 0.5, 5), (3, 0.1, 1), (100, 0.07, 7)]
)
def test_left_out_the_quorum_is_what_a_round_draws(
    available: int, fraction: float, quorum: int
) -> None:
    plan = FederationPlan.parse(
        SMALLEST + f"[nodes]\nmin_available = {available}\nfraction = {fraction}\n"
    )
    assert plan.nodes.quorum == quorum


@pytest.mark.parametrize(("ready", "drawn"), [(0, 0), (3, 3), (4, 4), (9, 4), (10, 5), (20, 10)])
def test_a_draw_is_never_below_the_quorum_while_enough_are_ready(ready: int, drawn: int) -> None:
    plan = FederationPlan.parse(
        SMALLEST + "[nodes]\nmin_available = 10\nfraction = 0.5\nquorum = 4\n"
    )
    assert plan.nodes.cohort(ready) == drawn


# --- the summary -----------------------------------------------------------------------------------


def test_the_summary_says_what_the_run_depends_on() -> None:
    rows = dict(summary(FederationPlan.parse(toml_example())))
    assert rows["name"] == "handwritten digits"
    assert re.fullmatch("[0-9a-f]{64}", rows["digest"])
    assert rows["task"] == "digits with model = 'cnn', on each node's data set \"digits\""
    assert rows["training"] == "30 rounds of FedAvg, server learning rate 1, seed 1"
    assert rows["a node"].startswith(
        "trains 2 epochs in batches of 32 examples; SGD, learning rate"
    )
    assert "8 must answer" in rows["nodes"]
    assert rows["models kept"] == "after every 10 rounds and after round 30"


def test_the_summary_of_rare_choices() -> None:
    plan = FederationPlan.parse(
        SMALLEST + 'algorithm = "fedadam"\noptimizer = "adam"\nlocal_steps = 1\n'
        'weighting = "examples"\nmax_examples = 9\n'
        "[nodes]\nmin_available = 8\nfraction = 0.5\n[round]\nevaluate_every = 0\n"
    )
    rows = dict(summary(plan))
    assert rows["training"] == (
        "5 rounds of FedAdam, server learning rate 0.03, beta_1 0.9, beta_2 0.99, tau 0.001, seed 1"
    )
    assert rows["a node"] == "trains 1 step in batches of 32 examples; Adam, learning rate 0.05"
    assert rows["weights"] == "by examples, no node for more than 9"
    assert "draws 0.5 of those that are ready, 4 must answer" in rows["nodes"]
    assert (rows["evaluated"], rows["models kept"]) == ("never", "after round 5")


def test_the_summary_says_that_under_privacy_no_node_evaluates() -> None:
    plan = FederationPlan.parse(
        SMALLEST
        + '[nodes]\nmin_available = 8\n[secure_aggregation]\nmode = "semi-honest"\nclip = 1.0\n'
    )
    assert dict(summary(plan))["evaluated"] == (
        "after every round, on the task's central examples if it has any: no node is asked for its own"
    )


def test_the_summary_of_a_flower_app() -> None:
    rows = dict(summary(FederationPlan.parse(FLOWER + "config = { lr = 0.1 }\n")))
    assert rows["app"] == 'the Flower app "their-app" with lr = 0.1'
    assert "quorum" not in " ".join(rows)
    assert rows["a round"] == "a node has 600 s to answer, a lost one 3 s to come back"
