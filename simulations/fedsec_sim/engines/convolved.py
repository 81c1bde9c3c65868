"""Losses and gradients of small convolutional networks, written out: LeNet and its like.

On a CPU, torch's kernels for convolutions and pooling of a few channels take three times as long as
the products behind them. With the examples of a batch innermost, arrays are (channels, height,
width, examples): then a convolution's patches are long runs that are copied at once, it is one
matrix product, pooling is the maximum of a few slices, and a flattened image is a column.

One node after another: what lies in the cache is one node's. So a node's bits do not depend on who
is beside it, as long as its weights begin at 64 bytes like everything else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Stage(Protocol):
    """A layer without weights of its own: they are handed to it."""

    @property
    def weights(self) -> int:
        """How many tensors it is handed."""
        ...

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """Returns what it makes of `x`, and what it wants to have when it goes back."""
        ...

    def backward(
        self,
        ahead: Tensor,
        kept: Sequence[Tensor],
        weights: Sequence[Tensor],
        out: Sequence[Tensor],
        *,
        further: bool,
    ) -> Tensor:
        """Writes the weights' gradients to `out`; returns that of the input, if it goes `further`.

        Args:
            ahead: Gradient of the output.
            kept: From `forward`.
            weights: As in `forward`.
            out: One for each of the weights.
            further: Whether a layer before this one has weights; else what is returned is of no
                use.
        """
        ...


@dataclass(frozen=True)
class Convolution:
    """``nn.Conv2d`` of stride 1 without padding, as one product with all patches."""

    weights: int

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """See `Stage`: keeps the patches (channels height width, places examples), and x."""
        outputs, channels, tall, broad = weights[0].shape
        _, height, width, count = x.shape
        high, wide = height - tall + 1, width - broad + 1
        row = width * count
        patches = x.as_strided(
            (channels, tall, broad, high, wide * count), (height * row, row, count, row, 1)
        ).reshape(channels * tall * broad, -1)
        return _product(weights, patches).view(outputs, high, wide, count), (patches, x)

    def backward(
        self,
        ahead: Tensor,
        kept: Sequence[Tensor],
        weights: Sequence[Tensor],
        out: Sequence[Tensor],
        *,
        further: bool,
    ) -> Tensor:
        """See `Stage`."""
        patches, x = kept
        flat = ahead.reshape(len(ahead), -1)
        _grow(flat, patches, out)
        if not further:
            return x
        _, channels, tall, broad = weights[0].shape
        _, high, wide, count = ahead.shape
        back = torch.mm(weights[0].flatten(1).t(), flat)
        back = back.view(channels, tall, broad, high, wide * count)
        across = ahead.new_zeros(channels, tall, high, x.shape[2] * count)
        for j in range(broad):
            across[..., j * count : (j + wide) * count].add_(back[:, :, j])
        found = torch.zeros_like(x)
        for i in range(tall):
            found[:, i : i + high].flatten(2).add_(across[:, i])
        return found


@dataclass(frozen=True)
class MaxPool:
    """``nn.MaxPool2d`` without padding, by torch's kernels: to them examples are channels.

    Args:
        window: Height and width.
        stride: Of windows.
    """

    window: tuple[int, int]
    stride: tuple[int, int]
    weights: int = 0

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """See `Stage`: keeps the input and where its largest entries are."""
        del weights
        seen = x.permute(0, 3, 1, 2)
        most, where = torch.ops.aten.max_pool2d_with_indices(seen, self.window, self.stride)
        return most.permute(0, 2, 3, 1), (seen, where)

    def backward(
        self,
        ahead: Tensor,
        kept: Sequence[Tensor],
        weights: Sequence[Tensor],
        out: Sequence[Tensor],
        *,
        further: bool,
    ) -> Tensor:
        """See `Stage`."""
        del weights, out, further
        seen, where = kept
        found: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            ahead.permute(0, 3, 1, 2), seen, self.window, self.stride, (0, 0), (1, 1), False, where
        )
        return found.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Flat:
    """``nn.Flatten``: each example is a column from here on."""

    weights: int = 0

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """See `Stage`: keeps the input, for its shape."""
        del weights
        return x.reshape(-1, x.shape[-1]), (x,)

    def backward(
        self,
        ahead: Tensor,
        kept: Sequence[Tensor],
        weights: Sequence[Tensor],
        out: Sequence[Tensor],
        *,
        further: bool,
    ) -> Tensor:
        """See `Stage`."""
        del weights, out, further
        return ahead.view_as(kept[0])


@dataclass(frozen=True)
class Dense:
    """``nn.Linear`` on columns."""

    weights: int

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """See `Stage`: keeps the input."""
        return _product(weights, x), (x,)

    def backward(
        self,
        ahead: Tensor,
        kept: Sequence[Tensor],
        weights: Sequence[Tensor],
        out: Sequence[Tensor],
        *,
        further: bool,
    ) -> Tensor:
        """See `Stage`."""
        _grow(ahead, kept[0], out)
        return torch.mm(weights[0].t(), ahead) if further else ahead


@dataclass(frozen=True)
class Bend:
    """``nn.ReLU`` or ``nn.Tanh``.

    Args:
        tanh: Which one.
    """

    tanh: bool
    weights: int = 0

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """See `Stage`: keeps the output."""
        del weights
        y = x.tanh() if self.tanh else x.relu()
        return y, (y,)

    def backward(
        self,
        ahead: Tensor,
        kept: Sequence[Tensor],
        weights: Sequence[Tensor],
        out: Sequence[Tensor],
        *,
        further: bool,
    ) -> Tensor:
        """See `Stage`."""
        del weights, out, further
        if self.tanh:
            found: Tensor = torch.ops.aten.tanh_backward(ahead, kept[0])
        else:
            found = torch.ops.aten.threshold_backward(ahead, kept[0], 0)
        return found


def _product(weights: Sequence[Tensor], columns: Tensor) -> Tensor:
    """Returns what a weight (out, ...) and a bias, if there is one, make of `columns`."""
    weight, *bias = weights
    if not bias:
        return torch.mm(weight.flatten(1), columns)
    return torch.addmm(bias[0][:, None], weight.flatten(1), columns)


def _grow(ahead: Tensor, columns: Tensor, out: Sequence[Tensor]) -> None:
    """Writes the gradients of `_product`'s weights."""
    torch.mm(ahead, columns.t(), out=out[0].flatten(1))
    for bias in out[1:]:
        torch.sum(ahead, dim=1, out=bias)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Returns the layers of a plain sequence, one that stands in it twice twice; else none."""
    return list(model) if type(model) is nn.Sequential else []


def stages_of(model: nn.Module) -> tuple[Stage, ...]:
    """Returns the stages of a convolutional network; none if some layer is none of these.

    Pooling comes before the bend that it follows: the largest of what a rising function makes is
    what it makes of the largest, and there are fewer of those.
    """
    layers = layers_of(model)
    if not any(isinstance(layer, nn.Conv2d) for layer in layers):
        return ()
    stages = [stage for layer in layers if (stage := _stage_of(layer)) is not None]
    if len(stages) < len(layers) or sum(isinstance(stage, Flat) for stage in stages) != 1:
        return ()
    flat = next(place for place, stage in enumerate(stages) if isinstance(stage, Flat))
    spread = any(isinstance(stage, Dense) for stage in stages[:flat])
    if spread or not all(isinstance(stage, Dense | Bend) for stage in stages[flat + 1 :]):
        return ()
    for place in range(1, flat):
        if isinstance(stages[place], MaxPool) and isinstance(stages[place - 1], Bend):
            stages[place - 1 : place + 1] = stages[place], stages[place - 1]
    return tuple(stages)


def _stage_of(layer: nn.Module) -> Stage | None:
    count = len(list(layer.parameters()))
    if type(layer) is nn.Linear:
        return Dense(count)
    if type(layer) in {nn.ReLU, nn.Tanh}:
        return Bend(type(layer) is nn.Tanh)
    if type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
        return Flat()
    if type(layer) is nn.Conv2d:
        given = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return Convolution(count) if given == ((1, 1), (0, 0), (1, 1), 1) else None
    if type(layer) is nn.MaxPool2d:
        window, stride = _pair(layer.kernel_size), _pair(layer.stride)
        plain = _pair(layer.padding) == (0, 0) and _pair(layer.dilation) == (1, 1)
        plain = plain and not layer.ceil_mode and not layer.return_indices
        return MaxPool(window, stride) if plain else None
    return None


def _pair(given: int | Sequence[int]) -> tuple[int, int]:
    return (given, given) if isinstance(given, int) else (given[0], given[1])
