"""Secure aggregation in a Flower app of one's own: the coordinator sees the mean and no model.

Six nodes fit a line to points that none of them shows. The ServerApp's strategy is Flower's FedAvg,
put into `SecureStrategy`; the ClientApp has one mod more. Run it as it is, nodes and all in this
process:

    python examples/secure_sum.py

Under `flwr run` the same two apps work unchanged. With mode = "malicious" the nodes do not trust
the coordinator either; each SuperNode is then started with a directory of its site's own, which
`fedsec roster entry` makes:

    flower-supernode --node-config 'fedsec-policy="/etc/fedsec/policy"' ...

Over a fedsec coordinator leave the mod out: its nodes bring their own, and keep secrets in memory.
"""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedsec.flower import SecureStrategy, secure_mod
from fedsec.flower.local import LocalGrid, node_contexts
from fedsec.plan import FederationPlan

PLAN = FederationPlan.parse("""
schema = 1
name = "a line"
[app]
name = "line"
[nodes]
min_available = 6
[secure_aggregation]
mode = "semi-honest"
clip = 4.0
max_weight = 100
metrics = { loss = [0.0, 4.0] }
""")
NODES, ROUNDS = 6, 10
SLOPE, INTERCEPT = 2.0, -1.0
NEAR = 0.05

client_app = ClientApp(mods=[secure_mod(PLAN)])


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Takes ten steps of gradient descent on the node's own points."""
    part = int(str(context.node_config["partition-id"]))
    rng = np.random.default_rng(part)
    x = rng.uniform(-1, 1, 20 * (part + 1))
    y = SLOPE * x + INTERCEPT + rng.normal(0, 0.1, x.size)
    weights = message.content.array_records["arrays"].to_numpy_ndarrays()[0].astype(np.float64)
    for _ in range(10):
        errors = weights[0] * x + weights[1] - y
        weights -= 0.3 * np.array([np.mean(errors * x), np.mean(errors)])
    metrics = MetricRecord({"num-examples": x.size, "loss": float(np.mean(errors**2))})
    arrays = ArrayRecord([weights.astype(np.float32)])
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Ten rounds from a flat line."""
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=NODES)
    strategy = SecureStrategy(inner, PLAN, run_config=context.run_config)
    begin = ArrayRecord([np.zeros(2, np.float32)])
    result = strategy.start(grid, begin, num_rounds=ROUNDS)
    slope, intercept = result.arrays.to_numpy_ndarrays()[0]
    told = result.train_metrics_clientapp[ROUNDS]
    print(f"y = {slope:.2f} x {intercept:+.2f}, mean loss {told['loss']:.3f}")
    if abs(slope - SLOPE) > NEAR or abs(intercept - INTERCEPT) > NEAR:
        raise SystemExit("the line was not found")


if __name__ == "__main__":
    contexts = node_contexts(NODES, {})
    own = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    server_app(LocalGrid(dict.fromkeys(contexts, client_app), contexts), own)
