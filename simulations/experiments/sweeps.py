"""How far it scales, and what stragglers and unlike data cost: three sweeps, each with a picture.

    python simulations/experiments/sweeps.py [--folder simulations/experiments/sweeps]

Writes ``sweeps.json`` and three pictures. The scale is measured in a process for each size, so that
its memory is its own; the rest on digits, seed 1.
"""

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from fedsec.processors import processors
from fedsec_sim.history import Row
from fedsec_sim.lab import Lab
from fedsec_sim.partitions import Dirichlet, Drawn
from fedsec_sim.plots import curves, save
from fedsec_sim.simulate import simulate
from fedsec_sim.systems import Systems

PLAN = """
schema = 1
name = "sweep"
[task]
name = "digits"
options = {{ model = "mlp" }}
[training]
rounds = {rounds}
batch_size = 16
learning_rate = 0.1
momentum = 0.9
[nodes]
min_available = {nodes}
fraction = {fraction}
quorum = {quorum}
[round]
deadline_s = 1.0
reconnect_s = 0.5
evaluate_every = {evaluate_every}
"""
COHORT = 1000


class Laps:
    """Processor time of each round; other programs on the machine do not count."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def begin(self, about: Row) -> None:
        """See `fedsec_sim.record.Watcher`."""
        del about
        self._times.append(time.process_time())

    def round(self, row: Row) -> None:
        """See `fedsec_sim.record.Watcher`."""
        del row
        self._times.append(time.process_time())

    @property
    def median(self) -> float:
        """Of all rounds but the first, in seconds."""
        return round(float(np.median(np.diff(self._times)[1:])), 4)


def scale(nodes: int) -> dict[str, Any]:
    """Measures rounds of at most 1,000 nodes out of `nodes`, 16 examples each."""
    fraction = min(1.0, COHORT / nodes)
    plan = PLAN.format(rounds=4, nodes=nodes, fraction=fraction, quorum=1, evaluate_every=0)
    laps = Laps()
    simulate(plan, Lab(split=Drawn(16)), workers=1, watch=laps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"nodes": nodes, "round_cpu_s": laps.median, "peak_bytes": peak}


def stragglers(share: float) -> dict[str, Any]:
    """Trains with a share of nodes that take ten times as long and miss the deadline."""
    systems = Systems(examples_per_s=100, spread=0.3, stragglers=share)
    plan = PLAN.format(rounds=15, nodes=30, fraction=1.0, quorum=1, evaluate_every=1)
    history = simulate(plan, Lab(split=Dirichlet(0.5), systems=systems), workers=1)
    late = [len(row["failed"]) / 30 for row in history.rounds]  # type: ignore[arg-type]
    return {
        "stragglers": share,
        "late": round(float(np.mean(late)), 3),
        "simulated_s": history.last("simulated_s"),
        "accuracy": history.series("accuracy"),
    }


def heterogeneity(alpha: float) -> dict[str, Any]:
    """Trains on digits divided by Dirichlet(alpha)."""
    plan = PLAN.format(rounds=15, nodes=30, fraction=1.0, quorum=30, evaluate_every=1)
    history = simulate(plan, Lab(split=Dirichlet(alpha)), workers=1)
    return {"alpha": alpha, "accuracy": history.series("accuracy")}


def main() -> None:
    """Runs all and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).with_suffix(""))
    folder = parser.parse_args().folder
    context = multiprocessing.get_context("spawn")
    sizes = []
    for nodes in (100, 1_000, 10_000, 100_000):
        with context.Pool(1) as pool:
            sizes.append(pool.apply(scale, (nodes,)))
        print(sizes[-1])
    slow = [stragglers(share) for share in (0.0, 0.2, 0.5)]
    unlike = [heterogeneity(alpha) for alpha in (100.0, 1.0, 0.1)]
    folder.mkdir(parents=True, exist_ok=True)
    found = {"processors": processors(), "scale": sizes, "stragglers": slow, "alpha": unlike}
    (folder / "sweeps.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = {
        "processor seconds of a round": [(each["nodes"], each["round_cpu_s"]) for each in sizes],
        "peak memory, GB": [(each["nodes"], each["peak_bytes"] / 1e9) for each in sizes],
    }
    save(curves(lines, xlabel="nodes", ylabel="seconds, GB", log=True), folder / "scale.png")
    for name, key, runs in (("stragglers", "stragglers", slow), ("heterogeneity", "alpha", unlike)):
        named = {f"{key} {run[key]:g}": run["accuracy"] for run in runs}
        save(curves(named, ylabel="accuracy"), folder / f"{name}.png")


if __name__ == "__main__":
    main()
