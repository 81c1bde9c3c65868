"""Sends the mean of the last replies to every node, round after round, by the clock."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Writes ``{"seconds": [one per round], "sum": ...}`` to the file `report`."""
    config = context.run_config
    while len(nodes := sorted(grid.get_node_ids())) < int(config["nodes"]):
        time.sleep(0.1)
    mean = np.zeros(int(config["size"]), dtype=np.float32)
    seconds = []
    for server_round in range(1, int(config["rounds"]) + 1):
        start = time.perf_counter()
        content = RecordDict(
            {
                "arrays": ArrayRecord([mean]),
                "config": ConfigRecord({"server-round": server_round}),
            }
        )
        messages = [Message(content, node, MessageType.TRAIN) for node in nodes]
        replies = list(grid.send_and_receive(messages, timeout=600))
        if failed := [reply.error for reply in replies if reply.has_error()]:
            raise RuntimeError(f"round {server_round}: {failed}")
        arrays = [reply.content["arrays"].to_numpy_ndarrays()[0] for reply in replies]
        mean = sum(arrays[1:], start=arrays[0]) / len(arrays)
        seconds.append(time.perf_counter() - start)
    report = {"seconds": seconds, "first": float(mean[0]), "last": float(mean[-1])}
    Path(str(config["report"])).write_text(json.dumps(report), encoding="utf-8")
