"""byzfl's heatmap in part: the cells of `byzfl.toml` here and in byzfl 0.0.11, in turn.

    python simulations/experiments/byzfl/run.py --byzfl PYTHON

PYTHON is that of an environment with byzfl, or stands in FEDSEC_BYZFL_PYTHON; how to make one says
`benchmarks/simulation.py`. Both sides start from one model, with the same images for each honest
node; batches are each side's own, and so are the steps of the adversaries' line search. What is
done is kept in ``cells/`` and not run again. Writes ``results.json``, ``tables.md`` and
``heatmap.png``.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from fedsec.tasks.arrays import get_arrays
from fedsec.vectors import Layout
from fedsec_sim.grids.grid import Cell, read_grid
from fedsec_sim.grids.running import lab_of, plan_of, run_cell
from fedsec_sim.plots import paint, save
from fedsec_sim.workloads.images import TRAIN, mnist, mnist_task

HERE = Path(__file__).parent
GRID = HERE.with_suffix(".toml")
SIDES = ("fedsec", "byzfl")
TENTH = 0.1  # what is sent here is a tenth of what byzfl's clients send, turned round
ATTACKS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "ipm": ("SignFlipping", {}),
    # Where its search begins, and by how much: as ours does, instead of at 0 and by 10.
    "optimised-ipm": ("Optimal_InnerProductManipulation", {"start": 0.1, "delta": 0.1}),
    "optimised-alie": ("Optimal_ALittleIsEnough", {"start": 1.0, "delta": 1.0}),
}
Done: TypeAlias = dict[str, Any]


class Peer:
    """byzfl in a process of its own.

    Args:
        python: Of its environment.
        folder: For the data that it reads.
    """

    def __init__(self, python: str, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [python, str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._asks = cast("IO[str]", self._process.stdin)
        self._answers = cast("IO[str]", self._process.stdout)

    def __call__(self, cell: Cell) -> Done:
        """Runs a cell there."""
        self._asks.write(json.dumps(self._job(cell)) + "\n")
        self._asks.flush()
        answer = self._answers.readline()
        if not answer:
            sys.exit(f"byzfl ended with {self._process.wait()}")
        found: Done = json.loads(answer)
        return found

    def end(self) -> None:
        """Ends the process."""
        self._asks.close()
        self._process.wait()

    def _job(self, cell: Cell) -> Done:
        plan, _ = plan_of(cell)
        wanted, training = plan.learning
        path = self._folder / f"{cell.labels['split']}-{cell.seed}.npz"
        if not path.exists():
            write_data(cell, mnist_task.make_model(wanted.options, training.seed), path)
        attack, search = ATTACKS[cell.attack["name"]]
        tries = {"evals": cell.attack["evaluations"]} if search else {}
        return {
            "data": str(path),
            "seed": cell.seed,
            "steps": training.rounds,
            "batch": training.batch_size,
            "rate": training.learning_rate / (1 - cell.momentum),
            "momentum": cell.momentum,
            "byzantine": cell.byzantine,
            "attack": {"name": attack, "parameters": {**search, **tries}},
            "pipeline": pipeline(cell),
        }


def pipeline(cell: Cell) -> Done:
    """Returns a cell's rule and pre-aggregations as byzfl writes them."""
    clip, _nnm = cell.rule["before"]
    if cell.rule["rule"] == "trimmed-mean":
        rule: Done = {"name": "TrMean", "parameters": {"f": cell.byzantine}}
    else:
        options = cell.rule["options"]
        smoothing = round(options["smoothing"] / TENTH, 9)
        rule = {
            "name": "GeometricMedian",
            "parameters": {"nu": smoothing, "T": options["iterations"]},
        }
    before = [
        {"name": "Clipping", "parameters": {"c": round(clip["norm"] / TENTH, 9)}},
        {"name": "NNM", "parameters": {"f": cell.byzantine}},
    ]
    return {"aggregator_info": rule, "pre_agg_list": before}


def write_data(cell: Cell, model: nn.Module, path: Path) -> None:
    """Writes the model's last layer, and what comes before it of all images.

    That layer has all the weights; the others bring pixels to a scale.
    """
    arrays = get_arrays(model)
    before, pool, test = cast("nn.Sequential", model)[:-1], mnist(), range(TRAIN, len(mnist()))
    train = lab_of(cell).populate(plan_of(cell)[0], mnist_task).train
    honest = len(train.sizes) - cell.byzantine
    np.savez(
        path,
        first=Layout.of(arrays).flatten(arrays),
        inputs=before(train.pool.inputs).numpy(),
        targets=train.pool.targets.numpy(),
        rows=train.rows,
        starts=train.starts[: honest + 1],
        test_inputs=before(pool.inputs[test]).numpy(),
        test_targets=pool.targets[test].numpy(),
    )


def ours(cell: Cell) -> Done:
    """Runs a cell here."""
    begun = time.process_time()
    outcome = run_cell(cell, research=False, commit="")
    if outcome.value is None:
        sys.exit(f"{outcome.labels}: {outcome.status}: {outcome.reason}")
    return {"accuracy": outcome.value, "cpu_s": round(time.process_time() - begun, 3)}


def run_both(cells: Sequence[Cell], python: str, folder: Path) -> list[Done]:
    """Returns what came of each cell on both sides; keeps it in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    mnist()  # read once; neither side's time counts it
    with tempfile.TemporaryDirectory() as data:
        peer = Peer(python, Path(data))
        for number, cell in enumerate(cells, 1):
            kept = folder / f"{cell.key}.json"
            if not kept.exists():
                done = {"fedsec": ours(cell), "byzfl": peer(cell)}
                print(f"{number}/{len(cells)}", *cell.labels.values(), done, flush=True)
                kept.write_text(json.dumps(done), encoding="utf-8")
            labels = {axis: cell.labels[axis] for axis in ("rule", "byzantine", "split", "attack")}
            found.append({**labels, "seed": cell.seed, **json.loads(kept.read_text("utf-8"))})
        peer.end()
    return found


def distinct(found: Iterable[Done], key: str) -> list[str]:
    """Returns the different values, in their order."""
    return list(dict.fromkeys(str(each[key]) for each in found))


def worst(found: Sequence[Done], side: str, **where: str) -> tuple[float, float]:
    """Returns the accuracy under the worst attack: mean and standard deviation over seeds."""
    here = [each for each in found if all(each[key] == value for key, value in where.items())]
    seeds = min(
        (
            [each[side]["accuracy"] for each in here if each["attack"] == a]
            for a in distinct(here, "attack")
        ),
        key=statistics.fmean,
    )
    return statistics.fmean(seeds), statistics.stdev(seeds) if len(seeds) > 1 else math.nan


def picture(found: Sequence[Done]) -> Figure:
    """Returns a heatmap for each rule and side."""
    rules, splits = distinct(found, "rule"), distinct(found, "split")
    counts = distinct(found, "byzantine")
    figure = Figure(figsize=(7.2, 1.0 + 1.7 * len(rules)), layout="constrained")
    grid = figure.subplots(len(rules), len(SIDES), squeeze=False)
    for line, rule in zip(grid, rules, strict=True):
        for axes, side in zip(line, SIDES, strict=True):
            values = [
                [worst(found, side, rule=rule, split=s, byzantine=f)[0] for s in splits]
                for f in counts
            ]
            names = [f"f = {f}" for f in counts]
            paint(axes, np.array(values), rows=names, columns=splits)
            axes.set_title(f"{rule}, {side}", fontsize=9)
    return figure


def tables(found: Sequence[Done]) -> str:
    """Returns both sides' accuracies beside each other, and how long they took."""
    lines = [
        "# byzfl's heatmap in part, here and in byzfl 0.0.11",
        "",
        "Made by `python simulations/experiments/byzfl/run.py`.",
        "",
        "| rule | f | split | fedsec | byzfl | apart | standard error |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule in distinct(found, "rule"):
        for count in distinct(found, "byzantine"):
            for split in distinct(found, "split"):
                where = {"rule": rule, "byzantine": count, "split": split}
                (mine, off), (theirs, its) = (worst(found, side, **where) for side in SIDES)
                error = math.hypot(off, its) / math.sqrt(len(distinct(found, "seed")))
                numbers = f"{mine:.3f} +- {off:.3f} | {theirs:.3f} +- {its:.3f}"
                numbers += f" | {mine - theirs:+.3f} | {error:.3f}"
                lines.append(f"| {rule} | {count} | {split} | {numbers} |")
    said = (
        f"Accuracy under the worst of {len(distinct(found, 'attack'))} attacks, mean and standard "
        f"deviation over {len(distinct(found, 'seed'))} seeds."
    )
    return "\n".join([*lines, "", said, "", *times(found)]) + "\n"


def times(found: Sequence[Done]) -> list[str]:
    """Returns processor seconds of all cells of an attack on both sides."""
    lines = ["| attack | fedsec | byzfl | times faster |", "|---|---|---|---|"]
    groups: Mapping[str, Callable[[Done], bool]] = {
        attack: lambda each, attack=attack: each["attack"] == attack
        for attack in distinct(found, "attack")
    } | {"all": lambda _: True}
    for name, chosen in groups.items():
        spent = [sum(e[side]["cpu_s"] for e in found if chosen(e)) for side in SIDES]
        lines.append(
            f"| {name} | {spent[0]:.0f} s | {spent[1]:.0f} s | {spent[1] / spent[0]:.1f} |"
        )
    return [*lines, "", "Processor time of one thread, cell by cell in turn."]


def main() -> None:
    """Runs what is missing and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--byzfl", metavar="PYTHON", default=os.environ.get("FEDSEC_BYZFL_PYTHON"))
    parser.add_argument("--first", type=int, metavar="N", help="only N cells, seed by seed")
    parser.add_argument("--folder", type=Path, default=HERE)
    asked = parser.parse_args()
    if not asked.byzfl:
        sys.exit("say which Python has byzfl: --byzfl PYTHON, or FEDSEC_BYZFL_PYTHON")
    _, cells = read_grid(GRID)
    cells.sort(key=lambda cell: cell.seed)
    found = run_both(cells[: asked.first], asked.byzfl, asked.folder / "cells")
    (asked.folder / "tables.md").write_text(tables(found), encoding="utf-8")
    rows = ",\n ".join(json.dumps(each) for each in found)
    (asked.folder / "results.json").write_text(f"[\n {rows}\n]\n", encoding="utf-8")
    save(picture(found), asked.folder / "heatmap.png")


if __name__ == "__main__":
    main()
