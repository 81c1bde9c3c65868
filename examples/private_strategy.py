"""Central differential privacy in a Flower app of one's own: a ServerApp with one line changed.

Two hundred nodes fit a line to noisy points. The noise hides each of them from whoever sees the
line, and every round is in a ledger before it is released. Run it as it is, nodes and all in this
process:

    python examples/private_strategy.py

Under `flwr run` or over a fedsec coordinator the same two apps work unchanged.
"""

import tempfile
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedsec.flower import PrivateFedAvg
from fedsec.flower.local import LocalGrid, node_contexts
from fedsec.ledgerfile import LedgerFile, compose

SLOPE, INTERCEPT, NEAR = 2.0, -1.0, 0.25
NODES, ROUNDS = 200, 12
EPSILON, DELTA = 8.0, 1e-5

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Takes ten steps of gradient descent on the node's own points."""
    sent = message.content.array_records["arrays"].to_numpy_ndarrays()[0]
    rng = np.random.default_rng(int(str(context.node_config["partition-id"])))
    x = rng.uniform(-1, 1, 100)
    y = SLOPE * x + INTERCEPT + rng.normal(0, 0.1, 100)
    weights = sent.astype(np.float64)
    for _ in range(10):
        errors = weights[0] * x + weights[1] - y
        weights = weights - 0.1 * np.array([np.mean(errors * x), np.mean(errors)])
    content = RecordDict(
        {
            "arrays": ArrayRecord([weights.astype(np.float32)]),
            "metrics": MetricRecord({"num-examples": 100}),
        }
    )
    return Message(content, reply_to=message)


def fit(strategy: PrivateFedAvg) -> list[float]:
    """Returns slope and intercept after all rounds."""
    contexts = node_contexts(NODES, {})
    grid = LocalGrid(dict.fromkeys(contexts, client_app), contexts)
    server_app, line = ServerApp(), [0.0, 0.0]

    @server_app.main()
    def main(grid: Grid, _context: Context) -> None:
        start = ArrayRecord([np.zeros(2, np.float32)])
        result = strategy.start(grid=grid, initial_arrays=start, num_rounds=ROUNDS)
        line[:] = [float(weight) for weight in result.arrays.to_numpy_ndarrays()[0]]

    server_app(grid, Context(1, 1, {}, RecordDict(), {}))
    return line


def main() -> None:
    """Fits the line and reads the ledger."""
    with tempfile.TemporaryDirectory() as directory:
        ledger = Path(directory) / "privacy.ledger"
        strategy = PrivateFedAvg(
            epsilon=EPSILON, delta=DELTA, noise_multiplier=2.5, clip=1.0,
            nodes=NODES, rounds=ROUNDS, ledger=ledger,
        )  # fmt: skip
        slope, intercept = fit(strategy)
        charges = [charge for _, charge in LedgerFile(ledger).entries()]
        epsilon = compose([charge.price for charge in charges], DELTA)
    print(f"line {slope:.2f} x {intercept:+.2f}, true {SLOPE:.2f} x {INTERCEPT:+.2f}")
    print(f"{len(charges)} releases in the ledger: epsilon {epsilon:.2f} at delta {DELTA:g}")
    if abs(slope - SLOPE) + abs(intercept - INTERCEPT) > NEAR or len(charges) != ROUNDS:
        raise SystemExit("the line is far off, or a release was not charged")


if __name__ == "__main__":
    main()
