"""Robust aggregation: processor time beside byzfl, wall time beside Flower's strategies.

byzfl 0.0.11 is in the extra ``dev``; where it lies in another environment, say which Python with
``--byzfl PYTHON`` or the variable FEDSEC_BYZFL_PYTHON. ``--against``, ``--rule`` and ``--size``
measure a part; ``--threads 2`` gives either side two threads and compares wall time.

Each side runs in processes of its own on the same rows, and the results are compared. The peer
"one read of the rows" is the bound that memory sets: there a ratio of 0.5 is twice its time.
"""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import common

Side = Literal["fedsec", "byzfl", "flower"]
WORKER = Path(__file__).with_name("robust_worker.py")
PEERS = ("byzfl", "read", "flower")
GIVE_UP_AFTER = 3000  # seconds for one side
AGREEMENT = 1e-4  # largest relative difference of results, for rules defined alike

SINGLE = (
    "mean", "mean, diagnosed", "median", "trimmed mean", "meamed", "krum", "krum, accurate",
    "multi-krum", "multi-krum, accurate", "geometric median", "centred clipping", "caf", "monna",
    "arc + mean",
)  # fmt: skip
MIXED = ("nnm", "nnm + trimmed mean", "nnm + multi-krum", "nnm + geometric median")
GRID = (
    (10, 100_000), (10, 1_000_000), (10, 5_000_000), (20, 100_000), (20, 1_000_000),
    (100, 100_000), (200, 100_000), (200, 1_000_000),
)  # fmt: skip
SHORT = 3_000_000  # entries that are summed within a millisecond
MANY = ("mean", "median", "trimmed mean", "krum", "geometric median", "centred clipping")
FLOWERS = ("mean", "median", "trimmed mean", "flower krum", "flower multi-krum", "bulyan")
# A row of chance, other choices among equals, or input that one side changes for the next run.
NOT_COMPARED = ("caf", "accurate", "minimum diameter", "bulyan", "arc")


@dataclass(frozen=True)
class Case:
    """One rule on one size of input.

    Attributes:
        rule: As `robust_worker.py` knows it.
        n: Rows.
        d: Entries in a row.
        f: Hostile rows.
        runs: How often it is timed.
    """

    rule: str
    n: int
    d: int
    f: int
    runs: int


@dataclass(frozen=True)
class Timing:
    """What one side did in one case; attributes as the worker writes them."""

    cpu: list[float]
    wall: list[float]
    sample: list[float]


def byzfl_cases(*, quick: bool, grid: bool) -> list[Case]:
    """Returns what is timed against byzfl."""
    if quick:
        single = [Case(rule, 50, 200_000, 10, 3) for rule in SINGLE]
        return [*single, *(Case(rule, 50, 200_000, 10, 1) for rule in MIXED)]
    cases = [Case(rule, 50, 1_000_000, 10, 3) for rule in SINGLE]
    cases += [Case(rule, 50, 1_000_000, 10, 1) for rule in MIXED]
    cases += [Case("minimum diameter", 16, 100_000, 3, 3)]
    if grid:
        for n, d in GRID:
            runs = 3 if n * d > SHORT else 21
            cases += [Case(rule, n, d, n // 5, runs) for rule in SINGLE]
        cases += [Case(rule, 1000, 100_000, 200, 3) for rule in MANY]
        cases += [Case(rule, 20, 1_000_000, 4, 1) for rule in MIXED]
        cases += [Case(rule, 100, 100_000, 20, 1) for rule in MIXED]
    return cases


def flower_cases(*, quick: bool) -> list[Case]:
    """Returns what is timed against Flower's `aggregate_train`."""
    n, d, runs = (20, 100_000, 15) if quick else (50, 1_000_000, 3)
    rules = [*FLOWERS, *(f"{rule}, as a strategy" for rule in FLOWERS)]
    return [Case(rule, n, d, (n - 3) // 4, runs) for rule in rules]


def measure(side: Side, python: str, threads: int, cases: list[Case]) -> list[Timing]:
    """Returns the timing of each case, from a process of its own."""
    job = {"side": side, "threads": threads, "cases": [asdict(case) for case in cases]}
    root = str(WORKER.parent.parent)
    environment = {**os.environ} if side == "byzfl" else {**os.environ, "PYTHONPATH": root}
    for name in ("OMP", "OPENBLAS", "MKL"):
        environment[f"{name}_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [python, str(WORKER)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=GIVE_UP_AFTER,
    )
    if done.returncode:
        sys.exit(f"{side} did not run:\n{done.stderr[-2000:]}")
    return [Timing(**json.loads(line)) for line in done.stdout.splitlines()]


def check_agreement(case: Case, ours: Timing, theirs: Timing) -> None:
    """Ends the program if the results differ where both sides define the rule alike."""
    if any(word in case.rule for word in NOT_COMPARED):
        return
    scale = max(abs(value) for value in theirs.sample)
    worst = max(abs(a - b) for a, b in zip(ours.sample, theirs.sample, strict=True))
    if not worst <= AGREEMENT * scale:
        sys.exit(f"{case}: the results differ by {worst:.3g} of {scale:.3g}")


def compare(
    cases: list[Case],
    peer: tuple[Side, str, str],
    *,
    metric: Literal["time", "cpu_time"],
    threads: int,
) -> list[common.Result]:
    """Returns the results of all cases against one peer.

    Args:
        cases: In this order.
        peer: Its side, its Python and its name with version.
        metric: Which clock decides.
        threads: Of either side.
    """
    side, python, name = peer
    ours = measure("fedsec", sys.executable, threads, cases)
    theirs = measure(side, python, threads, cases)
    results = []
    for case, mine, other in zip(cases, ours, theirs, strict=True):
        check_agreement(case, mine, other)
        mine_s, other_s = (mine.cpu, other.cpu) if metric == "cpu_time" else (mine.wall, other.wall)
        results.append(
            common.compare(
                label(case, threads), metric, "s", ours=mine_s, peer=other_s, peer_name=name
            )
        )
    return results


def bounds(cases: list[Case]) -> list[common.Result]:
    """Returns how near each rule is to one read of its rows."""
    size = (cases[0].n, cases[0].d)
    chosen = [case for case in cases if (case.n, case.d) == size]
    reads = Case("read", *size, 0, 5)
    read, *ours = measure("fedsec", sys.executable, 1, [reads, *chosen])
    shortest = min(len(read.cpu), *(len(each.cpu) for each in ours))
    return [
        common.compare(
            label(case, 1),
            "cpu_time",
            "s",
            ours=mine.cpu[:shortest],
            peer=read.cpu[:shortest],
            peer_name="one read of the rows",
        )
        for case, mine in zip(chosen, ours, strict=True)
    ]


def label(case: Case, threads: int) -> str:
    """Returns what and how big, for people."""
    end = "" if threads == 1 else f" threads={threads}"
    return f"{case.rule.removeprefix('flower ')} n={case.n} d={case.d} f={case.f}{end}"


def arguments() -> argparse.Namespace:
    """Returns what the user wants measured."""
    parser = common.arguments(__doc__.splitlines()[0])
    here = sys.executable if importlib.util.find_spec("byzfl") else None
    python = os.environ.get("FEDSEC_BYZFL_PYTHON", here)
    parser.add_argument("--byzfl", metavar="PYTHON", default=python, help="that has byzfl 0.0.11")
    parser.add_argument("--grid", action="store_true", help="more sizes against byzfl")
    parser.add_argument("--against", action="append", choices=PEERS, help="not all, but this one")
    parser.add_argument("--rule", action="append", help='not all, but this one, e.g. "nnm"')
    parser.add_argument("--size", action="append", help='not all, but this one, e.g. "10x100000"')
    parser.add_argument("--threads", type=int, help="of either side; beside Flower 1 and 2, if not")
    return parser.parse_args()


def chosen_cases(cases: list[Case], chosen: argparse.Namespace) -> list[Case]:
    """Returns those of the `cases` that the user wants."""
    return [
        case
        for case in cases
        if (not chosen.rule or case.rule.removeprefix("flower ") in chosen.rule)
        and (not chosen.size or f"{case.n}x{case.d}" in chosen.size)
    ]


def main() -> None:
    """Measures, prints and writes."""
    chosen = arguments()
    peers, threads = chosen.against or PEERS, chosen.threads or 1
    cases = chosen_cases(byzfl_cases(quick=chosen.quick, grid=chosen.grid), chosen)
    flowers = chosen_cases(flower_cases(quick=chosen.quick), chosen) if "flower" in peers else []
    if not cases and not flowers:
        sys.exit("robust.py: no case has this rule and this size; there are more with --grid")
    results = []
    if cases and "byzfl" in peers and chosen.byzfl:
        peer: tuple[Side, str, str] = ("byzfl", chosen.byzfl, "byzfl 0.0.11")
        metric: Literal["time", "cpu_time"] = "cpu_time" if threads == 1 else "time"
        results += compare(cases, peer, metric=metric, threads=threads)
    if cases and "read" in peers:
        results += bounds(cases)
    flower: tuple[Side, str, str] = ("flower", sys.executable, "Flower 1.41")
    several = (1, 2) if chosen.threads is None and not chosen.quick else (threads,)
    for each in several if flowers else ():
        results += compare(flowers, flower, metric="time", threads=each)
    common.publish(results, chosen.json)
    worst = min((r.ratio for r in results if "read" not in r.peer_name), default=math.inf)
    print(f"The least ratio against a peer is {worst:.2f}.")


if __name__ == "__main__":
    main()
