"""The gradient of each example, as Opacus finds it; of a dense layer's weights, its two factors.

    dense layer:   gradient of example i  =  outer product of what came back at its outputs, and its
                   inputs;  norm  =  product of the two norms;  clipped sum  =  one matrix product
    other layers:  the gradient itself (b, ...)

So a wide layer takes ``b (outputs + inputs)`` numbers and not ``b outputs inputs``, and one
backward pass where Opacus' own ghost clipping needs two.

Sources: Goodfellow, "Efficient Per-Example Gradient Computations", arXiv:1510.01799, 2015, section
5 (the norm). Bu, Wang, Zha, Karypis, "Differentially Private Optimization on Large Model at Small
Cost", ICML 2023, section 3.2 (the sum from the same pass).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

TERMS = 32
"""Of a sum in float32; further ones are added in float64."""

ROUNDINGS = TERMS + 3
"""Rounding errors in a clipped gradient on its way into such a sum, at most: its factor's, those of
two products, and those of the sum."""

_SQUARES = 1 << 11  # of a sum of squares in float32; further ones are added in float64
_PENDING = "_current_grad_sample"  # Opacus': of a weight that is used more than once
_FACTORS = "grad_factors"  # beside Opacus' `grad_sample`, which is None then


@dataclass(frozen=True)
class Whole:
    """Gradients as they are.

    Args:
        rows: One for each example (b, ...).
    """

    rows: Tensor

    def norms(self) -> Tensor:
        """Returns the L2 norm of each (b,), float64.

        A sum of millions of squares in float32 may be 2 % short; of `_SQUARES` it is 0.006 % at
        most.
        """
        parts = torch.split(self.rows.flatten(1), _SQUARES, dim=1)
        norms = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts])
        whole: Tensor = torch.linalg.vector_norm(norms, dim=0, dtype=torch.float64)
        return whole

    def only(self, kept: Tensor) -> "Whole":
        """Returns those of the examples in a mask (b,)."""
        return Whole(self.rows[kept])

    def sums(self, factors: Tensor) -> Iterator[Tensor]:
        """Yields sums in float32, of `TERMS` gradients each, times `factors` (b,)."""
        parts = zip(torch.split(self.rows, TERMS), torch.split(factors, TERMS), strict=True)
        for rows, shares in parts:
            yield torch.tensordot(shares, rows, dims=1)

    def first(self) -> Tensor:
        """Returns the gradient of the first example."""
        return self.rows[0]


@dataclass(frozen=True)
class Outer:
    """Gradients of a dense layer's weights (outputs, inputs).

    Args:
        left: What came back at the outputs (b, outputs).
        right: The inputs (b, inputs).
    """

    left: Tensor
    right: Tensor

    def norms(self) -> Tensor:
        """Returns the L2 norm of each (b,), float64."""
        left, right = (
            torch.linalg.vector_norm(each, dim=1, dtype=torch.float64)
            for each in (self.left, self.right)
        )
        product: Tensor = left * right
        return product

    def only(self, kept: Tensor) -> "Outer":
        """Returns those of the examples in a mask (b,)."""
        return Outer(self.left[kept], self.right[kept])

    def sums(self, factors: Tensor) -> Iterator[Tensor]:
        """Yields sums in float32, of `TERMS` gradients each, times `factors` (b,)."""
        scaled = self.left * factors[:, None]
        for left, right in zip(
            torch.split(scaled, TERMS), torch.split(self.right, TERMS), strict=True
        ):
            yield left.T @ right

    def first(self) -> Tensor:
        """Returns the gradient of the first example."""
        return torch.outer(self.left[0], self.right[0])


Gradients: TypeAlias = Whole | Outer


class ExampleGradients(GradSampleModule):  # type: ignore[misc] # Opacus is not typed
    """Opacus' view of a model that computes gradients of single examples."""

    def capture_backprops_hook(
        self,
        module: nn.Module,
        forward_input: Any,
        forward_output: Any,
        loss_reduction: str,
        batch_first: bool,
    ) -> None:
        """Keeps a dense layer's factors where it saw each example once; else as Opacus does."""
        if not (self.hooks_enabled and _seen_once(module)):
            super().capture_backprops_hook(
                module, forward_input, forward_output, loss_reduction, batch_first
            )
            return
        inputs, left = self.rearrange_grad_samples(
            module=module,
            backprops=forward_output[0].detach(),
            loss_reduction=loss_reduction,
            batch_first=batch_first,
        )
        del module.max_batch_len
        for weight in _weights(module):
            weight._forward_counter -= 1  # noqa: SLF001 - as in Opacus
            if weight is module.weight:
                setattr(weight, _FACTORS, Outer(left, inputs[0].to(left.dtype)))
            else:
                weight.grad_sample = left


def _seen_once(module: nn.Module) -> bool:
    """Returns whether this is a dense layer that was given one vector of each example."""
    given: list[Any] = vars(module).get("activations", [])  # Opacus' list: one for each use
    if type(module) is not nn.Linear or len(given) != 1:
        return False
    once = all(
        weight._forward_counter == 1 and not hasattr(weight, _PENDING)  # noqa: SLF001
        for weight in _weights(module)
    )
    return once and given[0][0].dim() == 2  # noqa: PLR2004 - a matrix


@contextmanager
def sampled(model: nn.Module) -> Iterator[nn.Module]:
    """Lends the view of a model that computes gradients of single examples."""
    wrapped = ExampleGradients(model, loss_reduction="mean")
    try:
        yield wrapped
    finally:
        wrapped.remove_hooks()
        for weight in _weights(model):
            weight.grad = None
            for name in ("grad_sample", _FACTORS, _PENDING, "summed_grad", "_forward_counter"):
                if hasattr(weight, name):
                    delattr(weight, name)


def backward(loss: Tensor) -> None:
    """Leaves the gradients of single examples in the weights."""
    with warnings.catch_warnings():  # that inputs need no gradient is as it should be
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        torch.autograd.backward(loss)


def gradients(weight: Any, examples: int) -> Gradients:
    """Returns what `backward` left in a weight for so many examples; zeros if that is nothing."""
    factors: Outer | None = getattr(weight, _FACTORS, None)
    if factors is not None:
        return factors
    rows = getattr(weight, "grad_sample", None)
    return Whole(weight.new_zeros(examples, *weight.shape) if rows is None else rows)


def forget(weights: list[Any]) -> None:
    """Takes what `backward` left in the weights away."""
    for weight in weights:
        weight.grad = weight.grad_sample = None
        setattr(weight, _FACTORS, None)


def _weights(module: nn.Module) -> list[Any]:
    return [weight for weight in module.parameters() if weight.requires_grad]
