"""Gradient inversion: images from the update that they caused.

The attacker knows the model that was sent, the labels and how many examples there were, and sees
one vector: a node's update, or a sum of several nodes'. It looks for images whose gradient points
the same way.

Source: Geiping, Bauermeister, Droege, Moeller, "Inverting Gradients - How easy is it to break
privacy in federated learning?", NeurIPS 2020, section 4, equation 4: cosine distance and total
variation, signed gradients with Adam, step decay.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fedsec.errors import ConfigError
from fedsec.tasks.task import Task

DECAYS = (3 / 8, 5 / 8, 7 / 8)  # of the steps; each divides the step size by 10
PEAK_DB = 60.0  # two images that are equal to rounding


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What came out.

    Attributes:
        images: (n, ...), in the order of the labels, within the stated range.
        distance: 1 - cosine between their gradient and what was seen, 0..2.
    """

    images: Tensor
    distance: float


@dataclass(frozen=True, slots=True)
class GradientInversion:
    """The search.

    Args:
        steps: Of each start, >= 1.
        rate: First step size, in the unit of the inputs, > 0.
        total_variation: Weight of smoothness, >= 0.
        restarts: Random starts, of which the best counts, >= 1.
        low: Smallest value of an input.
        high: Largest value of an input, > `low`.
    """

    steps: int = 1000
    rate: float = 0.1
    total_variation: float = 1e-3
    restarts: int = 2
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or not self.rate > 0 or self.total_variation < 0:
            raise ConfigError(
                "steps and restarts must be >= 1, rate > 0, total_variation >= 0, got "
                f"{self.steps}, {self.restarts}, {self.rate}, {self.total_variation}"
            )
        if not self.low < self.high:
            raise ConfigError(f"low must be less than high, got {self.low} and {self.high}")

    def __call__(
        self,
        task: Task,
        model: torch.nn.Module,
        seen: Tensor,
        labels: Tensor,
        shape: tuple[int, ...],
        *,
        seed: int,
    ) -> Reconstruction:
        """Returns images whose step of gradient descent points where `seen` does.

        Args:
            task: For its loss.
            model: As it was sent; left as it is.
            seen: What the attacker saw (d,): minus the gradient, up to a factor, and noise.
            labels: Of the images (n,).
            shape: Of one image, e.g. (1, 8, 8).
            seed: Of the random starts.

        Raises:
            ConfigError: `seen` is not as long as the model's gradient, not finite or zero.
        """
        parameters = list(model.parameters())
        size = sum(p.numel() for p in parameters)
        if seen.shape != (size,) or not bool(torch.isfinite(seen).all()) or not bool(seen.any()):
            raise ConfigError(
                f"seen must be a finite vector ({size},) that is not zero, got {tuple(seen.shape)}"
            )
        target = -seen / seen.norm()
        generator = torch.Generator().manual_seed(seed)
        found: list[Reconstruction] = []
        for _ in range(self.restarts):
            start = torch.rand((len(labels), *shape), generator=generator)
            images = (self.low + (self.high - self.low) * start).requires_grad_()
            found.append(self._descend(task, model, images, labels, target))
        return min(found, key=lambda each: each.distance)

    def _descend(
        self, task: Task, model: torch.nn.Module, images: Tensor, labels: Tensor, target: Tensor
    ) -> Reconstruction:
        optimizer = torch.optim.Adam([images], lr=self.rate)
        milestones = [max(1, round(self.steps * part)) for part in DECAYS]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
        for _ in range(self.steps):
            distance = _distance(task, model, images, labels, target)
            objective = distance + self.total_variation * _variation(images)
            (slope,) = torch.autograd.grad(objective, [images])
            images.grad = slope.sign()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                images.clamp_(self.low, self.high)
        final = _distance(task, model, images, labels, target)
        return Reconstruction(images.detach(), float(final.detach()))


def _distance(
    task: Task, model: torch.nn.Module, images: Tensor, labels: Tensor, target: Tensor
) -> Tensor:
    loss = task.loss(model(images), labels)
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    flat = torch.cat([slope.reshape(-1) for slope in slopes])
    cosine: Tensor = torch.dot(flat, target) / flat.norm().clamp_min(1e-12)
    return 1 - cosine


def _variation(images: Tensor) -> Tensor:
    """Returns the mean absolute difference of neighbouring pixels; 0 for what is no image."""
    if images.dim() < 3:  # noqa: PLR2004 - n, height, width
        return images.new_zeros(())
    down: Tensor = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    across: Tensor = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    return down + across


def likeness(images: Tensor, truth: Tensor, *, peak: float = 1.0) -> NDArray[np.float64]:
    """Returns the peak signal-to-noise ratio of each true image (n,), in decibels, 0..60.

    Which image is meant for which is decided in the attacker's favour: the assignment with the
    smallest total squared error.

    Args:
        images: What was reconstructed (n, ...).
        truth: What there was (n, ...).
        peak: Range of a value.

    Raises:
        ConfigError: The two differ in shape.
    """
    if images.shape != truth.shape or not len(truth):
        raise ConfigError(f"shapes differ: {tuple(images.shape)} and {tuple(truth.shape)}")
    made, real = images.reshape(len(truth), -1).double(), truth.reshape(len(truth), -1).double()
    errors = ((real[:, None] - made[None]) ** 2).mean(dim=2).numpy()
    rows, columns = linear_sum_assignment(errors)
    least = peak**2 * 10 ** (-PEAK_DB / 10)
    return np.array(
        [
            10 * math.log10(peak**2 / max(float(errors[i, j]), least))
            for i, j in zip(rows, columns, strict=True)
        ]
    )
