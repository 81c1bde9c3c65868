"""The coordinator's half: fedsec's strategy in the place of Flower's."""

import json
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedsec.flower import RobustFedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    nodes = int(context.run_config["nodes"])
    inner = FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    strategy = RobustFedAvg(rule="median", byzantine=1, inner=inner)
    start = ArrayRecord([np.zeros(5, np.float32), np.array(7)])
    rounds = int(context.run_config["rounds"])
    result = strategy.start(grid=grid, initial_arrays=start, num_rounds=rounds)
    weights, count = result.arrays.to_numpy_ndarrays()
    report = {
        "weights": weights.tolist(),
        "count": int(count),
        "train": {str(n): dict(record) for n, record in result.train_metrics_clientapp.items()},
        "evaluate": {
            str(n): dict(record) for n, record in result.evaluate_metrics_clientapp.items()
        },
        "ranks": sorted(record.rank for record in strategy.records[rounds]),
    }
    Path(str(context.run_config["report"])).write_text(json.dumps(report), encoding="utf-8")
