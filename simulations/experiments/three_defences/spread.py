"""How much honest groups differ, and what that lets hostile ones do to a median.

    python simulations/experiments/three_defences/spread.py

For each round of a run without attack and noise, over groups of 5: the length of the groups' mean,
how far groups are from it (root mean square), and how far along it lies the median; and where it
would lie if 5 % of the nodes, each in a group of its own, moved it against the mean in every
coordinate. Below 0 the model is led backwards.
"""

import numpy as np

from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.combination import Combined, Weighted
from fedsec.vectors import Arrays
from fedsec_sim.simulate import simulate
from fedsec_sim.three_defences.cell import Cell
from fedsec_sim.three_defences.plans import plan_of
from fedsec_sim.three_defences.recipes import task_of
from fedsec_sim.three_defences.running import lab_of

SHARE = 0.05


def told(attempt: Attempt, collected: Collected, memory: Arrays) -> Combined:
    """Returns the mean, after a line about the rows."""
    rows, nodes = collected.rows, len(attempt.cohort)
    mean = rows.mean(axis=0)
    spread = float(np.sqrt(np.square(rows - mean).sum(axis=1).mean()))
    length = float(np.linalg.norm(mean))
    hostile = SHARE * nodes
    quantile = 0.5 + hostile / (2 * (len(rows) - hostile))
    low, high = np.quantile(rows, [1 - quantile, quantile], axis=0)
    moved = np.where(mean > 0, low, high)
    along = [float(each @ mean) / length for each in (np.median(rows, axis=0), moved)]
    print(
        f"n={nodes} round={attempt.round:2}  mean {length:.2f}  spread {spread:.2f}  "
        f"median {along[0]:.2f}  moved median {along[1]:+.2f}",
        flush=True,
    )
    return Weighted()(attempt, collected, memory)


def main() -> None:
    """Runs the command."""
    for nodes in (100, 1000):
        cell = Cell("digits", nodes, None, 0, 0, "none", 5, "median")
        task = task_of(cell.data, cell.how.waves)
        simulate(plan_of(cell), lab_of(cell), task=task, combine=told, engine="vmap", workers=1)


if __name__ == "__main__":
    main()
