"""How good the model is, by whom and how often: part of each round's report."""

from collections.abc import Mapping

import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedsec.flower.messages import evaluate_reply
from tests.flower.fakes import (
    FakeGrid,
    answering,
    plan,
)
from tests.flower.roundsrig import UPDATES, begin, rounds


def evaluating(loss: float, accuracy: float, examples: int) -> ClientAppCallable:
    def app(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "evaluate":
            reply = evaluate_reply(examples, {"loss": loss, "accuracy": accuracy})
            return Message(reply, reply_to=message)
        return answering(UPDATES[0])(message, context)

    return app


def test_without_central_data_the_nodes_evaluate() -> None:
    apps = [
        evaluating(1.0, 0.5, examples=30),
        evaluating(2.0, 0.8, examples=10),
        evaluating(float("nan"), 0.1, examples=10),
        answering(UPDATES[0]),
    ]
    grid = FakeGrid(apps)
    of = plan(
        'rounds = 4\nweighting = "examples"\nmax_examples = 20', "[nodes]\nmin_available = 4\n"
    )
    rounds(grid, of, evaluation=None)(begin(), 1)
    (report,) = grid.of("round")
    assert report["loss"] == pytest.approx((20 * 1.0 + 10 * 2.0) / 30)
    assert report["accuracy"] == pytest.approx((20 * 0.5 + 10 * 0.8) / 30)
    assert report["evaluated"] == [100, 101]
    failed = report["evaluation_failed"]
    assert isinstance(failed, Mapping)
    assert failed.keys() == {"102", "103"}
    assert failed["102"] == "bad-metrics: 'loss' must be a finite number, got nan"


def test_the_report_says_which_figures_are_of_central_tests_where_it_tells_of_sites() -> None:
    grid = FakeGrid([evaluating(1.0, 0.5, examples=30), evaluating(2.0, 0.8, examples=10)])
    of = plan("rounds = 1", more="[round]\ncompare_alone = true\n")
    rounds(grid, of, evaluation=lambda _: {"loss": 0.25})(begin(), 1)
    (report,) = grid.of("round")
    assert (report["loss"], report["central"]) == (0.25, ["loss"])
    assert report["accuracy"] == pytest.approx(0.65)
    assert report["sites"]
    rounds(grid, of, evaluation=None)(begin(), 1)
    assert "central" not in grid.of("round")[1]


def test_a_round_stands_though_nobody_can_evaluate() -> None:
    grid = FakeGrid([answering(UPDATES[0])] * 2)
    state = rounds(grid, plan(), evaluation=None)(begin(), 1)
    assert state.round == 1
    (report,) = grid.of("round")
    assert report["evaluated"] == []
    assert "loss" not in report


@pytest.mark.parametrize(("every", "due"), [(0, []), (1, [1, 2, 3, 4]), (3, [3, 4])])
def test_evaluation_is_as_often_as_the_plan_says_and_after_the_last_round(
    every: int, due: list[int]
) -> None:
    grid = FakeGrid([answering(UPDATES[0])] * 2)
    run = rounds(grid, plan(more=f"[round]\nevaluate_every = {every}\n"))
    state = begin()
    for number in range(1, 5):
        state = run(state, number)
    assert [report["round"] for report in grid.of("round") if "loss" in report] == due


def test_figures_that_json_lacks_are_null() -> None:
    grid = FakeGrid([answering(UPDATES[0])] * 2)
    rounds(grid, plan(), evaluation=lambda _: {"loss": float("nan"), "accuracy": 0.1})(begin(), 1)
    assert grid.of("round")[0]["loss"] is None
