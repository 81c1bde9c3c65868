"""Asks one node for a large array, round after round; notes when the Message and the array came."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Writes ``[{"made": , "delivered": , "array": }]``, Unix seconds, to the file `report`."""
    config = context.run_config
    while not (nodes := sorted(grid.get_node_ids())):
        time.sleep(0.1)
    size, rounds = int(config["size"]), []
    for _ in range(int(config["rounds"])):
        content = RecordDict({"config": ConfigRecord({"size": size})})
        message = Message(content, nodes[0], MessageType.TRAIN)
        [reply] = grid.send_and_receive([message], timeout=600)
        delivered = time.time()
        if reply.has_error():
            raise RuntimeError(str(reply.error))
        [array] = reply.content["arrays"].to_numpy_ndarrays()
        done = time.time()
        if array.shape != (size,) or array[-1] != np.float32(size - 1):
            raise RuntimeError("the array is not what was sent")
        made = float(reply.content["metrics"]["made-at"])
        rounds.append({"made": made, "delivered": delivered, "array": done})
        del reply, array
    Path(str(config["report"])).write_text(json.dumps(rounds), encoding="utf-8")
