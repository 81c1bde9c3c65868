"""The same plan on runtimes that are not this process: Flower's simulation engine, and a network.

Nodes there have ids of the runtime's making, and batches and cohorts follow from ids. A history
names them, by partition; a simulation in process that is given them comes to the same model.
"""

import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from safetensors.numpy import load_file

from fedsec.errors import ConfigError, StateError
from fedsec.flower.reporting import Json
from fedsec.flower.strategy import ServerState
from fedsec_client.client_app import DATA_KEY, PLAN_KEY
from fedsec_client.client_app import app as node_app
from fedsec_sim.history import History, Row
from fedsec_sim.record import Record, Watcher

if TYPE_CHECKING:
    from fedsec_sim.loopback import LoopbackFederation

START_S = 600.0  # for a runtime's nodes to be there
PARTITION = "partition"
_LOOK_S = 0.05

Body = Callable[[Grid], History]


def in_flower(body: Body, client: ClientApp, nodes: int) -> History:
    """Runs `body` as a ServerApp in Flower's simulation engine and returns its history.

    Args:
        body: Gets the grid once all nodes are there.
        client: Of each node.
        nodes: How many.

    Raises:
        ConfigError: Ray is not installed.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: F401, PLC0415 - an extra of Flower's
        from flwr.simulation import run_simulation  # noqa: PLC0415 - starts threads
    except ImportError as error:
        raise ConfigError('engine "ray" needs Ray: pip install "flwr[simulation]"') from error
    found: list[History] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        _await_nodes(grid, nodes)
        found.append(body(grid))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flower's and Ray's own
        run_simulation(
            server,
            client,
            nodes,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )
    if not found:
        raise StateError("Flower's simulation engine ended before the plan did")
    return found[0]


def _await_nodes(grid: Grid, nodes: int) -> None:
    limit = time.monotonic() + START_S
    while len(list(grid.get_node_ids())) < nodes:
        if time.monotonic() > limit:
            raise StateError(f"Flower's {nodes} nodes did not come within {START_S:.0f} s")
        time.sleep(_LOOK_S)


def deployed_app(plan: str, data: Mapping[str, object]) -> ClientApp:
    """Returns the ClientApp of deployed nodes, for a runtime that gives it no configuration.

    Args:
        plan: As TOML.
        data: Settings of the data set, the same for all; each node adds its partition.
    """
    app = ClientApp()
    config = {PLAN_KEY: plan, DATA_KEY: json.dumps(dict(data))}

    def configured(context: Context) -> Context:
        return Context(
            context.run_id, context.node_id, context.node_config, context.state, dict(config)
        )

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return node_app(message, configured(context))

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return node_app(message, configured(context))

    @app.query()
    def query(message: Message, context: Context) -> Message:
        part = int(str(context.node_config["partition-id"]))
        return Message(RecordDict({PARTITION: ConfigRecord({PARTITION: part})}), reply_to=message)

    return app


def partitions(grid: Grid) -> list[int]:
    """Returns the nodes' ids in the order of their partitions."""
    asked = [Message(RecordDict(), node, MessageType.QUERY) for node in grid.get_node_ids()]
    found = {
        int(str(reply.content.config_records[PARTITION][PARTITION])): reply.metadata.src_node_id
        for reply in grid.send_and_receive(asked, timeout=START_S)
    }
    return [found[part] for part in sorted(found)]


def in_network(
    plan: str,
    *,
    nodes: int,
    data: Mapping[str, object],
    name: str,
    state: ServerState,
    about: Row,
    watch: Watcher,
) -> History:
    """Runs a plan on a coordinator and nodes on this machine, processes with mutual TLS.

    Args:
        plan: As TOML, byte for byte what is submitted.
        nodes: How many, a process each.
        data: Their settings of the data set.
        name: Of the data set in the plan.
        state: Before the first round.
        about: What the history says.
        watch: Is shown each round, once the run has ended.

    Raises:
        StateError: The run failed.
    """
    from fedsec_sim.loopback import LoopbackFederation  # noqa: PLC0415 - brings the programs along

    with (
        tempfile.TemporaryDirectory(prefix="fedsec-sim-") as folder,
        LoopbackFederation(Path(folder, "federation"), forked=True) as federation,
    ):
        federation.add_nodes(nodes, lambda part, parts: node_settings(name, data, part, parts))
        numbers = federation.node_ids()
        about = {**about, "ids": [numbers[f"node-{part}"] for part in range(nodes)]}
        watch.begin(about)
        record = Record(watch, lambda _rounds: {})
        vector = state.layout.flatten(_run(federation, plan, record))
    last = replace(state, round=len(record.rows), vector=vector)
    return History(about, tuple(record.rows), last)


def _run(federation: "LoopbackFederation", plan: str, record: Record) -> dict[str, Any]:
    """Returns the model that a plan ends with; what is told of its rounds goes to `record`."""
    run_id = federation.submit(plan)
    run = federation.wait_for_run(run_id, START_S)
    for detail in federation.events(run_id, "round"):
        record.report("round", {str(key): _json(value) for key, value in detail.items()})
    stored = sorted(Path(run.directory, "models").glob("*.safetensors"))
    model: dict[str, Any] = load_file(stored[-1])
    return model


def node_settings(name: str, data: Mapping[str, object], part: int, parts: int) -> str:
    """Returns the `node.toml` of a node that has one part of a data set."""
    table = {"connector": name, **data, "partition": part, "partitions": parts}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    return (
        'schema = 1\n[limits]\nthreads = 1\n[policy]\nallowed_apps = ["fedsec"]\n'
        f"[data.{name}]\n{lines}\n"
    )


def _json(value: object) -> Json:
    made: Json = json.loads(json.dumps(value))
    return made
