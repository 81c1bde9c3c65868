"""Answers with an array of the size that is asked for, and says when it had it."""

import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, _context: Context) -> Message:
    """Replies with ``arange`` and the time at which the array was there."""
    size = int(message.content["config"]["size"])
    record, made = large(size)
    content = RecordDict({"arrays": record, "metrics": MetricRecord({"made-at": made})})
    return Message(content, reply_to=message)


def large(size: int) -> tuple[ArrayRecord, float]:
    """Returns the record of an array that nobody holds afterwards, and when the array was there."""
    array = np.arange(size, dtype=np.float32)
    made = time.time()
    return ArrayRecord([array]), made
