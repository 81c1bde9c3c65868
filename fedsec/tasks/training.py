"""A node's share of a round: gradient steps from the model that was sent.

Source of the proximal term: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization
in Heterogeneous Networks", MLSys 2020, algorithm 2 (FedProx).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedsec.errors import ConfigError
from fedsec.tasks.optimizers import Adam, Optimizer, Sgd
from fedsec.tasks.seeds import seeded
from fedsec.tasks.task import Examples, Task


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """How a node trains in a round.

    Args:
        epochs: Passes over the data; None if `steps` says how long.
        steps: Batches; None if `epochs` says how long.
        batch_size: Examples per step, >= 1; the last batch of a pass may be smaller.
        optimizer: Made anew each round.
        learning_rate: > 0.
        momentum: Of ``"sgd"``, in [0, 1).
        proximal_mu: Weight of ``|w - w_sent|^2 / 2`` in the loss, >= 0; 0 is plain training.

    Raises:
        ConfigError: A parameter is out of range.
    """

    epochs: int | None = 1
    steps: int | None = None
    batch_size: int = 32
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.0
    proximal_mu: float = 0.0

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ConfigError(f"give epochs or steps, got {self.epochs} and {self.steps}")
        for name in ("epochs", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be >= 1, got {value}")

    def __call__(
        self,
        task: Task,
        model: torch.nn.Module,
        data: Examples,
        seed: int,
        part: Tensor | None = None,
    ) -> float:
        """Trains `model` in place; returns the mean loss over the examples it saw.

        Same model, data and seed: same result, on the same machine and number of threads.

        Args:
            task: Knows the loss.
            model: Trained in place.
            data: That the node has.
            seed: Of the batches and of what the model draws.
            part: Rows of `data` (k,) that the node has, if not all: nothing but batches is copied.

        Raises:
            ConfigError: There are no examples.
        """
        examples = len(data) if part is None else len(part)
        if examples == 0:
            raise ConfigError("there is nothing to train on: 0 examples")
        model.train()
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        sent = [weight.detach().clone() for weight in weights] if self.proximal_mu else []
        optimizer = self.make_optimizer(weights)
        losses: list[Tensor] = []
        sizes: list[int] = []
        with seeded(seed):
            for batch in self.batches(examples):
                rows = batch if part is None else part[batch]
                loss = task.loss(model(data.inputs[rows]), data.targets[rows])
                gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
                optimizer.step(self.pull(gradients, weights, sent))
                losses.append(loss.detach())
                sizes.append(len(rows))
        return float(torch.stack(losses).double() @ torch.tensor(sizes).double()) / sum(sizes)

    def batches(self, examples: int) -> Iterator[Tensor]:
        """Yields the rows of each batch, from torch's global generator."""
        for order in self.passes(examples):
            yield from torch.split(order, self.batch_size)

    def passes(self, examples: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Yields the rows of each pass in their order; the last pass ends with the last step.

        Args:
            examples: How many there are, >= 1.
            generator: Source of the order; None: torch's global one.
        """
        left = self.step_count(examples) * self.batch_size
        whole = -(-examples // self.batch_size) * self.batch_size
        while left > 0:
            yield torch.randperm(examples, generator=generator)[:left]
            left -= whole

    def step_count(self, examples: int) -> int:
        """Returns how many steps a round takes on so many examples."""
        return self.steps or -(-examples // self.batch_size) * (self.epochs or 1)

    def make_optimizer(self, weights: Sequence[Tensor]) -> Optimizer:
        """Returns a new optimiser that changes `weights` in place."""
        if self.optimizer == "adam":
            return Adam(weights, self.learning_rate)
        return Sgd(weights, self.learning_rate, self.momentum)

    @torch.no_grad()
    def pull(
        self, gradients: Sequence[Tensor], weights: Sequence[Tensor], sent: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """Returns the gradients with that of the proximal term, if there is one."""
        if not self.proximal_mu:
            return gradients
        # Not in place: a gradient may be a view whose entries share memory.
        return [
            gradient + self.proximal_mu * (weight - start)
            for gradient, weight, start in zip(gradients, weights, sent, strict=True)
        ]
