"""The program of a run process: ``python -m fedsec_server.run_process DESCRIPTOR PARENT``.

    RunStart --> the app is loaded --> enough nodes accepted the run --> Ready
             --> the ServerApp runs, over a `FleetGrid` --> Finished --> the end of the process

The coordinator starts it, one per run: Flower's identity is global to a process, and an app that
crashes takes its own run along and no other. DESCRIPTOR is its end of a socket pair, PARENT the
coordinator's process id, with which this one dies. What it prints is the run's log.

A Flower app saves what it wants to keep by itself; its working directory is the run's directory.
"""

import ctypes
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from flwr.app import Context, RecordDict, UserConfig
from flwr.serverapp import ServerApp

from fedsec import flwr_apps, flwr_compat
from fedsec.errors import FedsecError, ProtocolError
from fedsec.flower.publishing import DELTA_KEY, EPSILON_KEY, LEDGER_KEY
from fedsec.plan import FederationPlan
from fedsec.wire.generated.local_pb2 import RunCommand, RunStart
from fedsec.wire.headers import COORDINATOR_NODE_ID, clip_reason
from fedsec.wire.local import LocalSocket
from fedsec_server.grid import FleetGrid, RunStopped

START_S = 60.0  # within which the coordinator says what to run
PLAN_KEY, DIRECTORY_KEY, ROSTER_KEY = "fedsec-plan", "fedsec-directory", "fedsec-roster"
ROOT_KEY = "fedsec-root"

_LOG = logging.getLogger("fedsec.run")
_PR_SET_PDEATHSIG = 1
_ARGUMENTS = 2


def main(arguments: Sequence[str]) -> int:
    """Runs one run; returns the status of the process, 0 when the app finished."""
    if len(arguments) != _ARGUMENTS:
        sys.exit(__doc__)
    descriptor, parent = (int(each) for each in arguments)
    die_with(parent)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.set_inheritable(descriptor, False)  # programs that the app starts have no business with it
    local = LocalSocket(socket.socket(fileno=descriptor))
    start = _receive_start(local)
    plan = FederationPlan.parse(start.plan)
    grid = FleetGrid(local, start.run_id, deadline_s=plan.round.deadline_s)
    try:
        _run(start, plan, grid)
    except RunStopped as stopped:
        _LOG.warning("ended: %s", stopped)
        return 0
    except FedsecError as error:
        return _fail(grid, str(error))
    except SystemExit as error:
        if error.code not in {None, 0}:
            return _fail(grid, f"the app ended itself with status {error.code}")
    except BaseException as error:  # noqa: BLE001 - whatever an app may raise ends its run
        _LOG.exception("the app failed")
        return _fail(grid, f"the app raised {type(error).__name__}: {error}")
    grid.finish(ok=True)
    return 0


def die_with(parent: int) -> None:
    """Makes the system kill this process when `parent` is gone.

    On Linux; elsewhere the closed socket ends it, at the next call of the Grid.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it went before we asked
        sys.exit("the coordinator is gone")


def load_app(start: RunStart, plan: FederationPlan) -> tuple[ServerApp, UserConfig]:
    """Returns the app of a run and its run config.

    Raises:
        ConfigError: The app cannot be loaded, or the plan's config does not fit it.
    """
    if plan.built_in:
        config: UserConfig = {
            PLAN_KEY: start.plan,
            DIRECTORY_KEY: start.directory,
            LEDGER_KEY: start.ledger.path,
        }
        if start.ledger.epsilon:
            config |= {EPSILON_KEY: start.ledger.epsilon, DELTA_KEY: start.ledger.delta}
        if start.member:
            keys = {str(each.node_id): each.signing_key.hex() for each in start.member}
            config[ROSTER_KEY] = json.dumps(keys)
        if start.root_data:
            config[ROOT_KEY] = start.root_data
        return flwr_apps.load_server_app(start.app), config
    if not start.app_directory:
        return (
            flwr_apps.load_server_app(start.app),
            flwr_apps.flatten_config(plan.app.config),
        )
    directory = Path(start.app_directory)
    settings = flwr_apps.app_settings(directory)
    config = flwr_apps.merge_config(settings.config, plan.app.config)
    return flwr_apps.load_server_app(settings.server_ref, directory), config


def _receive_start(local: LocalSocket) -> RunStart:
    received = local.receive(START_S)
    if received is None:
        sys.exit("the coordinator is gone")
    command = RunCommand.FromString(received[0])
    if command.WhichOneof("kind") != "start":
        raise ProtocolError("coordinator", "malformed", "the first frame must be a start")
    return command.start


def _run(start: RunStart, plan: FederationPlan, grid: FleetGrid) -> None:
    flwr_compat.check_version()
    flwr_compat.become(start.run_id, COORDINATOR_NODE_ID, task_id=0)
    app, config = load_app(start, plan)
    grid.await_nodes(plan.nodes.min_available, plan.nodes.wait_s)
    context = Context(
        run_id=start.run_id,
        node_id=COORDINATOR_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config=config,
    )
    grid.ready()
    app(grid, context)


def _fail(grid: FleetGrid, reason: str) -> int:
    _LOG.error("failed: %s", reason)
    grid.finish(ok=False, reason=clip_reason(reason))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
