"""The strategy in an ordinary ServerApp: whole models in, hostile ones out, nothing averaged blindly."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

import fedsec.flower
from fedsec.errors import ConfigError
from fedsec.flower import RobustFedAvg
from fedsec.flower.collection import AttemptMissed
from fedsec.flower.robust_fedavg import median_metrics
from fedsec.robust import Nnm, Pipeline, TrimmedMean
from tests.flower.fakes import FakeGrid, raising

Model = dict[str, NDArray[Any]]
START: Model = {
    "w": np.linspace(1000, 2000, 6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1e6], np.float64),
    "steps": np.array(3),
    "on": np.array([True]),
}
HONEST = [np.random.default_rng(i).normal(size=7) for i in range(6)]


def record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def moved(change: NDArray[Any]) -> Model:
    w = (START["w"] + change[:6].reshape(2, 3)).astype(np.float32)
    return {
        "w": w,
        "b": START["b"] + change[6:],
        "steps": np.asarray(START["steps"] + 5),
        "on": ~START["on"],
    }


def answering(
    arrays: Mapping[str, NDArray[Any]], metrics: Mapping[str, Any] | None = None
) -> ClientAppCallable:
    def app(message: Message, context: Context) -> Message:
        given = {"num-examples": 10, "loss": 0.5} if metrics is None else metrics
        content = RecordDict(
            {
                "arrays": record(arrays),
                "metrics": MetricRecord(dict(given)),
            }
        )
        return Message(content, reply_to=message)

    return app


def aggregated(strategy: RobustFedAvg, apps: list[ClientAppCallable]) -> tuple[Model, MetricRecord]:
    grid = FakeGrid(apps)
    messages = strategy.configure_train(1, record(START), ConfigRecord(), grid)
    arrays, metrics = strategy.aggregate_train(1, grid.send_and_receive(messages))
    assert arrays is not None
    assert metrics is not None
    return {name: array.numpy() for name, array in arrays.items()}, metrics


def honest() -> list[ClientAppCallable]:
    return [answering(moved(change)) for change in HONEST]


def robust(rule: str = "trimmed-mean", byzantine: float = 2, **more: Any) -> RobustFedAvg:
    return RobustFedAvg(rule, byzantine, inner=FedAvg(min_train_nodes=6), **more)


def test_the_rule_sees_differences_and_what_has_no_mean_stays_as_it_was_sent() -> None:
    found, metrics = aggregated(robust(before=["nnm"]), honest())
    rows = np.array(HONEST, np.float32)
    wanted = Pipeline(TrimmedMean(2), (Nnm(2),))(rows).vector
    np.testing.assert_allclose(found["w"].ravel() - START["w"].ravel(), wanted[:6], atol=3e-4)
    np.testing.assert_allclose(found["b"] - START["b"], wanted[6:], atol=1e-1)
    assert list(found) == list(START)
    assert {name: array.dtype for name, array in found.items()} == {
        name: array.dtype for name, array in START.items()
    }
    assert (found["steps"], found["on"]) == (START["steps"], START["on"])
    assert dict(metrics) == {
        "num-examples": 10, "loss": 0.5, "robust-suspects": 0, "robust-excluded": 0
    }  # fmt: skip


BAD: dict[str, Callable[[], ClientAppCallable]] = {
    "nan": lambda: answering(moved(np.full(7, np.nan))),
    "infinite": lambda: answering(moved(np.full(7, np.inf))),
    "shape": lambda: answering({**moved(HONEST[0]), "w": np.zeros((3, 2), np.float32)}),
    "dtype": lambda: answering({**moved(HONEST[0]), "b": np.zeros(1, np.float32)}),
    "names": lambda: answering({"w": START["w"]}),
    "nothing": lambda: answering({}),
    "object": lambda: answering({**moved(HONEST[0]), "more": np.zeros(3)}),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_fit_is_left_out_and_counts_against_f(kind: str) -> None:
    strategy = robust(byzantine=1)
    found, metrics = aggregated(strategy, [*honest()[:5], BAD[kind]()])
    wanted = Pipeline(TrimmedMean(0))(np.array(HONEST[:5], np.float32)).vector
    np.testing.assert_allclose(found["w"].ravel() - START["w"].ravel(), wanted[:6], atol=3e-4)
    (told,) = [told for told in strategy.records[1] if told.excluded]
    assert told.nodes == (105,)
    assert metrics["robust-excluded"] == 1
    with pytest.raises(
        AttemptMissed, match=r"2 updates cannot be used, robust\.byzantine allows 1"
    ):
        aggregated(robust(byzantine=1), [*honest()[:5], BAD[kind](), BAD[kind]()])


def test_too_few_answers_are_no_round_rather_than_a_weaker_rule() -> None:
    apps = [*honest()[:4], raising(OSError("lost")), raising(OSError("lost"))]
    with pytest.raises(
        AttemptMissed, match="trimmed mean: 4 updates are too few for byzantine = 2"
    ):
        aggregated(robust(), apps)


def test_a_far_node_moves_nothing_and_is_named() -> None:
    strategy = robust(on_suspect="exclude")
    found, metrics = aggregated(strategy, [*honest(), answering(moved(np.full(7, -1e4)))])
    assert np.abs(found["w"] - START["w"]).max() < 3
    assert metrics["robust-excluded"] == 1
    assert [told.nodes for told in strategy.records[1] if told.excluded] == [(106,)]


def test_no_claim_of_examples_and_no_wild_metric_has_influence() -> None:
    wild = {"num-examples": 2**62, "loss": float("nan"), "own": 1.0}
    plain, _ = aggregated(robust(), [*honest(), answering(moved(HONEST[0]))])
    found, metrics = aggregated(robust(), [*honest(), answering(moved(HONEST[0]), wild)])
    np.testing.assert_array_equal(found["w"], plain["w"])
    assert (metrics["loss"], metrics["num-examples"]) == (0.5, 10)
    assert "own" not in metrics


def test_metrics_are_medians_of_what_most_report() -> None:
    contents = [RecordDict({"m": MetricRecord({"a": a, "b": [1.0]})}) for a in (1.0, 2.0, 100.0)]
    assert dict(median_metrics(contents)) == {"a": 2.0}
    assert robust().aggregate_evaluate(1, []) is None


def test_wrong_words_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RobustFedAvg("kum", -1, before=["mnn"])
    assert "RobustFedAvg has 3 errors" in str(caught.value)
    with pytest.raises(
        ConfigError, match=r'options\.radius: missing: "centered-clipping" needs it'
    ):
        RobustFedAvg("centered-clipping", 1)
    with pytest.raises(ConfigError, match="radius must be finite and > 0"):
        RobustFedAvg("centered-clipping", 1, options={"radius": -1.0})
    RobustFedAvg("centered-clipping", 0.1, options={"radius": 1.0}).summary()


def test_calls_out_of_order_and_rounds_without_training() -> None:
    strategy = RobustFedAvg("median", 0, inner=FedAvg(fraction_train=0.0))
    grid = FakeGrid(honest())
    assert list(strategy.configure_train(1, record(START), ConfigRecord(), grid)) == []
    assert strategy.aggregate_train(1, []) == (None, None)
    messages = strategy.configure_evaluate(1, record(START), ConfigRecord(), grid)
    assert len(list(messages)) == 6


def test_the_package_has_it_by_name_and_nothing_else() -> None:
    assert fedsec.flower.RobustFedAvg is RobustFedAvg
    with pytest.raises(AttributeError, match="has no attribute 'Robust'"):
        _ = fedsec.flower.Robust  # type: ignore[attr-defined]  # that is the point


@pytest.mark.parametrize(("rule", "liars"), [("fltrust", 5), ("monna", 3)])
def test_an_update_of_its_own_is_trusted_against_liars(rule: str, liars: int) -> None:
    asked: list[ArrayRecord] = []

    def root(sent: ArrayRecord) -> ArrayRecord:
        asked.append(sent)
        return record(moved(np.ones(7)))

    apps = [answering(moved(np.full(7, 1 + 0.1 * i))) for i in range(7 - liars)]
    apps += [answering(moved(np.full(7, -5.0)))] * liars
    found, _ = aggregated(robust(rule, liars, root=root), apps)
    (sent,) = asked
    assert list(sent) == list(START)
    np.testing.assert_allclose(found["w"] - START["w"], 1, atol=0.2)


def test_whom_a_rule_trusts_is_asked_for_by_name() -> None:
    with pytest.raises(ConfigError, match='RobustFedAvg: "fltrust" trusts an update on clean data'):
        RobustFedAvg("fltrust", 1)
    with pytest.raises(ConfigError, match='root: "server-app" is read by "fltrust" and "monna" on'):
        RobustFedAvg("median", 1, root=lambda sent: sent)


@pytest.mark.parametrize(
    ("trained", "sentence"),
    [
        ({"w": START["w"]}, "array names differ: missing"),
        (moved(np.full(7, np.nan)), "root returned a model that is not finite"),
    ],
)
def test_a_root_that_returns_no_such_model_ends_the_round(trained: Model, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        aggregated(robust("fltrust", 1, root=lambda _: record(trained)), honest())


def test_a_round_with_fewer_answers_sees_nothing_of_the_round_before() -> None:
    strategy = RobustFedAvg("mean", 0)
    aggregated(strategy, [answering(moved(np.full(7, 64.0)))] * 4)
    model, _ = aggregated(strategy, [answering(moved(np.full(7, 2.0)))] * 2)
    np.testing.assert_allclose(model["b"] - START["b"], 2.0)
