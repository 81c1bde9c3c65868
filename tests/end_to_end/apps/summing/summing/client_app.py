from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedsec.flower import secure_mod
from fedsec.plan import FederationPlan

PLAN = FederationPlan.parse(Path(__file__).with_name("plan.toml").read_text("utf-8"))

app = ClientApp(mods=[secure_mod(PLAN)])


@app.train()
def train(message: Message, context: Context) -> Message:
    part = int(context.node_config["partition-id"])
    (model,) = message.content.array_records["arrays"].to_numpy_ndarrays()
    arrays = ArrayRecord([model + np.float32(part)])
    metrics = MetricRecord({"num-examples": part + 1, "part": float(part)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
