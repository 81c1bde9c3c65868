"""Flower apps that know nothing of fedsec: a message per node, copied, whatever the nodes do."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedsec.errors import ConfigError
from fedsec_sim.apps import AppRun, simulate_app, simulate_app_in

client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Adds its number to the model, and to what it was sent: that must stay its own."""
    part = int(context.node_config["partition-id"])
    record = message.content.array_records["arrays"]
    model = record["w"].numpy() + part
    record["w"] = Array(np.full(3, np.nan))
    rounds = context.state.config_records.get("seen", ConfigRecord({"rounds": 0}))
    context.state["seen"] = ConfigRecord({"rounds": int(rounds["rounds"]) + 1})
    if part == context.run_config["broken"]:
        raise ValueError("no data")
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(model)}),
            "metrics": MetricRecord({"num-examples": 1 + part}),
        }
    )
    return Message(content, reply_to=message)


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=3, min_train_nodes=3)
    first = ArrayRecord({"w": Array(np.zeros(3))})
    result = strategy.start(grid=grid, initial_arrays=first, num_rounds=2)
    context.state["result"] = result.arrays


def model_of(run: AppRun) -> list[float]:
    found: list[float] = run.server.state.array_records["result"]["w"].numpy().tolist()
    return found


def test_an_app_of_flowers_runs_unchanged() -> None:
    run = simulate_app(server, client, nodes=4, config={"broken": -1})
    step = (0 * 1 + 1 * 2 + 2 * 3 + 3 * 4) / 10  # weighted by examples
    assert model_of(run) == pytest.approx([2 * step] * 3)
    seen = [context.state.config_records["seen"]["rounds"] for context in run.nodes.values()]
    assert seen == [2, 2, 2, 2]


def test_a_node_that_raises_stops_nobody() -> None:
    run = simulate_app(server, client, nodes=4, config={"broken": 3})
    assert model_of(run) == pytest.approx([2 * (2 + 6) / 6] * 3)


@pytest.mark.parametrize("nodes", [0, 10**9])
def test_nodes_are_counted_first(nodes: int) -> None:
    with pytest.raises(ConfigError, match=f"nodes must be in 1..100000, got {nodes}"):
        simulate_app(server, client, nodes=nodes)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "lab_app.py").write_text(Path(__file__).read_text())
    (tmp_path / "pyproject.toml").write_text(
        '[tool.flwr.app]\npublisher = "x"\n'
        '[tool.flwr.app.components]\nserverapp = "lab_app:server"\nclientapp = "lab_app:client"\n'
        "[tool.flwr.app.config]\nbroken = -1\n"
    )
    yield tmp_path
    sys.modules.pop("lab_app", None)


def test_an_app_in_a_directory(folder: Path) -> None:
    run = simulate_app_in(folder, nodes=4, config={"broken": 3})
    assert model_of(run) == pytest.approx([2 * (2 + 6) / 6] * 3)
    with pytest.raises(ConfigError, match="borken"):
        simulate_app_in(folder, nodes=4, config={"borken": 3})
