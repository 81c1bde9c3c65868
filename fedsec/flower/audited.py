"""The mechanisms of the four models of privacy, as an audit sees them: rows in, a release out.

They are the very values that a run uses, made from the same plan; an audit of another value, e.g.
one with a planted defect, takes it in their place.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.combination import Combination
from fedsec.flower.messages import Heading
from fedsec.flower.perturb import Perturb
from fedsec.flower.private import Central, row_norms
from fedsec.flower.strategy import Matrix
from fedsec.flower.sums import noised
from fedsec.plan import FederationPlan, Privacy
from fedsec.plan.figures import figures_of, joined_of, update_multiplier
from fedsec.plan.privacy import honest, population
from fedsec.plan.terms import terms
from fedsec.plan.visibility import fewest_in_a_sum, group_size
from fedsec.privacy.clipping import clip_factors
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.keystream import Keystream
from fedsec.secagg.groups import group_sizes
from fedsec.tasks.private_training import PrivateTraining
from fedsec.tasks.task import Examples, NodeData, Options
from fedsec.tasks.training import LocalTraining
from fedsec.vectors import Vector

_SAME = bytes(32)  # key of two releases whose noise is to be the same
_EXAMPLES = 64


class Mechanism(Protocol):
    """Something that says it is private."""

    @property
    def units(self) -> int:
        """How many rows there can be."""
        ...

    @property
    def survivors(self) -> tuple[int, ...]:
        """How many of them may be there, in the cases worth a test."""
        ...

    @property
    def price(self) -> Price:
        """Of one release."""
        ...

    @property
    def multiplier(self) -> float:
        """Claimed: standard deviation of the noise over what one unit can change."""
        ...

    @property
    def replaces(self) -> bool:
        """Whether neighbours differ by another row, rather than by a row of zeros."""
        ...

    @property
    def sampling(self) -> float:
        """With which probability a unit takes part in a round."""
        ...

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """Returns the release of `rows` (m, d), m of the units, the noise drawn from `source`."""
        ...

    def change(self, rows: Matrix, other: Matrix) -> float:
        """Returns how far apart releases of two sets of rows are, in L2, noise aside."""
        ...


@dataclass(frozen=True)
class Planned(ABC):
    """What the mechanisms have in common: their claim is the plan's.

    Args:
        plan: With a table [privacy].
    """

    plan: FederationPlan

    @property
    def units(self) -> int:
        """See `Mechanism`."""
        return population(self.plan)

    @property
    def replaces(self) -> bool:
        """See `Mechanism`: as the plan's guarantee says, on which its price rests."""
        return terms(self.plan).guarantee.adjacency == "replace-one"

    @property
    def sampling(self) -> float:
        """See `Mechanism`."""
        return 1.0

    @property
    def price(self) -> Price:
        """See `Mechanism`."""
        return terms(self.plan).price

    @property
    def multiplier(self) -> float:
        """See `Mechanism`: of the noise on updates, which share the price with figures."""
        return update_multiplier(self.plan)

    @property
    def privacy(self) -> Privacy:
        """The plan's table."""
        return _privacy(self.plan)

    @abstractmethod
    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`."""

    def change(self, rows: Matrix, other: Matrix) -> float:
        """See `Mechanism`: the distance of two releases with the same noise."""
        one, two = (self.release(each, Keystream(_SAME)) for each in (rows, other))
        return float(np.linalg.norm(one.astype(np.float64) - two))


def _without_figures(rows: Matrix, privacy: Privacy) -> Matrix:
    """Returns rows behind which each figure that the plan tells is missing."""
    figures = figures_of(privacy)
    if figures is None:
        return rows
    return np.hstack((rows, np.zeros((len(rows), figures.count), np.float32)))


Combine = Callable[[FederationPlan, Keystream], Combination]


def central(plan: FederationPlan, source: Keystream) -> Combination:
    """Returns the combination of a run, which publishes to whoever asks."""
    return Central(
        plan, lambda _round, _attempt, make: make(), source, lambda: np.random.default_rng(0)
    )


@dataclass(frozen=True)
class CentralMechanism(Planned):
    """What the coordinator makes of the updates.

    Args:
        plan: With ``privacy.model = "central"``.
        combine: Makes the combination from plan and source of noise.
    """

    combine: Combine = central

    @property
    def sampling(self) -> float:
        """See `Mechanism`."""
        rate = self.privacy.sampling
        return 1.0 if rate is None else rate

    @property
    def survivors(self) -> tuple[int, ...]:
        """See `Mechanism`: few, half and all of the nodes answer; few make one sum, if any."""
        few = max(1, self.units // 4)
        if group_size(self.plan) is not None:
            few = fewest_in_a_sum(self.plan)
        return tuple(sorted({few, max(few, self.units // 2), self.units}))

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`."""
        groups: tuple[tuple[int, ...], ...] = tuple((node,) for node in range(len(rows)))
        if group_size(self.plan) is not None:
            rows, groups = _means_of_groups(self.plan, rows)
        collected = Collected(
            rows=_without_figures(rows, self.privacy),
            groups=groups,
            weights=np.ones(len(rows)),
            metrics=(),
            failed={},
            rejected={},
        )
        attempt = Attempt(1, 1, tuple(range(self.units)), RecordDict())
        return self.combine(self.plan, source)(attempt, collected, {}).vector


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

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`."""
        (row,) = _without_figures(rows[:1], self.privacy)
        return Perturb.of(self.privacy)(row, source)[: rows.shape[1]]


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

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`."""
        sent = self._sent(rows)
        coded = noised(self.plan, sent.shape[1], _turn(self.plan))
        total = coded.encode(sent[0], source)
        for row in sent[1:]:
            total = total + coded.encode(row, source)
        mean: Vector = (coded.decode(total) / self.units).astype(np.float32)
        return mean[: rows.shape[1]]

    def change(self, rows: Matrix, other: Matrix) -> float:
        """See `Mechanism`: of the integers before noise; the same chance rounds them."""
        sent, changed = self._sent(rows), self._sent(other)
        coded = noised(self.plan, sent.shape[1], _turn(self.plan))
        total = np.zeros(coded.length, np.int64)
        for row, moved in zip(sent, changed, strict=True):
            if not np.array_equal(row, moved):
                total += coded.quantize(row, Keystream()) - coded.quantize(moved, Keystream())
        return float(np.linalg.norm(total)) / coded.scale / self.units

    def _sent(self, rows: Matrix) -> Matrix:
        """Returns what nodes with these updates hand to the sum."""
        joined = joined_of(self.plan)
        if joined is None:
            return rows
        return np.array([joined(row) for row in _without_figures(rows, self.privacy)])


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

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        """See `Mechanism`."""
        privacy = self.privacy
        step = LocalTraining(epochs=None, steps=1, batch_size=self.units, learning_rate=1.0)
        model = nn.Linear(rows.shape[1], 1, bias=False)
        with torch.no_grad():
            model.weight.zero_()
        data = Examples(torch.from_numpy(rows), torch.ones(len(rows)))
        self.train(step, privacy.clip, privacy.noise_multiplier)(_Inputs(), model, data, 0, source)
        moved: Vector = -model.weight.detach().numpy()[0]
        return moved


def mechanism_of(plan: FederationPlan) -> Mechanism:
    """Returns the mechanism of a plan.

    Raises:
        ConfigError: The plan has no [privacy].
    """
    match _privacy(plan).model:
        case "central":
            return CentralMechanism(plan)
        case "local":
            return LocalMechanism(plan)
        case "distributed":
            return DistributedMechanism(plan)
        case "example":
            return ExampleMechanism(plan)


@dataclass(frozen=True)
class _Inputs:
    """A task in which the gradient of an example is its input."""

    name: str = "inputs"

    def make_model(self, options: Options, seed: int) -> nn.Module:
        raise NotImplementedError

    def load(self, settings: Mapping[str, object]) -> NodeData:
        raise NotImplementedError

    def central_test(self) -> Examples | None:
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] * targets).mean()

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        del outputs, targets
        return {}


def _means_of_groups(
    plan: FederationPlan, rows: Matrix
) -> tuple[Matrix, tuple[tuple[int, ...], ...]]:
    """Returns the mean of each group of nodes, which clip for themselves, and who is in which.

    Groups are those of all nodes; of them the first `len(rows)` answer, group by group.
    """
    least = fewest_in_a_sum(plan)
    ends = list(accumulate(group_sizes(population(plan), group_size(plan) or 1)))
    clipped = rows * clip_factors(row_norms(rows), _privacy(plan).clip)[:, np.newaxis]
    split = [tuple(range(at, min(end, len(rows)))) for at, end in pairwise([0, *ends])]
    groups = tuple(group for group in split if len(group) >= least)
    means = np.array([clipped[list(group)].mean(axis=0) for group in groups], np.float32)
    return means.reshape(len(groups), rows.shape[1]), groups


def _turn(plan: FederationPlan) -> Heading:
    return Heading(1, 1, plan.digest)


def _privacy(plan: FederationPlan) -> Privacy:
    if plan.privacy is None:
        raise ConfigError("the plan has no table [privacy]: there is nothing to audit")
    return plan.privacy
