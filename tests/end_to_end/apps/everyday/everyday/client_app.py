"""A node's half: a linear model on data of its own, with momentum kept in the node's state."""

import os
import time
from collections.abc import Iterator

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

running = {"lifespans": 0}


def count_calls(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod of the whole app: counts in the node's state and writes the count into the reply."""
    counts = context.state.setdefault("counts", MetricRecord({"calls": 0}))
    counts["calls"] += 1
    reply = call_next(message, context)
    if reply.has_content():
        reply.content["metrics"]["calls"] = counts["calls"]
    return reply


def halve(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod of one function: halves the arrays on their way out."""
    reply = call_next(message, context)
    arrays = reply.content["arrays"].to_numpy_ndarrays()
    reply.content["arrays"] = ArrayRecord([array / 2 for array in arrays])
    return reply


app = ClientApp(mods=[count_calls])


@app.lifespan()
def lifespan(context: Context) -> Iterator[None]:
    running["lifespans"] += 1
    yield
    running["lifespans"] -= 1


def data(context: Context) -> tuple[np.ndarray, np.ndarray]:
    partition = int(context.node_config["partition-id"])
    rng = np.random.default_rng(partition)
    x = rng.normal(size=(20 + partition, 4))
    return x, x @ np.array([1.0, -2.0, 3.0, 0.5]) + 0.1 * rng.normal(size=len(x))


def gradient(weights: np.ndarray, context: Context) -> np.ndarray:
    x, y = data(context)
    return 2 * x.T @ (x @ weights - y) / len(x)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One step of gradient descent with momentum; the momentum lives in `context.state`."""
    weights = message.content["arrays"].to_numpy_ndarrays()[0]
    config = message.content["config"]
    kept = context.state.get("momentum")
    momentum = kept.to_numpy_ndarrays()[0] if kept else np.zeros_like(weights)
    momentum = float(context.run_config["momentum"]) * momentum + gradient(weights, context)
    context.state["momentum"] = ArrayRecord([momentum])
    weights = weights - config["learning-rate"] * momentum
    metrics = MetricRecord(
        {
            "num-examples": len(data(context)[1]),
            "partition": int(context.node_config["partition-id"]),
            "round-seen": config["server-round"],
            "moments": [float(momentum.min()), float(momentum.max())],
        }
    )
    content = RecordDict({"arrays": ArrayRecord([weights]), "metrics": metrics})
    return Message(content, reply_to=message)


@app.train("gradient", mods=[halve])
def send_gradient(message: Message, context: Context) -> Message:
    weights = message.content["arrays"].to_numpy_ndarrays()[0]
    metrics = MetricRecord({"partition": int(context.node_config["partition-id"])})
    arrays = ArrayRecord([gradient(weights, context)])
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    weights = message.content["arrays"].to_numpy_ndarrays()[0]
    x, y = data(context)
    metrics = MetricRecord(
        {
            "loss": float(np.mean((x @ weights - y) ** 2)),
            "num-examples": len(y),
            "partition": int(context.node_config["partition-id"]),
        }
    )
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@app.query("about")
def about(message: Message, context: Context) -> Message:
    """What of its surroundings the app sees."""
    metrics = MetricRecord(
        {
            "partition": int(context.node_config["partition-id"]),
            "partitions": int(context.node_config["num-partitions"]),
            "lifespans": running["lifespans"],
            "process": os.getpid(),
        }
    )
    echo = ConfigRecord({**message.content["config"], "rate": context.run_config["learning-rate"]})
    return Message(RecordDict({"metrics": metrics, "echo": echo}), reply_to=message)


@app.query("fail")
def fail(message: Message, context: Context) -> Message:
    """Fails on one node and answers with an error of its own on none."""
    if int(context.node_config["partition-id"]) == 1:
        raise ValueError("this node has no such thing")
    return Message(
        RecordDict(
            {"metrics": MetricRecord({"partition": int(context.node_config["partition-id"])})}
        ),
        reply_to=message,
    )


@app.query("slow")
def slow(message: Message, context: Context) -> Message:
    """Answers after the message's time to live on one node."""
    if int(context.node_config["partition-id"]) == 2:
        time.sleep(message.metadata.ttl + 0.5)
    return Message(
        RecordDict(
            {"metrics": MetricRecord({"partition": int(context.node_config["partition-id"])})}
        ),
        reply_to=message,
    )
