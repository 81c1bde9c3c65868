"""Gradient steps for a round of local training: torch's SGD and Adam in their functional form.

The classes of `torch.optim` import a compiler at their first use, for a second or more in every
worker: longer than a round. Their functions, which do the arithmetic, do not.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class Optimizer(Protocol):
    """Moves weights along gradients; keeps what it needs from step to step."""

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Changes the weights in place along `gradients`, which stand in their order."""
        ...

    def keep(self, count: int) -> None:
        """Goes on with the first `count` of each weight, which are models stacked (m, ...)."""
        ...


class Sgd:
    """``v = momentum * v + g; w -= learning_rate * v``.

    Args:
        weights: Changed in place.
        learning_rate: > 0.
        momentum: In [0, 1).
    """

    def __init__(self, weights: Sequence[Tensor], learning_rate: float, momentum: float) -> None:
        self._weights = list(weights)
        self._rate = learning_rate
        self._momentum = momentum
        self._velocity: list[Tensor | None] = [None] * len(self._weights)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """See `Optimizer`."""
        sgd(
            self._weights,
            list(gradients),
            self._velocity,
            foreach=False,
            lr=self._rate,
            momentum=self._momentum,
            weight_decay=0.0,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def keep(self, count: int) -> None:
        """See `Optimizer`."""
        self._weights = [weight[:count] for weight in self._weights]
        self._velocity = [None if each is None else each[:count] for each in self._velocity]


class Adam:
    """Adam with the usual decay rates (0.9, 0.999) and bias correction.

    Args:
        weights: Changed in place.
        learning_rate: > 0.
    """

    def __init__(self, weights: Sequence[Tensor], learning_rate: float) -> None:
        self._weights = list(weights)
        self._rate = learning_rate
        self._first = [torch.zeros_like(weight) for weight in weights]
        self._second = [torch.zeros_like(weight) for weight in weights]
        self._steps = [torch.zeros(()) for _ in weights]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """See `Optimizer`."""
        adam(
            self._weights,
            list(gradients),
            self._first,
            self._second,
            [],  # the running maxima of AMSGrad
            self._steps,
            foreach=False,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def keep(self, count: int) -> None:
        """See `Optimizer`."""
        self._weights, self._first, self._second = (
            [each[:count] for each in kept] for kept in (self._weights, self._first, self._second)
        )
