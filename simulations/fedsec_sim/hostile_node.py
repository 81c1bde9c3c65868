"""A node whose operator has changed the software: enrolled, over mutual TLS, and poisoned.

    python -m fedsec_sim.hostile_node node start DIRECTORY      in place of `fedsec`

Its workers are `fedsec_sim.hostile_worker`. For demos and tests on one's own machine.
"""

from fedsec.cli import main as fedsec
from fedsec_client import processes


def main() -> None:
    """Runs the `fedsec` command with other workers."""
    processes.WORKER = "fedsec_sim.hostile_worker"
    fedsec()


if __name__ == "__main__":
    main()
