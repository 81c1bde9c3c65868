"""Takes the mean of what the nodes answer, and writes how long each round took.

With a plan in its config the mean is a secure sum, else each node's answer is seen.
"""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedsec.flower.secure_strategy import SummingGrid
from fedsec.plan import FederationPlan

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs all rounds."""
    config = context.run_config
    rounds, nodes = int(str(config["rounds"])), int(str(config["nodes"]))
    if config["plan"]:
        plan = Path(str(config["plan"])).read_text(encoding="utf-8")
        grid = SummingGrid(grid, FederationPlan.parse(plan))
    model, seconds = np.zeros(int(str(config["size"])), np.float32), []
    for number in range(rounds):
        started = time.perf_counter()
        content = RecordDict({"model": ArrayRecord([model])})
        messages = [
            Message(content, node, MessageType.TRAIN, group_id=str(number))
            for node in grid.get_node_ids()
        ]
        assert len(messages) == nodes
        model = _mean(list(grid.send_and_receive(messages)))
        seconds.append(time.perf_counter() - started)
    report = {"seconds": seconds, "first": float(model[0]), "last": float(model[-1])}
    Path(str(config["report"])).write_text(json.dumps(report), encoding="utf-8")


def _mean(replies: list[Message]) -> np.ndarray:
    total = None
    for reply in replies:
        (model,) = reply.content.array_records["model"].to_numpy_ndarrays()
        total = model.copy() if total is None else total + model
    assert total is not None
    return total / np.float32(len(replies))
