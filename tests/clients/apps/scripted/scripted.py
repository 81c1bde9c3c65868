"""A ClientApp that does what the message orders, good or bad. Flower's public API only."""

import os
import resource
import subprocess
import sys
import threading

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

app = ClientApp()
server = ServerApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    order = message.content["order"]
    what = str(order["what"])
    return ORDERS[what](message, context)


def add_one(message: Message, context: Context) -> Message:
    """Adds 1.0 to the array, and counts calls in the state."""
    count = int(context.state.metric_records.get("count", MetricRecord({"n": 0}))["n"]) + 1
    context.state["count"] = MetricRecord({"n": count})
    arrays = [array + 1.0 for array in message.content["arrays"].to_numpy_ndarrays()]
    content = RecordDict(
        {
            "arrays": ArrayRecord(arrays),
            "metrics": MetricRecord({"count": count, "pid": os.getpid()}),
        }
    )
    return Message(content, reply_to=message)


def kill_oneself(message: Message, context: Context) -> Message:
    os.kill(os.getpid(), int(message.content["order"]["signal"]))
    return message


def leave(message: Message, context: Context) -> Message:
    os._exit(3)


def leave_politely(message: Message, context: Context) -> Message:
    sys.exit("no more")


def hang(message: Message, context: Context) -> Message:
    context.state["spoilt"] = MetricRecord({"n": 1})
    threading.Event().wait()
    return message


def eat(message: Message, context: Context) -> Message:
    eaten = np.ones(int(message.content["order"]["bytes"]), dtype=np.uint8)
    return Message(RecordDict({"size": MetricRecord({"n": int(eaten.nbytes)})}), reply_to=message)


def fail(message: Message, context: Context) -> Message:
    context.state["spoilt"] = MetricRecord({"n": 1})
    secret = "patient 4711"
    raise ValueError("bad\x1b[2J batch " + "x" * 2000) from RuntimeError(secret)


def nothing(message: Message, context: Context) -> Message:
    return None  # type: ignore[return-value]


def somebody_elses(message: Message, context: Context) -> Message:
    return Message(RecordDict(), dst_node_id=99, message_type="train")


def unencodable(message: Message, context: Context) -> Message:
    pickled = Array("object", (1,), "pickle", b"\x80\x04N.")
    return Message(RecordDict({"a": ArrayRecord({"x": pickled})}), reply_to=message)


def bad_state(message: Message, context: Context) -> Message:
    context.state["a"] = ArrayRecord({"x": Array("object", (1,), "pickle", b"\x80\x04N.")})
    return Message(RecordDict(), reply_to=message)


def beget(message: Message, context: Context) -> Message:
    child = subprocess.Popen(["sleep", "600"])
    with open("child.pid", "w") as file:
        file.write(str(child.pid))
    threading.Event().wait()
    return message


def chatter(message: Message, context: Context) -> Message:
    print("x" * int(message.content["order"]["bytes"]))
    print("the last words", flush=True)
    return Message(RecordDict(), reply_to=message)


def look_around(message: Message, context: Context) -> Message:
    seen = {
        "cwd": os.getcwd(),
        "environment": sorted(os.environ),
        "threads": os.environ["OMP_NUM_THREADS"],
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "data": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "leads": os.getsid(0) == os.getpid(),
        "run_config": sorted(f"{k}={v}" for k, v in context.run_config.items()),
        "node_config": sorted(f"{k}={v}" for k, v in context.node_config.items()),
        "ids": [context.run_id, context.node_id],
    }
    return Message(RecordDict({"seen": ConfigRecord(seen)}), reply_to=message)


ORDERS = {
    function.__name__: function
    for function in (
        add_one,
        kill_oneself,
        leave,
        leave_politely,
        hang,
        eat,
        fail,
        nothing,
        somebody_elses,
        unencodable,
        bad_state,
        beget,
        chatter,
        look_around,
    )
}
