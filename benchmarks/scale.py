"""The time of a round against the number of nodes, and against the number of parameters.

Nodes: 3 to 200 light nodes (`light_nodes`: they send back what they get), 10,000 float32 each way,
over a real coordinator and a real ServerApp. Parameters: 3 real nodes with agents and workers, and
`roundtrip_app`. The "peer" of a row is what the smallest row of its kind comes to if it is scaled
linearly: above 1, fixed costs are shared; below 1, something grows faster than the work.
"""

import json
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

import common
from light_fleet import crowds
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from fedsec_sim.loopback import LoopbackFederation

APP = Path(__file__).parent / "roundtrip_app"
LIGHT_SIZE = 10_000
PLAN = """
schema = 1
name = "scale"
[app]
name = "roundtrip"
config = {{ rounds = {rounds}, size = {size}, nodes = {nodes}, report = "{report}" }}
[nodes]
min_available = {nodes}
[round]
deadline_s = 600
"""


def main() -> None:
    """Measures, prints, plots and writes."""
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw both curves there")
    chosen = parser.parse_args()
    counts = (3, 10, 30) if chosen.quick else (3, 10, 30, 100, 200)
    sizes = (
        (10_000, 1_000_000)
        if chosen.quick
        else (10_000, 100_000, 1_000_000, 10_000_000, 50_000_000)
    )
    rounds = 3 if chosen.quick else 7
    with tempfile.TemporaryDirectory(prefix="fedsec-bench-") as name:
        work = Path(name)
        by_nodes = {count: of_light_nodes(work / f"n{count}", count, rounds) for count in counts}
        by_size = of_sizes(work / "sizes", sizes, rounds)
    results = [
        *rows(by_nodes, "round n={} light nodes d=10000"),
        *rows(by_size, "round n=3 d={} float32 up and down"),
    ]
    common.publish(results, chosen.json)
    if chosen.plot:
        draw(by_nodes, by_size, chosen.plot)


def rows(measured: dict[int, list[float]], case: str) -> list[common.Result]:
    """Returns a row for each number, beside the smallest one scaled linearly."""
    smallest = min(measured)
    return [
        common.compare(
            case.format(number),
            "time",
            "s",
            ours=seconds,
            peer=[each * number / smallest for each in measured[smallest]],
            peer_name=f"{smallest} scaled linearly",
        )
        for number, seconds in measured.items()
    ]


def of_light_nodes(work: Path, count: int, rounds: int) -> list[float]:
    """Returns seconds of each round with so many light nodes."""
    report = work.with_suffix(".json")
    with (
        LoopbackFederation(work, apps={"roundtrip": APP}) as federation,
        crowds(federation, count),
    ):
        run_id = federation.submit(
            PLAN.format(rounds=rounds, size=LIGHT_SIZE, nodes=count, report=report)
        )
        federation.wait_for_run(run_id, seconds=280)
    return _seconds(report)


def of_sizes(work: Path, sizes: tuple[int, ...], rounds: int) -> dict[int, list[float]]:
    """Returns seconds of each round of three real nodes, by number of parameters."""
    found = {}
    with LoopbackFederation(work, apps={"roundtrip": APP}) as federation:
        federation.add_nodes(3)
        for size in sizes:
            report = work / f"{size}.json"
            run_id = federation.submit(
                PLAN.format(rounds=rounds, size=size, nodes=3, report=report)
            )
            federation.wait_for_run(run_id, seconds=280)
            found[size] = _seconds(report)
    return found


def _seconds(report: Path) -> list[float]:
    seconds: list[float] = json.loads(report.read_text("utf-8"))["seconds"]
    return seconds


def draw(by_nodes: dict[int, list[float]], by_size: dict[int, list[float]], file: Path) -> None:
    """Draws both curves, with the slope of a straight line beside them."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, measured, label in (
        (axes[0], by_nodes, "light nodes, 10,000 parameters"),
        (axes[1], by_size, "parameters, 3 nodes"),
    ):
        numbers = sorted(measured)
        medians = [statistics.median(measured[each]) for each in numbers]
        axis.loglog(numbers, medians, marker="o", label="median round")
        last = medians[-1]
        axis.loglog(
            numbers,
            [last * each / numbers[-1] for each in numbers],
            linestyle="--",
            color="grey",
            label="linear",
        )
        axis.set_xlabel(label)
        axis.set_ylabel("seconds")
        axis.set_xticks(numbers, [_short(each) for each in numbers])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(visible=True, which="major", alpha=0.3)
        axis.legend()
        assert all(a < b for a, b in pairwise(numbers))
    figure.savefig(file, dpi=120)


def _short(number: int) -> str:
    """Returns a number for the axis of a plot, e.g. 10k or 50M."""
    for unit, each in (("M", 1_000_000), ("k", 1_000)):
        if number >= each:
            return f"{number / each:g}{unit}"
    return str(number)


if __name__ == "__main__":
    main()
