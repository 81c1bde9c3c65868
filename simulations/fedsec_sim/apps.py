"""Any Flower app in a simulation, unchanged: a ServerApp, and a ClientApp for every node.

    ServerApp --> grid --> a copy of each message --> ClientApp with the node's own context

For apps that know nothing of fedsec. It costs a message per node; plans of the built-in app are
trained many times faster by `fedsec_sim.simulate`. All nodes live in this process, one after
another; a node that raises answers with Flower's error, and the others go on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, RecordDict, UserConfig
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid

from fedsec.errors import ConfigError
from fedsec.flower.local import COORDINATOR_ID, LocalGrid, node_contexts
from fedsec.flwr_apps import app_settings, load_client_app, load_server_app, merge_config
from fedsec_sim.record import one_thread

ServerAppCallable = Callable[[Grid, Context], None]
MOST = 100_000


@dataclass(frozen=True, eq=False)
class AppRun:
    """What a simulated app left.

    Args:
        server: The ServerApp's context.
        nodes: Each node's context, by node id: what nodes keep is in their ``state``.
    """

    server: Context
    nodes: Mapping[int, Context]


def simulate_app(
    server: ServerAppCallable,
    client: ClientAppCallable,
    *,
    nodes: int,
    config: UserConfig | None = None,
) -> AppRun:
    """Runs a Flower app from its first message to its last, on this process.

    Args:
        server: A ServerApp, or a function with its arguments.
        client: Answers for every node; sees ``partition-id`` and ``num-partitions`` in its
            context's ``node_config``, as in Flower's own simulations.
        nodes: How many, >= 1.
        config: The run's configuration, the same for all.

    Raises:
        ConfigError: `nodes` is out of range.
    """
    if not 1 <= nodes <= MOST:
        raise ConfigError(f"nodes must be in 1..{MOST}, got {nodes}")
    settings = dict(config or {})
    contexts = node_contexts(nodes, settings)
    grid = LocalGrid(dict.fromkeys(contexts, client), contexts)
    own = Context(grid.run.run_id, COORDINATOR_ID, {}, RecordDict(), settings)
    with one_thread():
        server(grid, own)
    return AppRun(own, contexts)


def simulate_app_in(
    directory: Path, *, nodes: int, config: Mapping[str, object] | None = None
) -> AppRun:
    """Runs the Flower app in a directory, with the pyproject.toml that `flwr run` reads.

    Args:
        directory: Of the app; nothing in it is changed.
        nodes: How many, >= 1.
        config: In place of defaults in the app's own configuration.

    Raises:
        ConfigError: There is no app, it cannot be loaded, or `config` names what it has not.
    """
    settings = app_settings(directory)
    return simulate_app(
        load_server_app(settings.server_ref, directory),
        load_client_app(settings.client_ref, directory),
        nodes=nodes,
        config=merge_config(settings.config, config or {}),
    )
