"""The coordinator's half by `server_fn`; the report is written from central evaluation."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp


def server_fn(context: Context) -> ServerAppComponents:
    config = context.run_config
    rounds = int(config["rounds"])
    found: dict[str, list] = {"weights": [], "distances": []}

    def evaluate(server_round: int, arrays: list[np.ndarray], _: dict) -> None:
        found["weights"].append(arrays[0].tolist())

    def collect(metrics: list[tuple[int, dict]]) -> dict:
        total = sum(count for count, _ in metrics)
        mean = sum(count * one["distance"] for count, one in metrics) / total
        found["distances"].append(mean)
        if len(found["distances"]) == rounds:
            Path(str(config["report"])).write_text(json.dumps(found), encoding="utf-8")
        return {"distance": mean}

    nodes = int(config["nodes"])
    strategy = FedAvg(
        min_fit_clients=nodes,
        min_evaluate_clients=nodes,
        min_available_clients=nodes,
        initial_parameters=ndarrays_to_parameters([np.zeros(5)]),
        on_fit_config_fn=lambda server_round: {"round": server_round},
        evaluate_fn=evaluate,
        evaluate_metrics_aggregation_fn=collect,
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))


app = ServerApp(server_fn=server_fn)
