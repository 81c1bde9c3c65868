"""A robust rule in a Flower app of one's own: an ordinary ServerApp, one changed line.

Ten nodes fit a line to noisy points; three of them lie. With Flower's FedAvg they decide the
result; with `RobustFedAvg` they do not, and are named. Run it as it is, nodes and all in this
process:

    python examples/robust_strategy.py

Under `flwr run` or over a fedsec coordinator the same two apps work unchanged.
"""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

from fedsec.flower import RobustFedAvg
from fedsec.flower.local import LocalGrid, node_contexts

SLOPE, INTERCEPT = 2.0, -1.0
NEAR = 0.1
LIARS = {7: "sign-flip", 8: "nan", 9: "far"}

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Takes ten steps of gradient descent on the node's own points; three nodes then lie."""
    part = int(str(context.node_config["partition-id"]))
    sent = message.content.array_records["arrays"].to_numpy_ndarrays()[0]
    rng = np.random.default_rng(part)
    x = rng.uniform(-1, 1, 100)
    y = SLOPE * x + INTERCEPT + rng.normal(0, 0.1, 100)
    weights = sent.astype(np.float64)
    for _ in range(10):
        errors = weights[0] * x + weights[1] - y
        weights = weights - 0.1 * np.array([np.mean(errors * x), np.mean(errors)])
    match LIARS.get(part):
        case "sign-flip":
            weights = sent - 10 * (weights - sent)
        case "nan":
            weights[0] = np.nan
        case "far":
            weights = sent + 50
    content = RecordDict(
        {
            "arrays": ArrayRecord([weights.astype(np.float32)]),
            "metrics": MetricRecord({"num-examples": 100}),
        }
    )
    return Message(content, reply_to=message)


@client_app.evaluate()
def evaluate(message: Message, _context: Context) -> Message:
    """Has nothing to add: the line is known here."""
    content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


def fit(strategy: Strategy) -> list[float]:
    """Returns slope and intercept after ten rounds."""
    contexts = node_contexts(10, {})
    grid = LocalGrid(dict.fromkeys(contexts, client_app), contexts)
    server_app, line = ServerApp(), [0.0, 0.0]

    @server_app.main()
    def main(grid: Grid, _context: Context) -> None:
        start = ArrayRecord([np.zeros(2, np.float32)])
        result = strategy.start(grid=grid, initial_arrays=start, num_rounds=10)
        line[:] = [float(weight) for weight in result.arrays.to_numpy_ndarrays()[0]]

    server_app(grid, Context(1, 1, {}, RecordDict(), {}))
    return line


def main() -> None:
    """Fits the line both ways."""
    print("FedAvg        line", fit(FedAvg()))
    robust = RobustFedAvg(rule="trimmed-mean", byzantine=3, before=["nnm"])
    slope, intercept = fit(robust)
    print(f"RobustFedAvg  line {slope:.2f} x {intercept:+.2f}, true {SLOPE:.2f} x {INTERCEPT:+.2f}")
    for record in robust.records[1]:
        if record.suspect or record.excluded:
            print(f"  node {record.nodes[0] - 100}: {record.suspect or record.excluded}")
    if abs(slope - SLOPE) + abs(intercept - INTERCEPT) > NEAR:
        raise SystemExit("the liars got through")


if __name__ == "__main__":
    main()
