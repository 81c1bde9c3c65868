"""A node's share of a round that hides each single example: DP-SGD, with noise that is exact.

    batch: each example by a coin --> gradient of each --> clipped --> summed --> rounded to a grid
       --> + discrete Gaussian --> / public batch size --> the optimiser's step

Gradients of single examples come from Opacus. The sum is rounded to a grid of integers, and the
noise is scaled to what one example can change there for certain: the clip, the rounding errors of
two sums, ``sqrt(d)`` grid steps; a quarter of a percent more than the clip. No floating-point
Gaussian is involved whose low bits could tell the sum.

Examples are added or removed; how many there are is taken as public on the node itself.

Sources: Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang, "Deep Learning with Differential
Privacy", CCS 2016, algorithm 1. Mironov, "On Significance of the Least Significant Bits for
Differential Privacy", CCS 2012 (why not in floating point).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from fedsec.errors import ConfigError
from fedsec.privacy.discrete_gaussian import DiscreteGaussian
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.exactness import residue
from fedsec.privacy.keystream import Keystream
from fedsec.tasks.example_gradients import (
    ROUNDINGS,
    Gradients,
    backward,
    forget,
    gradients,
    sampled,
)
from fedsec.tasks.seeds import seeded
from fedsec.tasks.task import Examples, Task
from fedsec.tasks.training import LocalTraining

FINENESS = 1000
"""Grid steps of the clip per sqrt(d): rounding adds 0.1 % to the sensitivity."""

_COIN = 1 << 32
_CUT_OFF = 1e-33  # of a batch: below 1e-55, times 1 + e^50
_LARGEST_EPSILON = 50.0  # of a plan
_UNIT = 2.0**-24  # roundoff of float32
_SLACK = 1e-4  # of the clip, for float32 in the norm's and the scaling's last bits
_GRADIENTS = 1 << 26  # entries of examples' gradients held at a time
_ALONE = 1e-3  # how much an example's gradient may depend on its company, relative
_REMEDIES = {
    "BatchNorm": "mixes examples; use nn.GroupNorm, or opacus.validators.ModuleValidator.fix",
    "buffer": "holds buffers, which would leave the node without noise; make a model without them",
}


@dataclass(frozen=True, slots=True)
class PrivateTraining:
    """DP-SGD in place of plain training.

    Args:
        training: How long, with which optimiser; its batch size is the expected one.
        clip: Largest L2 norm of an example's gradient, > 0.
        noise_multiplier: Standard deviation of the noise on the sum over the clip, > 0.

    Raises:
        ConfigError: A parameter is out of range.
    """

    training: LocalTraining
    clip: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        for name in ("clip", "noise_multiplier"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} must be > 0 and finite, got {value}")

    def price(self, examples: int) -> Price:
        """Returns what one round costs on a node with so many examples, >= 1."""
        event = Gaussian(self.noise_multiplier, sampling=self._odds(examples) / _COIN)
        steps = self.steps(examples)
        return Price(event, count=steps, delta=steps * (residue(_LARGEST_EPSILON) + _CUT_OFF))

    def vetted(self, task: Task, model: nn.Module, data: Examples) -> Price:
        """Returns the price of one round with this task and model, which `check` lets pass.

        Raises:
            ConfigError: As `check`, or there are no examples.
        """
        if len(data) == 0:
            raise ConfigError("there is nothing to train on: 0 examples")
        check(task, model, data)
        return self.price(len(data))

    def steps(self, examples: int) -> int:
        """Returns how many steps a round takes on a node with so many examples, >= 1."""
        given, passes = self.training.steps, self.training.epochs or 1
        return given or passes * math.ceil(examples / self.training.batch_size)

    def __call__(
        self, task: Task, model: nn.Module, data: Examples, seed: int, source: Keystream
    ) -> None:
        """Trains `model` in place.

        Args:
            task: Whose loss is a mean over examples; `check` looks at that.
            model: In which examples do not mix.
            data: Of this node.
            seed: Of what the model itself draws, e.g. dropout.
            source: Of batches and noise; `Keystream()` but in tests.

        Raises:
            ConfigError: There are no examples, or Opacus cannot do this model.
        """
        if len(data) == 0:
            raise ConfigError("there is nothing to train on: 0 examples")
        model.train()
        sent = [weight.detach().clone() for weight in _weights(model)]
        odds = self._odds(len(data))
        with seeded(seed), sampled(model) as wrapped:
            optimizer = self._optimizer(model, sent, source)
            for _ in range(self.steps(len(data))):
                drawn = source.words(len(data), np.uint32) < np.uint64(odds)
                self._step(
                    task, wrapped, data.take(torch.from_numpy(drawn).nonzero()[:, 0]), optimizer
                )

    def _step(
        self, task: Task, model: nn.Module, batch: Examples, optimizer: "GridOptimizer"
    ) -> None:
        """Takes one step; a batch with too many gradients at a time is gone through in parts."""
        part = max(1, _GRADIENTS // optimizer.size)
        starts = range(0, max(1, len(batch)), part)
        for start in starts:
            rows = slice(start, start + part)
            inputs, targets = batch.inputs[rows], batch.targets[rows]
            optimizer.zero_grad()
            optimizer.examples = len(inputs)
            if len(inputs):
                backward(task.loss(model(inputs), targets))
            optimizer.signal_skip_step(start != starts[-1])
            optimizer.step()
        optimizer.zero_grad()

    def _odds(self, examples: int) -> int:
        """Returns 2^32 times the probability with which an example is in a batch."""
        return min(_COIN, math.ceil(_COIN * self.training.batch_size / examples))

    def _optimizer(
        self, model: nn.Module, sent: list[Tensor], source: Keystream
    ) -> "GridOptimizer":
        weights, how = _weights(model), self.training
        inner: torch.optim.Optimizer
        if how.optimizer == "adam":
            inner = torch.optim.Adam(weights, how.learning_rate)
        else:
            inner = torch.optim.SGD(weights, how.learning_rate, how.momentum)
        made = GridOptimizer(
            inner,
            noise_multiplier=self.noise_multiplier,
            clip=self.clip,
            batch_size=how.batch_size,
            source=source,
        )
        if how.proximal_mu:
            made.attach_step_hook(lambda _optimizer: _pull(weights, sent, how.proximal_mu))
        return made


class GridOptimizer(DPOptimizer):  # type: ignore[misc] # Opacus is not typed
    """Opacus' optimiser, with the sum and its noise on a grid of integers.

    Args:
        optimizer: Takes the step.
        noise_multiplier: Standard deviation of the noise over the sensitivity.
        clip: Largest L2 norm of an example's gradient.
        batch_size: What sums are divided by: public, whatever the batch has.
        source: Of the noise.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        clip: float,
        batch_size: int,
        source: Keystream,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip,
            expected_batch_size=batch_size,
        )
        self.examples = 0
        """In the part of a batch that is under way."""
        self.size = sum(weight.numel() for weight in self.params)
        self._source = source
        self._grid = clip / (FINENESS * math.sqrt(self.size))
        # Two neighbours' sums: the example itself, the rounding errors of both, the grid of both.
        errors = _SLACK + 2 * ROUNDINGS * largest_batch(batch_size) * _UNIT
        steps = clip / self._grid * (1 + errors) + math.sqrt(self.size)
        self._noise = DiscreteGaussian.covering(noise_multiplier * steps)

    @property
    def grad_samples(self) -> list[Gradients]:
        """What the examples of this part add to each parameter."""
        return [gradients(weight, self.examples) for weight in self.params]

    def zero_grad(self, set_to_none: bool = False) -> None:
        """See `DPOptimizer`."""
        super().zero_grad(set_to_none)
        forget(self.params)

    def clip_and_accumulate(self) -> None:
        """Adds this part's clipped and rounded gradients to the sums, which are integers."""
        samples = self.grad_samples  # one for each parameter
        norms = torch.stack([sample.norms() for sample in samples])
        lengths = torch.linalg.vector_norm(norms, dim=0)
        # An example whose gradient is not finite adds nothing, and is hidden like the others.
        finite = lengths.isfinite()
        factors = (self.max_grad_norm / lengths.clamp(min=self.max_grad_norm)).float()
        for weight, sample in zip(self.params, samples, strict=True):
            kept = sample if finite.all() else sample.only(finite)
            if weight.summed_grad is None:
                weight.summed_grad = weight.new_zeros(weight.shape, dtype=torch.float64)
            for part in kept.sums(factors[finite]):
                weight.summed_grad += part

    def add_noise(self) -> None:
        """Adds the noise to the sums and turns them into gradients."""
        drawn = torch.from_numpy(self._noise.sample(self.size, self._source))
        sizes = [weight.numel() for weight in self.params]
        for weight, noise in zip(self.params, torch.split(drawn, sizes), strict=True):
            total = (weight.summed_grad / self._grid).round_() + noise.view_as(weight)
            weight.grad = (total * self._grid).to(weight.dtype)

    def scale_grad(self) -> None:
        """Divides by the public batch size."""
        for weight in self.params:
            weight.grad /= self.expected_batch_size


def largest_batch(expected: int) -> int:
    """Returns how many examples a batch holds at most.

    A Poisson batch is larger with a probability below 1e-55 (Bernstein's inequality); what is
    beyond is left out, and that probability is added to delta.
    """
    return math.ceil(expected + 16 * math.sqrt(expected) + 100)


def check(task: Task, model: nn.Module, data: Examples) -> None:
    """Returns where an example's gradient is its own: the model and the loss mix no examples.

    Raises:
        ConfigError: They do, or Opacus cannot do this model; says what to change.
    """
    for error in ModuleValidator.validate(model, strict=False):
        text = " ".join(str(error).split())
        remedy = next((say for word, say in _REMEDIES.items() if word in text), text[:200])
        raise ConfigError(f'[privacy] model = "example": the model {remedy}')
    if next(model.buffers(), None) is not None:
        raise ConfigError(f'[privacy] model = "example": the model {_REMEDIES["buffer"]}')
    first, second = data.inputs[:1], data.inputs[1:2]
    others = [first, second if len(second) else torch.zeros_like(first)]
    targets = data.targets[:1].repeat_interleave(2, dim=0)
    with sampled(model) as wrapped:
        one, other = (
            _gradient(task, wrapped, Examples(torch.cat([first, company]), targets))
            for company in others
        )
    difference = float(torch.linalg.vector_norm(one - other))
    if difference > _ALONE * float(torch.linalg.vector_norm(one)):
        raise ConfigError(
            '[privacy] model = "example": an example\'s gradient depends on the others in its '
            "batch; the task's loss must be the mean of a loss of each example"
        )


def _gradient(task: Task, model: nn.Module, batch: Examples) -> Tensor:
    """Returns the gradient of the batch's first example (d,); dropout is the same every time."""
    weights = _weights(model)
    with seeded(0):
        backward(task.loss(model(batch.inputs), batch.targets))
    first = [gradients(weight, len(batch)).first().flatten() for weight in weights]
    forget(weights)
    return torch.cat(first)


def _weights(model: nn.Module) -> list[Any]:
    return [weight for weight in model.parameters() if weight.requires_grad]


@torch.no_grad()
def _pull(weights: list[Any], sent: list[Tensor], strength: float) -> None:
    """Adds the gradient of the proximal term; it depends on no example."""
    for weight, start in zip(weights, sent, strict=True):
        weight.grad += strength * (weight - start)
