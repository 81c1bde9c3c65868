"""Central privacy as a strategy of Flower's: noise, ledger, and what is neither asked nor told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedsec.errors import BudgetExhausted, ConfigError, StateError
from fedsec.flower import PrivateFedAvg
from fedsec.ledgerfile import LedgerFile
from tests.flower.fakes import FakeGrid

N, SIZE = 6, 20_000


def strategy(ledger: Path, **more: Any) -> PrivateFedAvg:
    given: dict[str, Any] = {
        "epsilon": 30.0, "delta": 1e-5, "noise_multiplier": 2.0, "clip": 0.5, "nodes": N,
        "rounds": 3, "ledger": ledger, "inner": FedAvg(min_train_nodes=N),
    }  # fmt: skip
    return PrivateFedAvg(**(given | more))


def unmoved(message: Message, _context: object) -> Message:
    """A node that changes nothing and tells a figure."""
    (arrays,) = message.content.array_records.values()
    content = {"arrays": arrays, "metrics": MetricRecord({"num-examples": 10, "loss": 0.5})}
    return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]


def carried_out(of: PrivateFedAvg, number: int = 1) -> tuple[np.ndarray, MetricRecord]:
    grid = FakeGrid([unmoved] * N)  # type: ignore[list-item]
    start = ArrayRecord([np.zeros(SIZE, np.float32)])
    messages = of.configure_train(number, start, ConfigRecord(), grid)
    arrays, metrics = of.aggregate_train(number, grid.send_and_receive(messages))
    assert arrays is not None
    assert metrics is not None
    assert list(of.configure_evaluate(number, start, ConfigRecord(), grid)) == []
    return arrays.to_numpy_ndarrays()[0].astype(np.float64), metrics


@pytest.mark.parametrize(
    ("more", "sensitivity"),
    [({}, 0.5 / N), ({"rule": "trimmed-mean", "byzantine": 1}, 0.5 / (N - 2))],
)
def test_the_noise_is_that_of_the_rule(
    tmp_path: Path, more: dict[str, Any], sensitivity: float
) -> None:
    noise, metrics = carried_out(strategy(tmp_path / "ledger", **more))
    statistic = float((noise**2).sum()) / (2.0 * sensitivity) ** 2
    assert scipy.stats.chi2.sf(statistic / 1.003, SIZE) > 1e-5
    assert scipy.stats.chi2.cdf(statistic, SIZE) > 1e-5
    assert dict(metrics) == {}


def test_every_round_is_charged_once_and_another_training_anew(tmp_path: Path) -> None:
    of = strategy(tmp_path / "ledger")
    first, _ = carried_out(of)
    again, _ = carried_out(of)
    assert np.array_equal(first, again)  # the same release
    carried_out(of, 2)
    assert len(LedgerFile(tmp_path / "ledger").entries()) == 2
    other, _ = carried_out(strategy(tmp_path / "ledger"))
    assert not np.array_equal(first, other)
    assert len(LedgerFile(tmp_path / "ledger").entries()) == 3


def test_more_rounds_than_were_reckoned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="round 4: privacy was reckoned for 3"):
        carried_out(strategy(tmp_path / "ledger"), 4)


def test_more_nodes_than_the_public_number_are_not_asked(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="6 nodes are asked, nodes = 5"):
        carried_out(strategy(tmp_path / "ledger", nodes=5))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"epsilon": 1.0}, "more than its privacy.epsilon = 1"),
        ({"noise_multiplier": 0.0}, "noise_multiplier = 0.0: allowed"),
        ({"rule": "krum", "byzantine": 1}, "krum"),
    ],
)
def test_what_cannot_hold_is_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, BudgetExhausted), match=message):
        strategy(tmp_path / "ledger", **more)
