"""How a cell of the map is learned: data, features, rounds, steps, and what follows the sums."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor, nn

from fedsec.tasks.digits import CLASSES, Digits
from fedsec.tasks.task import Examples, NodeData, Options, Task
from fedsec_sim.partitions import Iid
from fedsec_sim.population import Population
from fedsec_sim.workloads.images import Images
from fedsec_sim.workloads.pool import Pool, pool_of

SEED = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the nodes of a cell learn.

    Attributes:
        rounds: One release of each group in each of them.
        step: Learning rate of the coordinator, for clipped means of length at most 1.
        steps: Gradient steps of a node in a round, on all that it has.
        waves: Of the cosine transform of an image that are learned from, along each side; 0: from
            its pixels.
        momentum: Decay of a sum of its updates that a node keeps and sends.
        anneal: What the clip, and the noise with it, is multiplied by from round to round.
    """

    rounds: int
    step: float
    steps: int = 1
    waves: int = 0
    momentum: float = 0.0
    anneal: float = 1.0


@dataclass(frozen=True, slots=True)
class Waves:
    """Digits seen through the longest waves of their cosine transform: fewer numbers to release.

    The transform is public and the same for all; what is learned is a logistic regression on it.
    Source: Ahmed, Natarajan, Rao, "Discrete Cosine Transform", IEEE Trans. Computers 1974.

    Args:
        base: Images of `side` x `side` pixels.
        side: Pixels.
        waves: Along each side, 1..side.
    """

    base: Task
    side: int
    waves: int

    @property
    def name(self) -> str:
        """Of the task."""
        return self.base.name

    def make_model(self, options: Options, seed: int) -> nn.Module:
        """Returns the transform and a line, all weights zero."""
        flatten, standard, _ = self.base.make_model(options, seed).children()
        line = nn.Linear(self.waves**2, CLASSES)
        nn.init.zeros_(line.weight)
        nn.init.zeros_(line.bias)
        return nn.Sequential(flatten, standard, _Cosines(self.side, self.waves), line)

    def load(self, settings: Mapping[str, object]) -> NodeData:
        """See `Task`."""
        return self.base.load(settings)

    def pool(self) -> Pool:
        """Returns the training examples undivided."""
        return pool_of(self.base)

    def central_test(self) -> Examples | None:
        """See `Task`."""
        return self.base.central_test()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Task`."""
        return self.base.loss(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """See `Task`."""
        return self.base.metrics(outputs, targets)


class _Cosines(nn.Module):
    """The longest waves of images (n, side^2) -> (n, waves^2); an orthonormal map, not learned."""

    def __init__(self, side: int, waves: int) -> None:
        super().__init__()
        place, wave = torch.arange(side) + 0.5, torch.arange(waves)
        one = torch.cos(torch.pi / side * wave[:, None] * place) * (2 / side) ** 0.5
        one[0] /= 2**0.5
        self.map = torch.einsum("ax,by->xyab", one, one).reshape(side**2, waves**2)

    def forward(self, images: Tensor) -> Tensor:
        return images @ self.map


SIDES: Mapping[str, int] = MappingProxyType({"digits": 8, "mnist": 28})

RECIPES: Mapping[str, Mapping[tuple[str, int], Recipe]] = MappingProxyType(
    {
        "plain": {
            ("digits", 100): Recipe(10, 1.0),
            ("digits", 1000): Recipe(10, 5.0),
            ("mnist", 100): Recipe(20, 0.15, waves=14),
            ("mnist", 1000): Recipe(20, 0.4, waves=14),
        },
        "few-rounds": {("digits", 1000): Recipe(4, 4.0), ("mnist", 1000): Recipe(6, 0.4, waves=14)},
        "many-rounds": {("digits", 1000): Recipe(30, 2.0)},
        "waves": {("digits", 1000): Recipe(10, 3.0, waves=5)},
        "local-work": {("digits", 1000): Recipe(10, 5.0, steps=5)},
        "momentum": {("digits", 1000): Recipe(10, 1.0, momentum=0.8)},
        "few-waves": {
            ("digits", 1000): Recipe(4, 4.0, waves=5),
            ("mnist", 1000): Recipe(4, 0.6, waves=10),
        },
        "annealed": {("digits", 1000): Recipe(4, 6.0, waves=5, anneal=0.7)},
        "small-steps": {("digits", 1000): Recipe(30, 5.0 / 3)},
        "three-waves": {("digits", 1000): Recipe(3, 5.0, waves=5)},
        "two-waves": {("digits", 1000): Recipe(2, 6.0, waves=5)},
        "two-rounds": {("digits", 1000): Recipe(2, 6.0)},
    }
)
"""By name, data and number of nodes."""


@cache
def task_of(data: str, waves: int) -> Task:
    """Returns what is learned."""
    base: Task = Digits() if data == "digits" else Images("mnist", made=False)
    return Waves(base, SIDES[data], waves) if waves else base


@cache
def population_of(data: str, nodes: int, seed: int) -> Population:
    """Returns the nodes: the examples are dealt out at random, each to one node."""
    return Population(Iid()(pool_of(task_of(data, 0)), nodes, seed))
