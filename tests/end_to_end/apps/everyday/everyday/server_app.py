"""The coordinator's half: trains with FedAvg, then asks the nodes all sorts of things."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()
running = {"lifespans": 0}


@app.lifespan()
def lifespan(context: Context) -> Iterator[None]:
    running["lifespans"] += 1
    yield
    running["lifespans"] -= 1


def ask(grid: Grid, kind: str, content: RecordDict, ttl: float | None = None) -> list[Message]:
    messages = [Message(content, node, kind, ttl=ttl) for node in sorted(grid.get_node_ids())]
    return list(grid.send_and_receive(messages, timeout=60))


def by_partition(replies: list[Message]) -> list[RecordDict]:
    contents = [reply.content for reply in replies if reply.has_content()]
    return sorted(contents, key=lambda content: content["metrics"]["partition"])


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Writes what it found out to the file `report` of the run's configuration."""
    config = context.run_config
    while len(list(grid.get_node_ids())) < int(config["nodes"]):
        time.sleep(0.1)
    found: dict[str, object] = {"lifespans": running["lifespans"]}

    strategy = FedAvg(min_available_nodes=int(config["nodes"]))
    result = strategy.start(
        grid,
        ArrayRecord([np.zeros(4)]),
        num_rounds=int(config["rounds"]),
        train_config=ConfigRecord({"learning-rate": config["learning-rate"]}),
    )
    weights = result.arrays.to_numpy_ndarrays()[0]
    found["weights"] = weights.tolist()
    found["losses"] = {
        str(number): metrics["loss"]
        for number, metrics in result.evaluate_metrics_clientapp.items()
    }

    if config["wait-for"]:  # lets a test do something to the nodes in between
        about = by_partition(ask(grid, "query.about", RecordDict({"config": ConfigRecord()})))
        processes = [content["metrics"]["process"] for content in about]
        Path(str(config["wait-for"]) + ".ready").write_text(json.dumps(processes), "utf-8")
        while not Path(str(config["wait-for"])).exists():
            time.sleep(0.05)
    else:
        ask(grid, "query.about", RecordDict({"config": ConfigRecord()}))

    content = RecordDict(
        {
            "arrays": ArrayRecord([weights]),
            "config": ConfigRecord({"learning-rate": 0.05, "server-round": 99}),
        }
    )
    again = by_partition(ask(grid, MessageType.TRAIN, content))
    found["after"] = [
        {**part["metrics"], "arrays": part["arrays"].to_numpy_ndarrays()[0].tolist()}
        for part in again
    ]
    content = RecordDict({"arrays": ArrayRecord([weights])})
    found["gradients"] = [
        part["arrays"].to_numpy_ndarrays()[0].tolist()
        for part in by_partition(ask(grid, "train.gradient", content))
    ]
    echo = ConfigRecord(
        {"text": "Zürich", "yes": True, "octets": b"\x00\xff", "list": [1, 2], "one": 1.5}
    )
    about = by_partition(ask(grid, "query.about", RecordDict({"config": echo})))
    found["processes"] = [part["metrics"]["process"] for part in about]
    found["about"] = [
        {key: value for key, value in part["metrics"].items() if key != "process"} for part in about
    ]
    found["echo"] = [{key: repr(value) for key, value in part["echo"].items()} for part in about]
    slow = ask(grid, "query.slow", RecordDict(), ttl=3.0)
    failing = ask(grid, "query.fail", RecordDict())
    unknown = ask(grid, "query.no_such_action", RecordDict())
    found |= {name: outcome(replies) for name, replies in _named(slow, failing, unknown)}
    found["reasons"] = [
        reply.error.reason for reply in (*slow, *failing, *unknown) if reply.has_error()
    ]
    Path(str(config["report"])).write_text(json.dumps(found), encoding="utf-8")


def _named(*replies: list[Message]) -> Iterator[tuple[str, list[Message]]]:
    yield from zip(("slow", "failing", "unknown"), replies, strict=True)


def outcome(replies: list[Message]) -> dict[str, object]:
    """Which partitions answered, and how many replies were errors."""
    return {
        "answered": [content["metrics"]["partition"] for content in by_partition(replies)],
        "errors": sum(reply.has_error() for reply in replies),
    }
