"""What a node of a plain Flower app keeps to itself, and for how long: the mod in the app's list."""

from collections.abc import Iterable

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedsec.errors import ConfigError, StateError
from fedsec.flower import SecureStrategy, secure_mod
from fedsec.flower.app_mod import SIGNER, TURN, WORDS
from fedsec.flower.local import APP_RAISED
from fedsec.flower.secure_node import FAILED
from tests.flower.test_secure_strategy import BEGIN, Fleet, make_plan, trained


def test_an_exception_s_text_stays_on_the_node(caplog: pytest.LogCaptureFixture) -> None:
    """Flower would send it on; it may show records. So may what breaks in coding the answer."""

    def answer(part: int, model: np.ndarray) -> RecordDict:
        if part == 3:
            raise SystemExit("record 4711 has no label")
        if part == 4:
            raise ConfigError("record 4711 has no label")
        return trained(part, model)

    plan = make_plan()
    fleet = Fleet(plan, answer)
    with pytest.raises(StateError, match="whose words stay on the node"):
        SecureStrategy(FedAvg(fraction_evaluate=0.0), plan).start(
            fleet, ArrayRecord([BEGIN]), num_rounds=1
        )
    failed = [reply.error for reply in fleet.came if reply.has_error()]
    assert {(error.code, error.reason) for error in failed} == {(APP_RAISED, FAILED)}
    assert "record 4711 has no label" in caplog.text
    assert all(SIGNER not in fleet.contexts[node].state for node in (103, 104))


def test_what_breaks_in_coding_an_answer_stays_on_the_node(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Odd(MetricRecord):
        def items(self) -> None:  # type: ignore[override]
            raise TypeError("record 4711")

    def answer(part: int, model: np.ndarray) -> RecordDict:
        found = trained(part, model)
        if part == 4:
            found["metrics"] = Odd({"num-examples": 1})
        return found

    plan = make_plan()
    fleet = Fleet(plan, answer)
    result = SecureStrategy(FedAvg(fraction_evaluate=0.0), plan).start(
        fleet, ArrayRecord([BEGIN]), num_rounds=1
    )
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], BEGIN + 1.5, atol=1e-4)
    (failed,) = [reply.error for reply in fleet.came if reply.has_error()]
    assert (failed.code, failed.reason) == (APP_RAISED, FAILED)
    assert "record 4711" in caplog.text


def sum_under(told: dict[str, int | str], own: dict[int, dict[str, int | str]]) -> Fleet:
    """Has one round go by where the strategy announces `told` and nodes are configured by `own`."""
    plan = make_plan()
    fleet = Fleet(plan)
    for node, context in fleet.contexts.items():
        context.run_config = dict(own.get(node, told))
    SecureStrategy(FedAvg(fraction_evaluate=0.0), plan, run_config=told).start(
        fleet, ArrayRecord([BEGIN]), num_rounds=1
    )
    return fleet


def test_a_node_that_is_configured_otherwise_is_in_no_sum() -> None:
    """Else who says run_config could have all but one train with a rate of zero."""
    fleet = sum_under({"rate": 1, "task": "a"}, {102: {"rate": True, "task": "a"}})
    (refused,) = [reply for reply in fleet.came if reply.has_error()]
    assert refused.metadata.src_node_id == 102
    assert "run_config differs from the strategy's in rate" in refused.error.reason
    assert "1" not in refused.error.reason
    assert not any(reply.has_error() for reply in sum_under({"rate": 1}, {}).came)


@pytest.mark.parametrize(("told", "own"), [({}, {"rate": 1}), ({"rate": 1}, {})])
def test_a_run_config_that_is_not_announced_or_not_there_ends_the_run(
    told: dict[str, int | str], own: dict[str, int | str]
) -> None:
    with pytest.raises(StateError, match=r"run_config=context\.run_config"):
        sum_under(told, dict.fromkeys(range(100, 105), own))


def test_the_app_does_not_see_what_was_announced() -> None:
    seen: list[set[str]] = []
    plan = make_plan()
    app = ClientApp(mods=[secure_mod(plan)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen.append(set(message.content))
        (model,) = message.content.array_records["arrays"].to_numpy_ndarrays()
        return Message(trained(0, model), reply_to=message)

    fleet = Fleet(plan, app=app)
    for context in fleet.contexts.values():
        context.run_config = {"rate": 1}
    SecureStrategy(FedAvg(fraction_evaluate=0.0), plan, run_config={"rate": 1}).start(
        fleet, ArrayRecord([BEGIN]), num_rounds=1
    )
    assert {"fedsec.run-config", "fedsec.secagg"}.isdisjoint(set.union(*seen))


def test_what_lies_in_the_state_at_each_stage() -> None:
    """Each secret goes with its last use; what a lost node has left goes with its next round."""

    class Lossy(Fleet):
        kept: dict[str, list[str]]
        lose: bool = True

        def push_messages(self, messages: Iterable[Message]) -> list[str]:
            sent = list(messages)
            stage = str(sent[0].content.config_records["fedsec.secagg"]["stage"])
            lost = self.lose and stage == "reveal"
            ids = list(
                super().push_messages(
                    [m for m in sent if not (lost and m.metadata.dst_node_id == 104)]
                )
            )
            self.kept[stage] = sorted(self.contexts[104].state)
            return ids

    plan = make_plan()
    fleet = Lossy(plan)
    fleet.kept = {}
    strategy = SecureStrategy(FedAvg(fraction_evaluate=0.0), plan)
    strategy.start(fleet, ArrayRecord([BEGIN]), num_rounds=1)
    counter = "fedsec.secagg"
    assert fleet.kept == {
        "offer": [counter, SIGNER, TURN, WORDS],
        "shares": [counter, TURN, WORDS],
        "vector": [counter, TURN],
        "reveal": [counter, TURN],
    }
    fleet.lose = False
    strategy.start(fleet, ArrayRecord([BEGIN]), num_rounds=1)  # in its second attempt
    assert sorted(fleet.contexts[104].state) == [counter]
