# ruff: noqa: BLE001, C901, PLR0912, S112 - a rogue is what it is
"""A Flower app for tests of run processes: what it does is its run config's `mode`."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedsec_server.kinds import OWN, SHARED

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    print(f"mode {config['mode']}", flush=True)
    match config["mode"]:
        case "echo":
            for server_round in range(int(config["rounds"])):
                echo(grid, server_round, float(config["timeout"]))
        case "crash":
            print("about to crash", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "orphan":  # leaves a fork behind that holds all that was open
            if os.fork() == 0:
                time.sleep(600)
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise ValueError("no such luck")
        case "exit":
            sys.exit(3)
        case "leave":  # a clean end by other means than returning
            sys.exit(0)
        case "stubborn":  # neither Stop nor SIGTERM end it, and it has a child
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            print(f"child {child.pid}", flush=True)
            while True:
                try:
                    time.sleep(0.05)
                except BaseException:
                    continue
        case "wait":  # in the Grid, catching all that it may
            while True:
                try:
                    grid.pull_messages(grid.push_messages(messages(grid, 0)))
                except Exception:
                    time.sleep(0.01)
        case "garbage":
            grid._socket.send(b"\xff no frame at all")
            time.sleep(600)
        case "forge":  # events that are the coordinator's to tell
            for kind in sorted(OWN - SHARED):
                grid.report(kind, {"reason": "says the app"})
            grid.report("note", {"text": "fine"})
            grid.report("round", {"round": 7, "loss": 0.5})
            grid.report("model", {"round": 7, "path": "models/7.safetensors"})
            grid.report("model", {"round": 8, "path": "../../state.sqlite"})
        case "linger":  # has finished, but its process does not end
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Thread(target=time.sleep, args=(600,)).start()


def messages(grid: Grid, server_round: int) -> list[Message]:
    content = RecordDict(
        {
            "arrays": ArrayRecord([np.arange(200_000, dtype=np.float32) + server_round]),
            "config": ConfigRecord({"server-round": server_round}),
        }
    )
    return [
        Message(content, node_id, "train", group_id=str(server_round))
        for node_id in grid.get_node_ids()
    ]


def echo(grid: Grid, server_round: int, timeout: float) -> None:
    replies = list(grid.send_and_receive(messages(grid, server_round), timeout=timeout))
    for reply in replies:
        node = reply.metadata.src_node_id
        if reply.has_error():
            print(f"round {server_round} node {node} error {reply.error.code} {reply.error.reason}")
            continue
        (array,) = reply.content["arrays"].to_numpy_ndarrays()
        right = bool(np.array_equal(array, np.arange(200_000, dtype=np.float32) + server_round))
        print(f"round {server_round} node {node} right {right}", flush=True)
