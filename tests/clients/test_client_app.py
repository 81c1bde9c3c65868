"""The built-in ClientApp: repeatable, frugal with its data, and clear about what it lacks."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict

from fedsec.errors import ConfigError, ProtocolError, StateError
from fedsec.flower.messages import LARGEST, instruction, read_evaluate_reply, read_train_reply
from fedsec.flwr_compat import become
from fedsec.plan import FederationPlan
from fedsec.tasks import digits
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.digits import Digits
from fedsec.tasks.seeds import derive
from fedsec.tasks.task import evaluate
from fedsec.tasks.training import LocalTraining
from fedsec.vectors import Layout
from fedsec_client.client_app import app

PLAN = """
schema = 1
name = "a test"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 3
local_epochs = 2
momentum = 0.5
algorithm = "fedprox"
proximal_mu = 0.1
"""
DATA = {"connector": "digits", "partition": 2, "partitions": 10, "alpha": 0.3}
MODEL = Digits().make_model({"model": "mlp"}, 7)
ARRAYS = {name: array.copy() for name, array in get_arrays(MODEL).items()}
SIZE = Layout.of(ARRAYS).size


def context(*, node_id: int = 7, plan: str = PLAN, **more: Any) -> Context:
    node_config = more.get("node_config", {"fedsec-data": json.dumps(DATA)})
    run_config = {"fedsec-plan": plan, **more.get("run_config", {})}
    return Context(1, node_id, node_config, RecordDict(), run_config)


def message(kind: str = "train", number: int = 1, arrays: Any = None) -> Message:
    become(1, 1, 1)
    given = ARRAYS if arrays is None else arrays
    content = instruction(given, round_number=number, plan=FederationPlan.parse(PLAN).digest)
    return Message(content, dst_node_id=7, message_type=kind)


def update_of(reply: Message) -> np.typing.NDArray[np.float32]:
    row = np.empty(SIZE, np.float32)
    read_train_reply("7", reply.content, row)
    return row


def test_train_is_local_training_from_the_model_that_was_sent() -> None:
    reply = app(message(), context())
    row = np.empty(SIZE, np.float32)
    metrics = read_train_reply("7", reply.content, row)

    task, data = Digits(), Digits().load(DATA)
    model = task.make_model({"model": "mlp"}, 7)
    seed = derive(1, 1, 7)
    training = LocalTraining(epochs=2, momentum=0.5, proximal_mu=0.1)
    loss = training(task, model, data.train, seed)
    layout = Layout.of(ARRAYS)
    np.testing.assert_array_equal(row, layout.flatten(get_arrays(model)) - layout.flatten(ARRAYS))
    assert metrics.examples == len(data.train)
    assert metrics.values["train-loss"] == loss
    assert float(np.abs(row).max()) > 1e-3


def test_evaluate_is_the_models_quality_on_the_nodes_own_tests() -> None:
    metrics = read_evaluate_reply("7", app(message("evaluate"), context()).content)
    data = Digits().load(DATA)
    model = Digits().make_model({"model": "mlp"}, 7)
    assert metrics.examples == len(data.test)
    assert dict(metrics.values) == evaluate(Digits(), model, data.test)


def test_the_same_round_gives_the_same_bits_whatever_came_between() -> None:
    first = update_of(app(message(), context()))
    app(message(number=2), context())
    app(message("evaluate"), context())
    torch.manual_seed(99)
    np.testing.assert_array_equal(update_of(app(message(), context())), first)


@pytest.mark.parametrize("other", ["round", "node", "seed"])
def test_batches_differ_by_round_node_and_seed(other: str) -> None:
    one = update_of(app(message(), context()))
    match other:
        case "round":
            two = app(message(number=2), context())
        case "node":
            two = app(message(), context(node_id=2**64 - 1))
        case _:
            two = app(message(), context(plan=PLAN + "seed = 5\n"))
    assert not np.array_equal(update_of(two), one)


def test_data_are_loaded_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    load = digits.Digits.load

    def counting(self: Digits, settings: Any) -> Any:
        loads.append(settings)
        return load(self, settings)

    monkeypatch.setattr(digits.Digits, "load", counting)
    settings = json.dumps({**DATA, "partition": 5})
    for number in (1, 2, 3):
        app(message(number=number), context(node_config={"fedsec-data": settings}))
    assert len(loads) == 1


def test_under_plain_flower_the_partition_is_flowers() -> None:
    plain = context(
        node_config={"partition-id": 2, "num-partitions": 10},
        run_config={"fedsec-data": '{"alpha": 0.3}'},
    )
    np.testing.assert_array_equal(
        update_of(app(message(), plain)), update_of(app(message(), context()))
    )


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"plan": ""}, "run_config['fedsec-plan'] must hold the plan, as TOML; it is missing"),
        ({"plan": "schema = 2"}, "the plan has 2 errors"),
        ({"node_config": {}}, "this node has no data: neither node_config['fedsec-data'] nor"),
        ({"node_config": {"fedsec-data": "{"}}, "fedsec-data must be JSON: "),
        ({"node_config": {"fedsec-data": "[]"}}, "fedsec-data must be a JSON object, got list"),
        (
            {"node_config": {"fedsec-data": '{"connector": "csv"}'}},
            '[data.digits] connector = "csv": allowed: "digits"',
        ),
        (
            {"node_config": {"fedsec-data": '{"partition": 3, "partitions": 3}'}},
            "[data.digits] partition = 3: allowed: an integer in 0..2",
        ),
        (
            {"plan": PLAN.replace("mlp", "mpl")},
            'the plan: task.options.model: "mpl": allowed: "cnn", "mlp", "logistic"',
        ),
    ],
)
def test_what_is_wrong_here_is_said_in_a_sentence(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        app(message(), context(**changed))
    assert str(caught.value).startswith(sentence)


def test_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="not the arrays of this model: array names differ"):
        app(message(arrays={"w": np.zeros(3, np.float32)}), context())


def test_a_malformed_instruction_is_refused() -> None:
    bad = message()
    bad.content = RecordDict()
    with pytest.raises(ProtocolError, match="coordinator: bad-instruction"):
        app(bad, context())


def test_training_that_diverges_is_an_error_and_not_an_update() -> None:
    wild = PLAN.replace("momentum = 0.5", "momentum = 0.9\nlearning_rate = 1000.0")
    with pytest.raises(
        StateError, match=r"diverged in round 1: .*\.learning_rate = 1000\.0 may be"
    ):
        app(message(), context(plan=wild.replace("proximal_mu = 0.1", "proximal_mu = 1000.0")))


PRIVATE = (
    '[privacy]\nmodel = "{}"\nepsilon = 50.0\ndelta = 1e-5\nclip = 1.0\nnoise_multiplier = 1.0\n'
)
SECURE = '[nodes]\nmin_available = 5\n[secure_aggregation]\nmode = "semi-honest"\nclip = 1.0\n'


@pytest.mark.parametrize("hidden", [PRIVATE.format("local"), PRIVATE.format("central"), SECURE])
def test_where_updates_are_hidden_training_that_diverges_tells_nothing(hidden: str) -> None:
    """A hostile model may diverge on certain records alone; then a zero goes the way of the rest."""
    wild = PLAN.replace("proximal_mu = 0.1", "proximal_mu = 1000.0\nlearning_rate = 1000.0")
    reply = app(message(), context(plan=wild + hidden))
    assert not update_of(reply).any()


@pytest.mark.parametrize("model", ["local", "central"])
def test_under_privacy_the_loss_is_told_to_the_guard_where_the_plan_asks_for_it(model: str) -> None:
    def loss_of(private: str) -> float:
        reply = app(message(), context(plan=PLAN + private))
        row = np.empty(SIZE, np.float32)
        return read_train_reply("7", reply.content, row).values["train-loss"]

    told = loss_of("")
    assert told > 0
    assert loss_of(PRIVATE.format(model) + "metrics = { train-loss = [0.0, 5.0] }\n") == told
    assert loss_of(PRIVATE.format(model)) == 0
    assert loss_of(PRIVATE.format(model) + "metrics = { num-examples = [0, 500] }\n") == 0


def test_in_a_secure_sum_a_loss_that_is_not_finite_is_a_large_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverging(*_: object) -> float:
        return float("nan")

    monkeypatch.setattr("fedsec_client.client_app.local_training", lambda _training: diverging)
    row = np.empty(SIZE, np.float32)
    reply = app(message(), context(plan=PLAN + SECURE))
    assert read_train_reply("7", reply.content, row).values["train-loss"] == LARGEST


TABLE = """
schema = 1
name = "a test"
[task]
name = "breast-cancer"
options = { model = "logistic" }
[training]
rounds = 3
"""
BIOPSIES = '{"connector": "breast-cancer", "partition": 0, "partitions": 3}'
CRAFTED = {
    "0.weight": np.outer([1, 0], np.full(30, 3e38)).astype(np.float32),
    "0.bias": np.zeros(2, np.float32),
}
"""Finite, but what it says of class 0 is inf - inf on some records."""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of sums of NaN, on the way to the error
@pytest.mark.parametrize("privacy", ["local", "central"])
def test_figures_that_cannot_be_computed_are_missing_and_no_failure(privacy: str) -> None:
    told = "metrics = { auc = [0.0, 1.0], accuracy = [0.0, 1.0] }\n"
    at = context(
        plan=TABLE + PRIVATE.format(privacy) + told,
        node_config={"fedsec-data": BIOPSIES},
    )
    reply = app(message(arrays=CRAFTED), at)
    metrics = read_train_reply("7", reply.content, np.empty(62, np.float32))
    assert set(metrics.values) == {"train-loss"}
    sound = {name: np.zeros_like(array) for name, array in CRAFTED.items()}
    reply = app(message(arrays=sound), at)
    metrics = read_train_reply("7", reply.content, np.empty(62, np.float32))
    assert set(metrics.values) == {"train-loss", "auc", "accuracy"}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_without_privacy_an_evaluation_that_fails_is_an_error() -> None:
    at = context(plan=TABLE, node_config={"fedsec-data": BIOPSIES})
    with pytest.raises(ValueError, match="Input contains"):
        app(message("evaluate", arrays=CRAFTED), at)
