"""A node with another worker than `fedsec` starts: enrolled, over mutual TLS, on one's own machine.

    python -P -m fedsec_sim.other_node WORKER ADDRESS node start DIRECTORY     in place of `fedsec`

WORKER is a module, e.g. `fedsec_sim.hostile_worker`, of a node whose operator has changed the
software. ADDRESS is that of a fork server that runs it, or ``-``: the agent starts it by itself.
"""

import sys

from fedsec.cli import main as fedsec
from fedsec_client import processes


def command(worker: str, address: str | None) -> tuple[str, ...]:
    """Returns what an operator of such a node runs in place of `fedsec`."""
    return (sys.executable, "-P", "-m", __name__, worker, address or "-")


def main() -> None:
    """Runs the `fedsec` command with other workers."""
    _, worker, address, *arguments = sys.argv
    module = (worker,) if address == "-" else ("fedsec_sim.forked_worker", address, worker)
    processes.PROGRAM = (sys.executable, "-P", "-m", *module)
    sys.argv = ["fedsec", *arguments]
    fedsec()


if __name__ == "__main__":
    main()
