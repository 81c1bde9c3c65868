"""Simulated node-updates per second, beside Flower with Ray, pfl and byzfl on the same work.

A   100 nodes, scikit-learn's digits by Dirichlet(0.5), MLP 64-64-10, 20 a round, batches of 16
B   1,000 nodes with 60 images of 28 x 28 each, LeNet, 50 a round, batches of 20

Each side runs in a process of its own, on the same examples, one epoch of SGD a round, without
evaluation. ``cpu_time`` is processor time for a node-update, one process each; ``rate`` is node-
updates in a second of wall time. pfl 0.6 and byzfl 0.0.11 need environments of their own: say which
Python with --pfl and --byzfl, or FEDSEC_PFL_PYTHON and FEDSEC_BYZFL_PYTHON. To make one:

    python3.11 -m venv pfl && pfl/bin/pip install torch==2.13.0 pfl==0.6.0
    python3.11 -m venv byzfl && byzfl/bin/pip install torch==2.13.0 numpy scipy
    byzfl/bin/pip install --no-deps byzfl==0.0.11

Flower is left out with --no-flower: starting Ray takes longer than all the rest.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import common
import numpy as np
from simulation_worker import plan_text

from fedsec.plan import FederationPlan
from fedsec.tasks.digits import Digits
from fedsec_sim.population import Parts, load_population
from fedsec_sim.workloads.images import made_images

WORKER = Path(__file__).with_name("simulation_worker.py")
PARTS = ("A", "B", "scale")
GIVE_UP_AFTER = 1800  # seconds for one side


@dataclass(frozen=True)
class Work:
    """What one side is to do.

    Attributes:
        case: ``"A"`` or ``"B"``.
        rounds: Of training; the first one is not in the steady rate.
        options: For that side only.
    """

    case: str
    rounds: int
    options: dict[str, object]


@dataclass(frozen=True)
class Done:
    """What a side measured, round by round but the first.

    Attributes:
        cpu: Processor seconds for a node-update.
        rate: Node-updates in a second.
        whole: Node-updates in a second, from the call to its end.
        peak: Bytes of memory, at most.
    """

    cpu: list[float]
    rate: list[float]
    whole: float
    peak: int


def run(side: str, python: str, work: Work, data: Path) -> Done:
    """Runs one side in a process, and an environment, of its own."""
    root = WORKER.parent.parent
    job = {"side": side, "data": str(data), **asdict(work)}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    if side in {"fedsec", "flower", "scale", "gemm"}:
        environment["PYTHONPATH"] = str(root)
    done = subprocess.run(
        [python, str(WORKER)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=GIVE_UP_AFTER,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"cpu"')]
    if done.returncode or not lines:
        sys.exit(f"{side} did not run {work.case}:\n{done.stderr[-3000:]}")
    return Done(**json.loads(lines[-1]))


def write_data(case: str, path: Path) -> None:
    """Writes the examples of every node, the same for all sides."""
    if case == "A":
        plan = FederationPlan.parse(plan_text("A", 2))
        settings = {"split": "dirichlet", "alpha": 0.5}
        parts = load_population(Digits(), plan.nodes.min_available, settings).train
    else:
        parts = Parts.joined([made_images(node, 60) for node in range(1000)])
    np.savez(
        path,
        inputs=parts.pool.inputs.numpy(),
        targets=parts.pool.targets.numpy(),
        rows=parts.rows,
        starts=parts.starts,
    )


def pair(
    case: str, metric: common.Metric, ours: list[float], theirs: list[float], name: str
) -> common.Result:
    """Returns the comparison of as many values as both sides have."""
    count = min(len(ours), len(theirs))
    unit = "s" if metric == "cpu_time" else "updates/s"
    return common.compare(
        case, metric, unit, ours=ours[:count], peer=theirs[:count], peer_name=name
    )


def against_peers(
    case: str, chosen: dict[str, str], data: Path, quick: bool
) -> list[common.Result]:
    """Returns a workload beside every peer that is there."""
    rounds = {"A": 20 if quick else 50, "B": 3 if quick else 6}[case]
    results = []
    alone = Work(case, rounds, {"workers": 1})
    for side, name in (("pfl", "pfl 0.6.0, one process"), ("byzfl", "byzfl 0.0.11")):
        if side in chosen and (case, side) != ("B", "byzfl"):
            ours = run("fedsec", sys.executable, alone, data)
            theirs = run(side, chosen[side], Work(case, rounds, {}), data)
            results.append(pair(f"{case} one process", "cpu_time", ours.cpu, theirs.cpu, name))
    if "flower" in chosen:
        ours = run("fedsec", sys.executable, Work(case, rounds, {}), data)
        theirs = run("flower", sys.executable, Work(case, rounds, {}), data)
        name = "Flower 1.41.0, Ray"
        results.append(pair(f"{case} steady", "rate", ours.rate, theirs.rate, name))
        results.append(pair(f"{case} with start", "rate", [ours.whole], [theirs.whole], name))
    return results


def defended(data: dict[str, Path], quick: bool) -> list[common.Result]:
    """Returns trimmed mean under ALIE beside the plain mean, on B."""
    rounds = 3 if quick else 6
    plain = run("fedsec", sys.executable, Work("B", rounds, {"workers": 1}), data["B"])
    options: dict[str, object] = {"workers": 1, "attack": "alie", "rule": "trimmed-mean"}
    attacked = run("fedsec", sys.executable, Work("B", rounds, options), data["B"])
    name = "fedsec, plain mean, no attack"
    return [pair("B trimmed mean, ALIE", "cpu_time", attacked.cpu, plain.cpu, name)]


def scale(data: dict[str, Path], quick: bool) -> list[common.Result]:
    """Returns a round of 1,000 out of many nodes, beside what it may take: 1 s and 1.5 GB."""
    nodes = 10_000 if quick else 100_000
    done = run("scale", sys.executable, Work("A", 4, {"nodes": nodes}), data["A"])
    seconds = [1000 / rate for rate in done.rate]
    case, limit = f"{nodes} nodes, 1000 in a round", "what it may take"
    return [
        common.compare(case, "time", "s", ours=seconds, peer=[1.0] * len(seconds), peer_name=limit),
        common.compare(case, "memory", "B", ours=[float(done.peak)], peer=[1.5e9], peer_name=limit),
    ]


def bound(data: dict[str, Path], quick: bool) -> list[common.Result]:
    """Returns how near B comes to matrix products of the same size at their fastest."""
    limit = run("gemm", sys.executable, Work("B", 2, {}), data["B"])
    rounds = 3 if quick else 6
    ours = run("fedsec", sys.executable, Work("B", rounds, {"workers": 1}), data["B"])
    return [pair("B one process", "cpu_time", ours.cpu, limit.cpu, "the products alone, 1024^3")]


def main() -> None:
    """Measures, prints and writes."""
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--pfl", metavar="PYTHON", default=os.environ.get("FEDSEC_PFL_PYTHON"))
    parser.add_argument("--byzfl", metavar="PYTHON", default=os.environ.get("FEDSEC_BYZFL_PYTHON"))
    parser.add_argument("--no-flower", action="store_true", help="leave Flower with Ray out")
    parser.add_argument("--only", choices=PARTS, help="not all, but one workload, or the scale")
    asked = parser.parse_args()
    peers = {"pfl": asked.pfl, "byzfl": asked.byzfl}
    chosen = {side: python for side, python in peers.items() if python}
    if not asked.no_flower:
        chosen["flower"] = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        data = {case: Path(folder, f"{case}.npz") for case in "AB"}
        for case, path in data.items():
            write_data(case, path)
        results = []
        for part in [asked.only] if asked.only else PARTS:
            if part == "scale":
                results += scale(data, asked.quick)
                continue
            results += against_peers(part, chosen, data[part], asked.quick)
            if part == "B":
                results += [*defended(data, asked.quick), *bound(data, asked.quick)]
    common.publish(results, asked.json)


if __name__ == "__main__":
    main()
