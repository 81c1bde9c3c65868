"""`fedsec` with another worker, or with forked workers and runs: on one's own machine.

    python -P -m fedsec_sim.other_programs worker WORKER ADDRESS node start DIRECTORY
    python -P -m fedsec_sim.other_programs run MODULE ADDRESS server start DIRECTORY

in place of `fedsec node start` and `fedsec server start`. WORKER is the module of the node's
workers, e.g. `fedsec_sim.hostile_worker` where the operator has changed the software; MODULE that
of the coordinator's run processes. ADDRESS is that of a fork server that runs it, or ``-``: agent
and coordinator start it by themselves.
"""

import importlib
import sys
from typing import Literal

from fedsec.cli import main as fedsec

WORKER, RUN = "fedsec_client.worker", "fedsec_server.run_process"
"""The modules of the software as it is."""

_STARTED_BY = {"worker": "fedsec_client.processes", "run": "fedsec_server.runner"}


def command(kind: Literal["worker", "run"], module: str, address: str | None) -> tuple[str, ...]:
    """Returns what runs in place of `fedsec`.

    Args:
        kind: Which program is another one.
        module: Its module.
        address: Of the fork server that runs it; None: its starter does.
    """
    return (sys.executable, "-P", "-m", __name__, kind, module, address or "-")


def main() -> None:
    """Runs the `fedsec` command with other programs."""
    _, kind, module, address, *arguments = sys.argv
    run = (module,) if address == "-" else ("fedsec_sim.stand_in", address, module)
    starter = importlib.import_module(_STARTED_BY[kind])
    starter.PROGRAM = (sys.executable, "-P", "-m", *run)  # type: ignore[attr-defined]
    sys.argv = ["fedsec", *arguments]
    fedsec()


if __name__ == "__main__":
    main()
