"""What the demo takes, and what its workers would take if each agent started its own (Linux).

    demo             the whole `fedsec demo`: time, and memory of all its programs at its peak
    getting ready    of a fleet, from the first invite to the end of round 1: workers forked from
                     one loaded process beside workers that agents start; memory of all then

Memory is the proportional set size: of a page that n processes share, each has an n-th.

    python benchmarks/demo.py [--quick] [--nodes NODES] [--json FILE]
"""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import common

from fedsec_sim.loopback import FEDSEC, LoopbackFederation
from fedsec_sim.processes import Process, family_of, wait_until

MOST_S, MOST_BYTES = 120.0, 5e9  # what the demo may take
LOOK_S = 1.0
START_S = 240.0

PLAN = """
schema = 1
name = "getting ready"
[task]
name = "digits"
options = {{ model = "mlp" }}
[training]
rounds = 1000
local_steps = 1
[nodes]
min_available = {nodes}
"""


def main() -> None:
    """Measures, prints and writes."""
    parser = common.arguments(__doc__ or "")
    parser.add_argument("--nodes", type=int, default=10, help="of the fleet (default: 10)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedsec-bench-") as work:
        rows = demo(Path(work))
        if not chosen.quick:
            rows += fleets(Path(work), chosen.nodes)
    common.publish(rows, chosen.json)


def demo(work: Path) -> list[common.Result]:
    """Runs the demo once."""
    process = Process(
        "demo", [*FEDSEC, "demo", "--directory", str(work / "demo")], work / "demo.log"
    )
    peak, started = 0, time.monotonic()
    process.start()
    while process.is_running:
        peak = max(peak, memory_of(process.family()))
        time.sleep(LOOK_S)
    took = time.monotonic() - started
    assert process.exit_code == 0, process.tail()
    limit = "what it may take"
    return [
        common.compare("demo", "time", "s", ours=[took], peer=[MOST_S], peer_name=limit),
        common.compare(
            "demo, at its peak", "memory", "B", ours=[peak], peer=[MOST_BYTES], peer_name=limit
        ),
    ]


def fleets(work: Path, nodes: int) -> list[common.Result]:
    """Has a fleet get ready in both ways; to load the fork server is part of the time."""
    peer, ours = (ready(work / way, nodes, forked=way == "forked") for way in ("started", "forked"))
    named = "workers that agents start"
    kinds: tuple[tuple[common.Metric, str], ...] = (("time", "s"), ("memory", "B"))
    return [
        common.compare(
            f"{nodes} nodes get ready", metric, unit, ours=[mine], peer=[theirs], peer_name=named
        )
        for (metric, unit), mine, theirs in zip(kinds, ours, peer, strict=True)
    ]


def ready(work: Path, nodes: int, *, forked: bool) -> tuple[float, float]:
    """Returns seconds until round 1 has ended, and the memory of all programs then."""
    with LoopbackFederation(work, forked=forked) as federation:
        started = time.monotonic()
        federation.add_nodes(nodes)
        run_id = federation.submit(PLAN.format(nodes=nodes))
        wait_until(lambda: federation.show_run(run_id).run.round >= 1, START_S, "round 1")
        return time.monotonic() - started, memory_of(family_of(os.getpid())[1:])


def memory_of(processes: list[int]) -> int:
    """Returns the proportional set size of processes together, in bytes."""
    total = 0
    for pid in processes:
        with suppress(OSError):  # it has ended
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


if __name__ == "__main__":
    main()
