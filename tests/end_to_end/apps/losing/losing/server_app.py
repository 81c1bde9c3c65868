"""Leads rounds of secure sums, each once all nodes are there; stays until it may end."""

import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedsec.flower.secure_strategy import SummingGrid
from fedsec.plan import FederationPlan
from losing.client_app import SIZE

ROUNDS = 7

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    work = Path(str(context.run_config["work"]))
    plan = FederationPlan.parse(Path(str(context.run_config["plan"])).read_text("utf-8"))
    summing, model = SummingGrid(grid, plan), np.zeros(SIZE, np.float32)
    for number in range(1, ROUNDS + 1):
        while len(nodes := list(grid.get_node_ids())) < plan.nodes.min_available:
            time.sleep(0.02)
        content = RecordDict({"model": ArrayRecord([model])})
        asked = [Message(content, node, MessageType.TRAIN, group_id=str(number)) for node in nodes]
        (told,) = summing.send_and_receive(asked)
        (model,) = told.content.array_records["model"].to_numpy_ndarrays()
        np.save(work / f"{number}.npy", model)
        (work / f"{number}.done").touch()
    while not (work / "end").exists():
        time.sleep(0.02)
