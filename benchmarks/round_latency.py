"""One round of 3 nodes, 1M float32 up and down, TLS: beside Flower's SuperLink and SuperNodes.

Both run the same unmodified app (`roundtrip_app`): the node adds 1.0 to what it gets, so that the
round is all transport. Start-up is not counted on either side. Flower has no mutual TLS, so there
it is TLS; ours has mutual TLS. Every value is the time from the making of the messages until the
mean of the replies is there, by the app's own clock.
"""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import common

from fedsec_sim.flower_runtime import flower_runtime
from fedsec_sim.loopback import LoopbackFederation

APP = Path(__file__).parent / "roundtrip_app"
NODES = 3
SIZE = 1_000_000

PLAN = """
schema = 1
name = "round latency"
[app]
name = "roundtrip"
config = {{ rounds = {rounds}, size = {size}, nodes = {nodes}, report = "{report}" }}
[nodes]
min_available = {nodes}
"""


def main() -> None:
    """Measures, prints and writes."""
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="of each side (default: 7, quick: 3)")
    chosen = parser.parse_args()
    rounds = chosen.rounds or (3 if chosen.quick else 7)
    with tempfile.TemporaryDirectory(prefix="fedsec-bench-") as work:
        ours = measure_ours(Path(work), rounds)
        peer = measure_flower(Path(work), rounds)
    result = common.compare(
        f"round n={NODES} d={SIZE} float32 up and down, train only",
        "time",
        "s",
        ours=ours,
        peer=peer,
        peer_name=f"flwr {version('flwr')} SuperLink, TLS",
    )
    common.publish([result], chosen.json)


def measure_ours(work: Path, rounds: int) -> list[float]:
    """Returns seconds of each round over our coordinator."""
    report = work / "ours.json"
    with LoopbackFederation(work / "fedsec", apps={"roundtrip": APP}) as federation:
        federation.add_nodes(NODES)
        run_id = federation.submit(
            PLAN.format(rounds=rounds, size=SIZE, nodes=NODES, report=report)
        )
        federation.wait_for_run(run_id, seconds=120)
    return read_report(report, rounds)


def measure_flower(work: Path, rounds: int) -> list[float]:
    """Returns seconds of each round over Flower's own deployment."""
    report = work / "flower.json"
    with flower_runtime(work / "flower", NODES) as runtime:
        config = {"rounds": rounds, "size": SIZE, "nodes": NODES, "report": str(report)}
        runtime.run(APP, config, report, seconds=120 + 20 * rounds)
    return read_report(report, rounds)


def read_report(report: Path, rounds: int, tolerance: float = 0.0) -> list[float]:
    """Returns the times that an app wrote, after a look at whether it did its work."""
    found = json.loads(report.read_text(encoding="utf-8"))
    for entry in (found["first"], found["last"]):
        assert abs(entry - rounds) <= tolerance, "each round adds 1.0 to zeros"
    assert len(found["seconds"]) == rounds
    return [float(value) for value in found["seconds"]]


if __name__ == "__main__":
    main()
