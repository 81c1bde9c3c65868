"""A round of real node processes over mutual TLS: secure aggregation off, semi-honest, malicious.

The same app in each case (`secure_app`): the node adds 1.0 to what it gets, so that the round is
all transport and protocol. Start-up is not counted. The peer of the secure cases is the round in
the open, so that a ratio of 0.5 is twice its time.
"""

import tempfile
from pathlib import Path

import common
from round_latency import read_report

from fedsec_sim.loopback import LoopbackFederation

APP = Path(__file__).parent / "secure_app"

PLAN = """
schema = 1
name = "secure rounds"
[app]
name = "secure"
[app.config]
rounds = {rounds}
size = {size}
nodes = {nodes}
plan = "{told}"
report = "{report}"
[nodes]
min_available = {nodes}
{section}
"""
SECTION = '[secure_aggregation]\nmode = "{mode}"\nclip = 10000.0\nmax_nodes = 20\n'
MODES = ("off", "semi-honest", "malicious")


def main() -> None:
    """Measures, prints and writes."""
    parser = common.arguments(__doc__ or "")
    parser.add_argument("--nodes", type=int, help="default: 20, quick: 5")
    parser.add_argument("--size", type=int, help="entries of the model (default: 1,000,000)")
    parser.add_argument("--rounds", type=int, default=5, help="of each case (default: 5)")
    chosen = parser.parse_args()
    nodes = chosen.nodes or (5 if chosen.quick else 20)
    size = chosen.size or (100_000 if chosen.quick else 1_000_000)
    with tempfile.TemporaryDirectory(prefix="fedsec-bench-") as work:
        seconds = measure(Path(work), nodes, size, chosen.rounds)
    rows = [
        common.compare(
            f"round n={nodes} d={size}, secure aggregation: {mode}",
            "time",
            "s",
            ours=seconds[mode],
            peer=seconds["off"],
            peer_name="the same round, off",
        )
        for mode in MODES
    ]
    common.publish(rows, chosen.json)
    for row in rows[1:]:
        print(f"{row.case}: {row.ours - row.peer:+.2f} s")


def measure(work: Path, nodes: int, size: int, rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each round, by mode; one federation for all."""
    found = {}
    with LoopbackFederation(work / "fedsec", apps={"secure": APP}) as federation:
        federation.add_nodes(nodes)
        federation.publish_roster()
        for mode in MODES:
            report, told = work / f"{mode}.json", work / f"{mode}.toml"
            section = "" if mode == "off" else SECTION.format(mode=mode)
            plan = PLAN.format(
                rounds=rounds,
                size=size,
                nodes=nodes,
                told="" if mode == "off" else told,
                report=report,
                section=section,
            )
            told.write_text(plan, encoding="utf-8")
            run_id = federation.submit(plan)
            federation.wait_for_run(run_id, seconds=400)
            found[mode] = read_report(report, rounds, tolerance=1e-2)
    return found


if __name__ == "__main__":
    main()
