"""A node's half by `client_fn`: the mean of its data, pulled towards by a fixed step."""

import numpy as np
from flwr.app import Context
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import NDArrays, Scalar


class Averager(NumPyClient):
    def __init__(self, partition: int, rate: float) -> None:
        self.data = np.random.default_rng(partition).normal(size=(10 + partition, 5))
        self.rate = rate

    def fit(
        self, parameters: NDArrays, config: dict[str, Scalar]
    ) -> tuple[NDArrays, int, dict[str, Scalar]]:
        moved = parameters[0] + self.rate * (self.data.mean(axis=0) - parameters[0])
        return [moved], len(self.data), {"seen": int(config["round"])}

    def evaluate(
        self, parameters: NDArrays, config: dict[str, Scalar]
    ) -> tuple[float, int, dict[str, Scalar]]:
        loss = float(np.mean((self.data - parameters[0]) ** 2))
        return loss, len(self.data), {"distance": float(np.abs(parameters[0]).sum())}


def client_fn(context: Context) -> Client:
    partition = int(context.node_config["partition-id"])
    return Averager(partition, float(context.run_config["learning-rate"])).to_client()


app = ClientApp(client_fn=client_fn)
