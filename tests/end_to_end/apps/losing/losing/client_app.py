"""A node with an update and a loss of its own; the first claims a million times its examples."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

SIZE = 4000
CLAIMS = (10**12, 3, 2, 1, 2)  # examples of each node; the plan lets 4 count

app = ClientApp()


def update_of(part: int) -> np.ndarray:
    return np.random.default_rng(part).uniform(-1, 1, SIZE).astype(np.float32)


def loss_of(part: int) -> float:
    return float(np.random.default_rng(1000 + part).uniform(0.1, 1))


@app.train()
def train(message: Message, context: Context) -> Message:
    return answer(message, int(str(context.node_config["partition-id"])))


def answer(message: Message, part: int) -> Message:
    (model,) = message.content.array_records["model"].to_numpy_ndarrays()
    arrays = ArrayRecord([model + update_of(part)])
    metrics = MetricRecord({"num-examples": CLAIMS[part], "loss": loss_of(part)})
    return Message(RecordDict({"model": arrays, "metrics": metrics}), reply_to=message)
