"""Secure sums in plain Flower apps: strategy around the app's own, mod in the app's list."""

from collections.abc import Callable, Iterable
from copy import deepcopy

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg

from fedsec.errors import ConfigError, StateError
from fedsec.flower import SecureStrategy, secure_mod
from fedsec.flower.app_mod import TURN, WORDS
from fedsec.flower.local import LocalGrid, node_contexts
from fedsec.flower.messages import ATTEMPT, INSTRUCTION
from fedsec.flower.secure_strategy import SummingGrid
from fedsec.plan import FederationPlan

SECTION = 'mode = "semi-honest"\nclip = 100.0\n'


def make_plan(section: str = SECTION, app: str = '[app]\nname = "line"') -> FederationPlan:
    return FederationPlan.parse(
        f'schema = 1\nname = "a test"\n{app}\n[nodes]\nmin_available = 5\n'
        f"[secure_aggregation]\n{section}"
    )


def make_app(plan: FederationPlan, answer: Callable[[int, np.ndarray], RecordDict]) -> ClientApp:
    app = ClientApp(mods=[secure_mod(plan)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        part = int(str(context.node_config["partition-id"]))
        (model,) = message.content.array_records["arrays"].to_numpy_ndarrays()
        return Message(answer(part, model), reply_to=message)

    return app


def trained(part: int, model: np.ndarray) -> RecordDict:
    arrays = ArrayRecord([(model + part).astype(np.float32)])
    return RecordDict(
        {"arrays": arrays, "metrics": MetricRecord({"num-examples": part + 1, "loss": part / 10})}
    )


class Fleet(LocalGrid):
    """Nodes in this process, whose contexts can be looked at; keeps what they answer."""

    def __init__(
        self,
        plan: FederationPlan,
        answer: object = trained,
        nodes: int = 5,
        app: ClientApp | None = None,
    ) -> None:
        self.contexts = node_contexts(nodes, {})
        app = app or make_app(plan, answer)  # type: ignore[arg-type]
        super().__init__(dict.fromkeys(self.contexts, app), self.contexts)
        self.came: list[Message] = []

    def pull_messages(self, message_ids: object) -> list[Message]:
        replies = list(super().pull_messages(message_ids))  # type: ignore[arg-type]
        self.came += deepcopy(replies)  # as they came: a sum empties what it has read
        return replies


BEGIN = np.array([1.0, -1.0], np.float32)


def test_fedavg_moves_to_the_mean_of_the_models() -> None:
    plan = make_plan()
    fleet = Fleet(plan)
    strategy = SecureStrategy(FedAvg(fraction_evaluate=0.0), plan)
    result = strategy.start(fleet, ArrayRecord([BEGIN]), num_rounds=3)
    np.testing.assert_allclose(
        result.arrays.to_numpy_ndarrays()[0], BEGIN + 3 * 2, atol=1e-4
    )  # parts 0..4: the mean is 2
    assert (
        result.train_metrics_clientapp[1]["num-examples"] == 5
        if "num-examples" in result.train_metrics_clientapp[1]
        else True
    )
    for context in fleet.contexts.values():  # a sum that ended leaves no secret
        assert TURN not in context.state
        assert WORDS not in context.state


def test_weights_and_figures_as_the_plan_says() -> None:
    plan = make_plan(SECTION + "max_weight = 5\nmetrics = { loss = [0.0, 1.0] }\n")
    strategy = SecureStrategy(FedAvg(fraction_evaluate=0.0), plan)
    result = strategy.start(Fleet(plan), ArrayRecord([BEGIN]), num_rounds=1)
    weights = np.arange(1, 6)
    mean = weights @ np.arange(5) / weights.sum()
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], BEGIN + mean, atol=1e-3)
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx(mean / 10, abs=1e-4)


def test_a_strategy_with_an_optimiser_of_its_own_works_unchanged() -> None:
    plan = make_plan()
    strategy = SecureStrategy(FedAdam(fraction_evaluate=0.0, eta=0.1), plan)
    result = strategy.start(Fleet(plan), ArrayRecord([BEGIN]), num_rounds=2)
    plain = FedAdam(fraction_evaluate=0.0, eta=0.1)
    contexts = node_contexts(5, {})
    bare = ClientApp()

    @bare.train()
    def train(message: Message, context: Context) -> Message:
        part = int(str(context.node_config["partition-id"]))
        (model,) = message.content.array_records["arrays"].to_numpy_ndarrays()
        arrays = ArrayRecord([(model + part).astype(np.float32)])
        told = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
        return Message(told, reply_to=message)

    expected = plain.start(
        LocalGrid(dict.fromkeys(contexts, bare), contexts), ArrayRecord([BEGIN]), num_rounds=2
    )
    np.testing.assert_allclose(
        result.arrays.to_numpy_ndarrays()[0], expected.arrays.to_numpy_ndarrays()[0], atol=1e-4
    )


def test_no_answer_carries_a_model_or_a_figure() -> None:
    plan = make_plan()
    fleet = Fleet(plan)
    SecureStrategy(FedAvg(fraction_evaluate=0.0), plan).start(
        fleet, ArrayRecord([BEGIN]), num_rounds=1
    )
    assert len(fleet.came) == 4 * 5
    assert all(set(m.content) <= {"fedsec.secagg", "masked"} for m in fleet.came)


def test_an_app_s_own_error_stays_on_the_node() -> None:
    plan = make_plan()
    app = ClientApp(mods=[secure_mod(plan)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(Error(7, "my loss was 0.4711 on 42 records"), reply_to=message)

    fleet = Fleet(plan, app=app)
    with pytest.raises(StateError, match="whose words stay on the node"):
        SecureStrategy(FedAvg(fraction_evaluate=0.0), plan).start(
            fleet, ArrayRecord([BEGIN]), num_rounds=1
        )
    assert {reply.error.code for reply in fleet.came if reply.has_error()} == {7}
    assert "4711" not in str([reply.error for reply in fleet.came])


def test_every_app_sees_the_round_whatever_the_envelope_says() -> None:
    """Else a coordinator could have all but one do nothing, and would read that one off the sum."""

    class Two(Fleet):
        def push_messages(self, messages: Iterable[Message]) -> list[str]:
            sent = list(messages)
            for message in sent:
                message.metadata.group_id = f"{message.metadata.dst_node_id}"
            return list(super().push_messages(sent))

    seen: set[str] = set()
    plan = make_plan()
    app = ClientApp(mods=[secure_mod(plan)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen.add(message.metadata.group_id)
        (model,) = message.content.array_records["arrays"].to_numpy_ndarrays()
        return Message(trained(0, model), reply_to=message)

    fleet = Two(plan, app=app)
    SecureStrategy(FedAvg(fraction_evaluate=0.0), plan).start(
        fleet, ArrayRecord([BEGIN]), num_rounds=2
    )
    assert seen == {"1", "2"}


def test_no_attempt_beyond_those_of_the_plan_is_answered() -> None:
    class Again(Fleet):
        def push_messages(self, messages: Iterable[Message]) -> list[str]:
            sent = list(messages)
            for message in sent:
                message.content.config_records[INSTRUCTION][ATTEMPT] = 4
            return list(super().push_messages(sent))

    plan = make_plan()
    fleet = Again(plan)
    with pytest.raises(StateError, match="did not come about in 3 attempts"):
        SecureStrategy(FedAvg(fraction_evaluate=0.0), plan).start(
            fleet, ArrayRecord([BEGIN]), num_rounds=1
        )
    assert all("attempt 4 at round 1; the plan has 3" in m.error.reason for m in fleet.came)


def test_an_evaluation_is_not_asked_for() -> None:
    plan = make_plan()
    fleet = Fleet(plan)
    result = SecureStrategy(FedAvg(), plan).start(fleet, ArrayRecord([BEGIN]), num_rounds=1)
    assert not result.evaluate_metrics_clientapp
    assert len(fleet.came) == 4 * 5


def test_a_node_that_fails_is_done_without() -> None:
    def answer(part: int, model: np.ndarray) -> RecordDict:
        if part == 4:
            raise ValueError("no data")
        return trained(part, model)

    plan = make_plan()
    fleet = Fleet(plan, answer)
    result = SecureStrategy(FedAvg(fraction_evaluate=0.0), plan).start(
        fleet, ArrayRecord([BEGIN]), num_rounds=1
    )
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], BEGIN + 1.5, atol=1e-4)


def test_too_few_nodes_end_the_run_with_the_reason() -> None:
    def answer(part: int, model: np.ndarray) -> RecordDict:
        if part > 1:
            raise ValueError("no data")
        return trained(part, model)

    plan = make_plan()
    with pytest.raises(StateError, match=r"did not come about in 3 attempts.*stay on the node"):
        SecureStrategy(FedAvg(fraction_evaluate=0.0), plan).start(
            Fleet(plan, answer), ArrayRecord([BEGIN]), num_rounds=1
        )


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            lambda _part, _model: RecordDict({"metrics": MetricRecord({"num-examples": 1})}),
            "there are 0",
        ),
        (
            lambda _part, model: RecordDict({"arrays": ArrayRecord([model])}),
            "must answer with a metric 'num-examples'",
        ),
        *(
            (
                lambda _part, model, many=many: RecordDict(
                    {"a": ArrayRecord([model]), "m": MetricRecord({"num-examples": many})}
                ),
                r"'num-examples' in 1..2\^53",
            )
            for many in (0, -1, float("nan"), float("inf"), 2.0**54)
        ),
    ],
)
def test_an_app_s_unfit_answer_is_said_in_its_reason(answer: object, why: str) -> None:
    plan = make_plan()
    with pytest.raises(StateError, match=why):
        SecureStrategy(FedAvg(fraction_evaluate=0.0), plan).start(
            Fleet(plan, answer), ArrayRecord([BEGIN]), num_rounds=1
        )


def test_an_update_that_is_not_finite_counts_as_zero_and_a_figure_as_the_middle() -> None:
    """A hostile model may diverge on certain records alone: an error would tell of one node."""

    def answer(part: int, model: np.ndarray) -> RecordDict:
        if part < 4:
            return trained(part, model)
        figures = MetricRecord({"num-examples": 5, "loss": np.nan})
        return RecordDict({"a": ArrayRecord([model * np.float32(np.inf)]), "m": figures})

    plan = make_plan(SECTION + "metrics = { loss = [0.0, 1.0] }\n")
    strategy = SecureStrategy(FedAvg(fraction_evaluate=0.0), plan)
    result = strategy.start(Fleet(plan, answer), ArrayRecord([BEGIN]), num_rounds=1)
    mean = (0 + 1 + 2 + 3 + 0) / 5
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], BEGIN + mean, atol=1e-3)
    told = (0.0 + 0.1 + 0.2 + 0.3 + 0.5) / 5
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx(told, abs=1e-4)


def test_plans_without_secure_aggregation_are_refused() -> None:
    plan = FederationPlan.parse('schema = 1\nname = "x"\n[app]\nname = "line"')
    with pytest.raises(ConfigError, match=r"no \[secure_aggregation\]"):
        secure_mod(plan)
    with pytest.raises(ConfigError, match=r"no \[secure_aggregation\]"):
        SecureStrategy(FedAvg(), plan)


def test_single_messages_are_not_pushed() -> None:
    plan = make_plan()
    grid = SummingGrid(Fleet(plan), plan)
    message = grid.create_message(RecordDict(), "train", 100, "1")
    with pytest.raises(StateError, match="1 messages were pushed"):
        grid.push_messages([message])
    assert not list(grid.pull_messages(["x"]))
    assert grid.run.run_id == 1
