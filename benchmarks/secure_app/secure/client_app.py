"""Adds 1.0 to what it gets."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, _context: Context) -> Message:
    """Answers with the array plus one, as trained on one example."""
    (model,) = message.content.array_records["model"].to_numpy_ndarrays()
    arrays = ArrayRecord([model + np.float32(1)])
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"model": arrays, "metrics": metrics}), reply_to=message)
