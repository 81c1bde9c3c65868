import json
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedsec.flower import SecureStrategy
from fedsec.plan import FederationPlan

OWN_PLAN = Path(__file__).with_name("plan.toml")
ROUNDS = 3

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    plan = Path(str(context.run_config["plan"] or OWN_PLAN)).read_text("utf-8")
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4)
    parsed = FederationPlan.parse(plan)
    strategy = SecureStrategy(inner, parsed, run_config=context.run_config)
    result = strategy.start(grid, ArrayRecord([np.zeros(1000, np.float32)]), num_rounds=ROUNDS)
    (model,) = result.arrays.to_numpy_ndarrays()
    told = [dict(result.train_metrics_clientapp[number]) for number in range(1, ROUNDS + 1)]
    report = {"first": float(model[0]), "last": float(model[-1]), "told": told}
    Path(str(context.run_config["report"])).write_text(json.dumps(report), "utf-8")
