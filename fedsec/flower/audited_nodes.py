"""Privacy that nodes add themselves, as an audit sees it: alone, by shares, and in training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedsec.errors import ConfigError
from fedsec.flower.audited import Planned, without_figures
from fedsec.flower.messages import Heading
from fedsec.flower.perturb import Perturb
from fedsec.flower.strategy import Matrix
from fedsec.flower.sums import noised
from fedsec.plan import FederationPlan
from fedsec.plan.figures import figures_noise, joined_of
from fedsec.plan.privacy import honest, population
from fedsec.plan.visibility import group_size
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.keystream import Keystream
from fedsec.tasks.private_training import PrivateTraining
from fedsec.tasks.task import Examples, NodeData, Options
from fedsec.tasks.training import LocalTraining
from fedsec.vectors import Vector

_EXAMPLES = 64


@dataclass(frozen=True)
class LocalMechanism(Planned):
    """What one node sends.

    Args:
        plan: With ``privacy.model = "local"``.
    """

    @property
    def units(self) -> int:
        """See `Mechanism`: it stands alone."""
        return 1

    @property
    def survivors(self) -> tuple[int, ...]:
        """See `Mechanism`."""
        return (1,)

    def sensitivity(self, survivors: int, clip: float) -> float:
        """See `Mechanism`: another update, or other figures, are as far off as they can be."""
        del survivors
        return 2 * clip

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`."""
        (row,) = without_figures(rows[:1], self.privacy)
        return Perturb.of(self.privacy)(row, source)[: rows.shape[1]]


@dataclass(frozen=True)
class LocalFigures(LocalMechanism):
    """What one node tells of its figures.

    Args:
        plan: With ``privacy.model = "local"`` and ``privacy.metrics``.
    """

    @property
    def multiplier(self) -> float:
        """See `Mechanism`."""
        return figures_noise(self.privacy)

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`: of figures (1, k), over their ranges, on an update of one entry."""
        perturb = Perturb.of(self.privacy)
        if perturb.figures is None:
            raise ConfigError("the plan tells no figures of nodes: privacy.metrics is left out")
        told = perturb.figures.encode(perturb.figures.decode(rows[0].astype(np.float64)))
        return perturb(np.append(np.zeros(1, np.float32), told), source)[1:]


@dataclass(frozen=True)
class DistributedMechanism(Planned):
    """The sum of what nodes send, each with its share of the noise; of one group, if any.

    Args:
        plan: With ``privacy.model = "distributed"``.
    """

    @property
    def units(self) -> int:
        """See `Mechanism`."""
        size = group_size(self.plan)
        return population(self.plan) if size is None else size

    @property
    def survivors(self) -> tuple[int, ...]:
        """See `Mechanism`: the fewest honest shares, and all."""
        return tuple(sorted({honest(self.plan), self.units}))

    def sensitivity(self, survivors: int, clip: float) -> float:
        """See `Mechanism`: of a mean over all units, whoever is there."""
        del survivors
        return clip / self.units

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`."""
        return self._mean(self._sent(rows), source)[: rows.shape[1]]

    def change(self, rows: Matrix, other: Matrix) -> float:
        """See `Planned`: of the integers before noise; the same chance rounds them."""
        sent, changed = self._sent(rows), self._sent(other)
        coded = noised(self.plan, sent.shape[1], _turn(self.plan))
        total = np.zeros(coded.length, np.int64)
        for row, moved in zip(sent, changed, strict=True):
            if not np.array_equal(row, moved):
                total += coded.quantize(row, Keystream()) - coded.quantize(moved, Keystream())
        return float(np.linalg.norm(total)) / coded.scale / self.units

    def _mean(self, sent: Matrix, source: Keystream) -> Vector:
        coded = noised(self.plan, sent.shape[1], _turn(self.plan))
        total = coded.encode(sent[0], source)
        for row in sent[1:]:
            total = total + coded.encode(row, source)
        mean: Vector = (coded.decode(total) / self.units).astype(np.float32)
        return mean

    def _sent(self, rows: Matrix) -> Matrix:
        """Returns what nodes with these updates hand to the sum."""
        return self._joined(without_figures(rows, self.privacy))

    def _joined(self, rows: Matrix) -> Matrix:
        joined = joined_of(self.plan)
        return rows if joined is None else np.array([joined(row) for row in rows])


@dataclass(frozen=True)
class WholeSum(DistributedMechanism):
    """The same sum, figures of nodes included: one noise covers both.

    Args:
        plan: With ``privacy.model = "distributed"`` and ``privacy.metrics``.
    """

    @property
    def multiplier(self) -> float:
        """See `Mechanism`: of what a node changes in all."""
        return self.privacy.noise_multiplier

    def _sent(self, rows: Matrix) -> Matrix:
        """Returns what nodes with these updates and encoded figures (m, d + k) hand to the sum."""
        return self._joined(rows)


@dataclass(frozen=True)
class ExampleMechanism(Planned):
    """A step of DP-SGD on one node, whose examples' gradients are the rows.

    Args:
        plan: With ``privacy.model = "example"``.
        train: What the node does in a round.
    """

    train: Callable[[LocalTraining, float, float], PrivateTraining] = PrivateTraining

    @property
    def units(self) -> int:
        """See `Mechanism`."""
        return _EXAMPLES

    @property
    def survivors(self) -> tuple[int, ...]:
        """See `Mechanism`."""
        return (_EXAMPLES,)

    @property
    def replaces(self) -> bool:
        """See `Mechanism`: an example is there or is not."""
        return False

    @property
    def price(self) -> Price:
        """See `Mechanism`: of one step in which every example takes part."""
        return Price(Gaussian(self.multiplier))

    def sensitivity(self, survivors: int, clip: float) -> float:
        """See `Mechanism`: of a mean over all units, whoever is there."""
        del survivors
        return clip / self.units

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`."""
        privacy = self.privacy
        step = LocalTraining(epochs=None, steps=1, batch_size=self.units, learning_rate=1.0)
        task = _Inputs(rows)
        model, data = task.make_model({}, 0), task.load({}).train
        self.train(step, privacy.clip, privacy.noise_multiplier)(task, model, data, 0, source)
        moved: Vector = -model.weight.detach().numpy()[0]
        return moved


@dataclass(frozen=True, eq=False)
class _Inputs:
    """A task in which the gradient of an example is its input, one of the rows."""

    rows: Matrix
    name: str = "inputs"

    def make_model(self, options: Options, seed: int) -> nn.Linear:
        del options, seed
        model = nn.Linear(self.rows.shape[1], 1, bias=False)
        with torch.no_grad():
            model.weight.zero_()
        return model

    def load(self, settings: Mapping[str, object]) -> NodeData:
        del settings
        examples = Examples(torch.from_numpy(self.rows), torch.ones(len(self.rows)))
        return NodeData(examples, examples)

    def central_test(self) -> Examples | None:
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] * targets).mean()

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        del outputs, targets
        return {}


def _turn(plan: FederationPlan) -> Heading:
    return Heading(1, 1, plan.digest)
