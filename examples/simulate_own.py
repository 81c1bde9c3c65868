"""Your own model and data in a simulation: a task is a small class, nodes are rows of a pool."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fedsec.tasks.digits import Digits
from fedsec.tasks.task import Examples, Options
from fedsec_sim.lab import Lab
from fedsec_sim.population import Parts, Population
from fedsec_sim.simulate import simulate

PLAN = """
schema = 1
name = "two moons"
task = { name = "simulate_own:Moons", data = "none" }
[training]
rounds = 20
learning_rate = 0.5
[nodes]
min_available = 30
"""


@dataclass(frozen=True)
class Moons(Digits):
    """Two classes of points that no line divides; loss and accuracy as for digits."""

    name: str = "moons"

    def make_model(self, _options: Options, /, seed: int) -> nn.Module:
        """Returns a small network."""
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))

    def central_test(self) -> Examples:
        """Returns points that no node has."""
        return moons(500, seed=2)


def moons(count: int, seed: int) -> Examples:
    """Returns points on two half circles, with noise."""
    rng = np.random.default_rng(seed)
    side, angle = rng.integers(0, 2, count), rng.uniform(0, np.pi, count)
    x, y = np.cos(angle), np.sin(angle)
    points = np.stack([np.where(side, 1 - x, x), np.where(side, 0.5 - y, y)], axis=1)
    points += rng.normal(0, 0.1, points.shape)
    return Examples(torch.from_numpy(points).float(), torch.from_numpy(side))


if __name__ == "__main__":
    pool = moons(1500, seed=1)
    strips = np.array_split(np.argsort(pool.inputs[:, 0].numpy()), 30)  # each node sees one
    lab = Lab(population=Population(Parts.of(pool, strips)))
    for number, accuracy in simulate(PLAN, lab, task=Moons()).series("accuracy")[::4]:
        print(f"round {number:2}: accuracy {accuracy:.3f}")
