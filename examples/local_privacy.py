"""Local differential privacy in a Flower app of one's own: a ClientApp with one line changed.

Sixty nodes fit a line to noisy points and trust nobody: each noises what it sends, writes it
into a ledger in a directory of its own first, and refuses what goes beyond its budget, whatever the
ServerApp asks. Run it as it is, nodes and all in this process:

    python examples/local_privacy.py

Under `flwr run` the two apps work unchanged; each SuperNode names its directory:

    flower-supernode --node-config 'fedsec-privacy="/var/lib/fedsec/privacy"' ...
"""

import tempfile
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedsec.flower import local_mod
from fedsec.flower.local import LocalGrid, node_contexts
from fedsec.ledgerfile import LedgerFile, compose

SLOPE, INTERCEPT, NEAR = 2.0, -1.0, 1.25
NODES, ROUNDS = 60, 3
EPSILON, DELTA = 20.0, 1e-5  # with thousands of nodes, less is enough

client_app = ClientApp(mods=[local_mod(epsilon=EPSILON, delta=DELTA, clip=1.0, rounds=ROUNDS)])


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
        weights = weights - np.array([np.mean(errors * x), np.mean(errors)])
    content = RecordDict(
        {
            "arrays": ArrayRecord([weights.astype(np.float32)]),
            "metrics": MetricRecord({"num-examples": 100}),
        }
    )
    return Message(content, reply_to=message)


def fit(directories: Path, nodes: int, *, run_id: int) -> list[float]:
    """Returns slope and intercept after all rounds; nothing if every node refused."""
    contexts = node_contexts(nodes, {}, run_id=run_id)
    for node, context in contexts.items():
        context.node_config["fedsec-privacy"] = str(directories / str(node))
    grid = LocalGrid(dict.fromkeys(contexts, client_app), contexts, run_id=run_id)
    strategy = FedAvg(fraction_evaluate=0.0)  # such a node measures nothing for others
    start = ArrayRecord([np.zeros(2, np.float32)])
    result = strategy.start(grid=grid, initial_arrays=start, num_rounds=ROUNDS)
    return [float(weight) for line in result.arrays.to_numpy_ndarrays() for weight in line]


def main() -> None:
    """Fits the line, reads a ledger, and asks nodes for more than they ever give."""
    with tempfile.TemporaryDirectory() as place:
        directories = Path(place)
        for node in node_contexts(NODES, {}):  # what each site does, once
            (directories / str(node)).mkdir(mode=0o700)
            budget = f"epsilon = {EPSILON}\ndelta = {DELTA}\n"
            (directories / str(node) / "budget.toml").write_text(budget)
        slope, intercept = fit(directories, NODES, run_id=1)
        ledger = LedgerFile(directories / "100" / "privacy.ledger")
        charges = [charge for _, charge in ledger.entries()]
        epsilon = compose([charge.price for charge in charges], DELTA)
        again = fit(directories, 2, run_id=2)
        after = len(ledger.entries())
    print(f"line {slope:.2f} x {intercept:+.2f}, true {SLOPE:.2f} x {INTERCEPT:+.2f}")
    print(f"{len(charges)} releases in a node's ledger: epsilon {epsilon:.2f} at delta {DELTA:g}")
    print("a second training would cost more than these nodes ever spend: they refused")
    if abs(slope - SLOPE) + abs(intercept - INTERCEPT) > NEAR or len(charges) != ROUNDS:
        raise SystemExit("the line is far off, or a release was not charged")
    if again or after != ROUNDS:
        raise SystemExit("a node went beyond its budget")


if __name__ == "__main__":
    main()
