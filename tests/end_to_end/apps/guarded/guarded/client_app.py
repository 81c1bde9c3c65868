"""A node's half: steps towards the mean of its data; the last of three nodes steps far away."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    partition = int(context.node_config["partition-id"])
    weights, count = message.content["arrays"].to_numpy_ndarrays()
    data = np.random.default_rng(partition).normal(size=(50, 5))
    moved = weights + 0.5 * (data.mean(axis=0) - weights)
    if partition == 2:
        moved = moved - 1000
    arrays = ArrayRecord([moved.astype(np.float32), np.asarray(count + 1)])
    metrics = MetricRecord({"num-examples": 50, "loss": float(np.mean((data - weights) ** 2))})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    weights = message.content["arrays"].to_numpy_ndarrays()[0]
    metrics = MetricRecord({"num-examples": 50, "norm": float(np.linalg.norm(weights))})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
