"""The built-in ServerApp with the built-in ClientApp, under a plain Grid: real data, whole runs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict

from fedsec.artifacts import read_model, write_model
from fedsec.errors import ConfigError, StateError
from fedsec.flower.arrays import pack
from fedsec.flower.collection import Attempt
from fedsec.flower.local import LocalGrid, node_contexts
from fedsec.flower.messages import instruction
from fedsec.flower.records import NodeRecord, RecordFiles
from fedsec.flower.reporting import reporter_of
from fedsec.flower.root import RootTraining
from fedsec.flower.rounds import Rounds
from fedsec.flower.strategy import ServerState
from fedsec.flower.table import ALGORITHMS
from fedsec.plan import FederationPlan, toml_example
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.digits import Digits
from fedsec_client.client_app import app as client_app
from fedsec_server.server_app import app, central_evaluation, records_keeper, run

PLAN = """
schema = 1
name = "a test"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 6
learning_rate = 0.1
momentum = 0.9
algorithm = "ALGORITHM"
[nodes]
min_available = 4
[round]
evaluate_every = 3
[model]
save_every = 2
"""


def text(algorithm: str = "fedavg") -> str:
    return PLAN.replace("ALGORITHM", algorithm)


def local_grid(plan: str, nodes: int = 4) -> LocalGrid:
    contexts = node_contexts(nodes, {"fedsec-plan": plan})
    return LocalGrid(dict.fromkeys(contexts, client_app), contexts)


def context(**config: str) -> Context:
    return Context(1, 1, {}, RecordDict(), {key.replace("_", "-"): v for key, v in config.items()})


def of(grid: LocalGrid, kind: str) -> list[Mapping[str, object]]:
    return [detail for reported, detail in grid.reports if reported == kind]


def test_a_whole_run_keeps_its_models_and_reports_every_round(tmp_path: Path) -> None:
    grid = local_grid(text())
    app(grid, context(fedsec_plan=text(), fedsec_directory=str(tmp_path)))
    assert [report["round"] for report in of(grid, "round")] == [1, 2, 3, 4, 5, 6]
    assert [r["round"] for r in of(grid, "round") if "accuracy" in r] == [3, 6]
    models = of(grid, "model")
    assert [(m["round"], m["final"]) for m in models] == [(2, False), (4, False), (6, True)]
    arrays, metadata = read_model(tmp_path / str(models[-1]["path"]))
    assert metadata["plan"] == FederationPlan.parse(text()).digest
    assert (metadata["round"], metadata["run"], metadata["task"]) == ("6", "1", "digits")
    assert arrays.keys() == get_arrays(Digits().make_model({"model": "mlp"}, 1)).keys()
    last = of(grid, "round")[-1]
    state = ServerState.begin(
        arrays, ALGORITHMS["fedavg"](FederationPlan.parse(text()).learning[1])
    )
    evaluation = central_evaluation(FederationPlan.parse(text()), Digits())
    assert evaluation is not None
    assert evaluation(state)["accuracy"] == last["accuracy"]


def test_the_first_round_is_the_mean_of_the_nodes_own_training() -> None:
    """Recomputed with numpy from what each node answered."""
    answers: list[np.typing.NDArray[np.float32]] = []

    def listening(message: Message, its: Context) -> Message:
        reply = client_app(message, its)
        answers.append(reply.content.array_records["update"]["vector"].numpy())
        return reply

    contexts = node_contexts(4, {"fedsec-plan": text()})
    grid = LocalGrid(dict.fromkeys(contexts, listening), contexts)
    plan = FederationPlan.parse(text())
    state, rounds = start(plan, grid)
    after = rounds(state, 1)
    assert len(answers) == 4
    mean = np.mean(np.stack(answers).astype(np.float64), axis=0)
    np.testing.assert_allclose(after.vector - state.vector, mean, rtol=1e-4, atol=1e-6)


def start(plan: FederationPlan, grid: LocalGrid) -> tuple[ServerState, Rounds]:
    task, training = plan.learning
    arrays = get_arrays(Digits().make_model(task.options, training.seed))
    state = ServerState.begin(arrays, ALGORITHMS[training.algorithm](training))
    evaluation = central_evaluation(plan, Digits())
    return state, Rounds(
        plan, grid, reporter_of(grid), size=state.layout.size, evaluation=evaluation
    )


@pytest.mark.parametrize("algorithm", ["fedavg", "fedprox", "fedavgm", "fedadam"])
def test_a_run_that_was_interrupted_continues_bit_by_bit(algorithm: str, tmp_path: Path) -> None:
    plan = FederationPlan.parse(text(algorithm))
    seen: dict[int, bytes] = {}
    grid = local_grid(text(algorithm))
    state, rounds = start(plan, grid)
    run(rounds, state, 6, lambda new: seen.update({new.round: new.vector.tobytes()}))

    _, again = start(plan, local_grid(text(algorithm)))
    halfway = run(again, state, 3, lambda _new: None)
    write_model(tmp_path / "state", halfway.to_arrays(), {"state": halfway.to_json()})
    arrays, metadata = read_model(tmp_path / "state")
    restored = ServerState.from_arrays(arrays, metadata["state"])

    other_grid = local_grid(text(algorithm))
    _, rest = start(plan, other_grid)
    continued: dict[int, bytes] = {}
    run(rest, restored, 6, lambda new: continued.update({new.round: new.vector.tobytes()}))
    assert continued == {number: seen[number] for number in (4, 5, 6)}
    reports = [{**r, "seconds": 0} for r in of(grid, "round")][3:]
    assert [{**r, "seconds": 0} for r in of(other_grid, "round")] == reports


def test_a_node_that_breaks_is_named_and_does_not_count() -> None:
    def broken(_message: Message, _context: Context) -> Message:
        raise MemoryError("cannot allocate 9 GB")

    quorum = text().replace("min_available = 4", "min_available = 4\nquorum = 3")
    contexts = node_contexts(4, {"fedsec-plan": quorum})
    apps = {node: broken if node == 102 else client_app for node in contexts}
    grid = LocalGrid(apps, contexts)
    app(grid, context(fedsec_plan=quorum))
    for report in of(grid, "round"):
        assert report["answered"] == [100, 101, 103]
        assert report["failed"] == {"102": "MemoryError: cannot allocate 9 GB"}


def test_without_a_directory_the_run_says_that_it_keeps_no_model() -> None:
    grid = local_grid(text())
    app(grid, context(fedsec_plan=text()))
    assert of(grid, "note") == [{"text": "no 'fedsec-directory' is set: the model is not kept"}]
    assert of(grid, "model") == []


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, "run_config['fedsec-plan'] must hold the plan, as TOML; it is missing"),
        ({"fedsec_plan": "schema = 1"}, "the plan: name: missing"),
        (
            {"fedsec_plan": text().replace('"mlp"', '"mpl"')},
            'the plan: task.options.model: "mpl": allowed: "cnn", "mlp", "logistic"',
        ),
        (
            {"fedsec_plan": text().replace('"digits"', '"digit"')},
            'the plan: task.name: "digit": built in are "digits", ',
        ),
        (
            {"fedsec_plan": 'schema = 1\nname = "x"\n[app]\nname = "theirs"\n'},
            "the plan has no task and training: the app is 'theirs'",
        ),
    ],
)
def test_a_wrong_plan_ends_the_run_before_a_node_is_asked(
    config: dict[str, str], sentence: str
) -> None:
    grid = local_grid(text())
    with pytest.raises(ConfigError) as caught:
        app(grid, context(**config))
    assert str(caught.value).startswith(sentence)
    assert grid.reports == []


def test_too_few_nodes_end_the_run_with_a_sentence() -> None:
    waiting = text().replace("min_available = 4", "min_available = 5\nwait_s = 0.01")
    with pytest.raises(StateError, match="4 nodes are ready, 5 are needed"):
        app(local_grid(text()), context(fedsec_plan=waiting))


def test_a_task_of_ones_own_with_batch_normalisation_and_tests_on_the_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example: its integer counter of batches has no mean and stays as first made."""
    examples = Path(__file__).parents[2] / "examples"
    monkeypatch.syspath_prepend(str(examples))
    plan = (examples / "own_task.plan.toml").read_text(encoding="utf-8")
    grid = local_grid(plan)
    app(grid, context(fedsec_plan=plan, fedsec_directory=str(tmp_path)))
    reports = of(grid, "round")
    assert [report["round"] for report in reports if "accuracy" in report] == [2, 4, 6, 8, 10]
    assert reports[-1]["evaluated"] == [100, 101, 102, 103]
    accuracy = reports[-1]["accuracy"]
    assert isinstance(accuracy, float)
    assert accuracy >= 0.92
    arrays, _ = read_model(tmp_path / "models" / "round-00010.safetensors")
    assert arrays["0.num_batches_tracked"].shape == ()
    assert arrays["0.num_batches_tracked"] == 0
    assert float(arrays["0.running_mean"].max()) > 100


def test_a_directory_that_cannot_be_made_ends_the_run_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    grid = local_grid(text())
    with pytest.raises(ConfigError, match=r"fedsec-directory = .*/file/x: no models can be kept"):
        app(grid, context(fedsec_plan=text(), fedsec_directory=str(tmp_path / "file" / "x")))
    assert of(grid, "round") == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_example_plan_learns_the_digits_from_ten_unlike_nodes(seed: int) -> None:
    """Dirichlet(0.5), 30 rounds: 0.93 on images that no node holds, with margin."""
    plan = toml_example().replace("seed = 1 ", f"seed = {seed} ")
    contexts = node_contexts(10, {"fedsec-plan": plan, "fedsec-data": f'{{"seed": {seed}}}'})
    grid = LocalGrid(dict.fromkeys(contexts, client_app), contexts)
    app(grid, context(fedsec_plan=plan))
    last = of(grid, "round")[-1]
    assert last["round"] == 30
    accuracy = last["accuracy"]
    assert isinstance(accuracy, float)
    assert accuracy >= 0.945


CENTRAL = """
[robust]
rule = "trimmed-mean"
byzantine = 1
[privacy]
model = "central"
epsilon = 8.0
delta = 1e-5
noise_multiplier = 5.0
clip = 1.0
"""


def test_records_of_nodes_are_reported_unless_central_privacy_is_promised(tmp_path: Path) -> None:
    plain, central = FederationPlan.parse(text()), FederationPlan.parse(text() + CENTRAL)
    assert records_keeper(plain, context(fedsec_directory=str(tmp_path))) is None
    kept = records_keeper(central, context(fedsec_directory=str(tmp_path)))
    assert kept == RecordFiles(tmp_path / "records")
    nowhere = records_keeper(central, context())
    assert nowhere is not None
    nowhere(1, (NodeRecord((1,)),))
    assert list(tmp_path.iterdir()) == []


ROOTED = """
[robust]
rule = "{rule}"
byzantine = {byzantine}
root = "clean"
"""


@pytest.mark.parametrize(("rule", "liars"), [("fltrust", 5), ("monna", 3)])
def test_clean_data_of_the_coordinators_own_withstand_liars(rule: str, liars: int) -> None:
    """Of eight nodes; FLTrust where most of them lie. The root data are a tenth of the pool."""

    def lying(message: Message, its: Context) -> Message:
        reply = client_app(message, its)
        update = reply.content.array_records["update"]["vector"].numpy()
        reply.content.array_records["update"]["vector"] = pack(-10 * update)
        return reply

    plan = text().replace("min_available = 4", "min_available = 8") + ROOTED.format(
        rule=rule, byzantine=liars
    )
    contexts = node_contexts(8, {"fedsec-plan": plan, "fedsec-data": '{"split": "iid"}'})
    apps = {node: lying if node >= 108 - liars else client_app for node in contexts}
    grid = LocalGrid(apps, contexts)
    clean = '{"connector": "digits", "split": "iid", "partitions": 10, "partition": 9, "seed": 7}'
    app(grid, context(fedsec_plan=plan, fedsec_root=clean))
    accuracy = of(grid, "round")[-1]["accuracy"]
    assert isinstance(accuracy, float)
    assert accuracy > 0.6  # after six rounds; of guesses a tenth is right
    for told in of(grid, "nodes"):
        weights = {each["nodes"][0]: each["weight"] for each in told["nodes"]}  # type: ignore[attr-defined]
        assert not any(weights[node] for node in apps if apps[node] is lying)
        assert all(weights[node] > 0 for node in apps if apps[node] is client_app)


@pytest.mark.parametrize(
    ("root", "sentence"),
    [
        (None, 'robust.root = "clean" names data that a coordinator has'),
        ('{"connector": "digit"}', r"\[data.clean\] connector"),
        ('{"connector": "digits", "partitions": 0}', r"\[data.clean\] partitions"),
        ("{", r"\[data.clean\]"),
    ],
)
def test_root_data_that_cannot_be_used_end_the_run_before_a_node_is_asked(
    root: str | None, sentence: str
) -> None:
    plan = text() + ROOTED.format(rule="fltrust", byzantine=1)
    grid = local_grid(plan)
    given = {} if root is None else {"fedsec_root": root}
    with pytest.raises(ConfigError, match=sentence):
        app(grid, context(fedsec_plan=plan, **given))
    assert grid.reports == []


def test_root_training_that_diverges_fails_the_run_by_name() -> None:
    parsed = FederationPlan.parse(text() + ROOTED.format(rule="fltrust", byzantine=1))
    data = Digits().load({"partitions": 10, "partition": 9})
    data.train.inputs[0] = torch.nan
    arrays = get_arrays(Digits().make_model(parsed.learning[0].options, 1))
    asked = Attempt(1, 1, (), instruction(arrays, round_number=1, plan=parsed.digest))
    with pytest.raises(StateError, match="training on the root data diverged in round 1"):
        RootTraining(parsed, Digits(), data.train)(asked)
