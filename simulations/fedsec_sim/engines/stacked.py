"""Losses and gradients of many copies of a small model at once, each with weights of its own.

A perceptron under cross entropy has a backward pass of a few batched products: written out, it
takes half the time of vmap and autograd, which spend theirs on finding it. Convolutional networks
are written out in `fedsec_sim.engines.convolved`. All else goes through vmap. All three agree with
the loop to 1e-5.

Kernels round in an order that depends on where an array begins. By hand, all widths are filled up
to 64 bytes, so that every node's arrays begin alike, and its bits do not depend on its neighbours.
vmap offers no such hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedsec.tasks.task import Examples, Task
from fedsec_sim.engines.convolved import Stage, layers_of, stages_of

_ALIGNED = 16  # floats in 64 bytes
_KINDS = (nn.Flatten, nn.Linear, nn.ReLU, nn.Tanh)
_TRIED = ((1, 2), (7, 10), (64, 3))
"""Batch and classes of made answers, on which a task's loss is compared with cross entropy."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What each node sees in a step.

    Args:
        rows: Of the pool of examples (a, batch), filled up with any.
        counts: How many of them count (a,), >= 1; the first ones.
        full: Whether all count.
    """

    rows: Tensor
    counts: Tensor
    full: bool

    @property
    def shares(self) -> Tensor:
        """How much each example counts in its node's mean (a, batch), or (1, 1) if all do."""
        size = self.rows.shape[1]
        if self.full:
            return torch.ones(1, 1) / size  # rounded as below
        return (torch.arange(size) < self.counts[:, None]).float() / self.counts[:, None]


class Gradients(Protocol):
    """Differentiates each node's mean loss in its own weights."""

    @property
    def shapes(self) -> Sequence[torch.Size]:
        """Of the weights' memory for one node; what is wider than the weight holds 0."""
        ...

    @property
    def independent(self) -> bool:
        """Whether a node's bits are the same whichever nodes are beside it."""
        ...

    def __call__(self, weights: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        """Returns mean losses (a,) and a gradient for each of `weights`, which are (a, ...)."""
        ...


class ByVmap:
    """Any model that vmap takes: all forward passes as one, and an ordinary backward pass.

    Args:
        model: Only its structure counts.
        task: Knows the loss, a mean over a batch.
        pool: All examples.
    """

    independent = False

    def __init__(self, model: nn.Module, task: Task, pool: Examples) -> None:
        self.shapes = [weight.shape for weight in model.parameters()]
        self._model = model
        self._task = task
        self._pool = pool
        self._names = [name for name, _ in model.named_parameters()]
        self._forward = vmap(self._call)
        self._losses = vmap(self._loss)

    def __call__(self, weights: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        """See `Gradients`."""
        leaves = [weight.detach().requires_grad_() for weight in weights]
        inputs, targets = self._pool.inputs[batch.rows], self._pool.targets[batch.rows]
        outputs = self._forward(dict(zip(self._names, leaves, strict=True)), inputs)
        losses = self._losses(outputs.flatten(0, 1), targets.flatten(0, 1))
        shares = batch.shares
        # Not a product with 0: what does not count may not be finite.
        means = (losses.view(batch.rows.shape) * shares).where(shares > 0, 0.0).sum(dim=1)
        return means.detach(), torch.autograd.grad(means.sum(), leaves)

    def _call(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        output: Tensor = functional_call(self._model, weights, (inputs,))
        return output

    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of one example: the task's is a mean over a batch."""
        return self._task.loss(output[None], target[None])


class ByHand:
    """A perceptron under cross entropy; see `is_perceptron` and `is_cross_entropy`.

    Args:
        model: Its layers.
        pool: All examples; targets are classes.
    """

    independent = True

    def __init__(self, model: nn.Module, pool: Examples) -> None:
        self.shapes = [torch.Size(map(_wide, weight.shape)) for weight in model.parameters()]
        self._layers = [each for each in layers_of(model) if not isinstance(each, nn.Flatten)]
        self._parameters = [len(list(each.parameters())) for each in self._layers]
        self._classes = [e for e in self._layers if isinstance(e, nn.Linear)][-1].out_features
        inputs = pool.inputs.flatten(1)
        missing = _wide(inputs.shape[1]) - inputs.shape[1]
        self._inputs = nn.functional.pad(inputs, (0, missing)) if missing else inputs
        self._targets = pool.targets

    @torch.no_grad()
    def __call__(self, weights: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        """See `Gradients`."""
        flat = batch.rows.flatten()
        targets = self._targets.index_select(0, flat).view(*batch.rows.shape, 1)
        x = self._inputs.index_select(0, flat).view(*batch.rows.shape, -1)
        seen, left = [], list(weights)
        for layer, count in zip(self._layers, self._parameters, strict=True):
            seen.append(x)
            x = _forward(layer, x, left[:count])
            del left[:count]
        logs = torch.log_softmax(x[:, :, : self._classes], dim=2)
        shares = batch.shares
        picked = (logs.gather(2, targets).squeeze(2) * shares).neg_()
        means = (picked if batch.full else picked.where(shares > 0, 0.0)).sum(dim=1)
        ahead = logs.exp_().scatter_add_(2, targets, torch.full_like(targets, -1, dtype=logs.dtype))
        ahead.mul_(shares[:, :, None])
        if not batch.full:
            ahead.masked_fill_(shares[:, :, None] == 0, 0.0)
        if missing := x.shape[2] - self._classes:
            ahead = nn.functional.pad(ahead, (0, missing))
        return means, self._backward(ahead, weights, seen, x)

    def _backward(
        self, ahead: Tensor, weights: Sequence[Tensor], seen: list[Tensor], last: Tensor
    ) -> Sequence[Tensor]:
        """Returns the weights' gradients from that of the outputs and what each layer saw."""
        found: list[Tensor] = []
        place, outputs = len(weights), [*seen[1:], last]
        for index in reversed(range(len(self._layers))):
            layer, out = self._layers[index], outputs[index]
            if isinstance(layer, nn.ReLU):
                ahead = torch.ops.aten.threshold_backward(ahead, out, 0)
            elif isinstance(layer, nn.Tanh):
                ahead = torch.ops.aten.tanh_backward(ahead, out)
            else:
                place -= self._parameters[index]
                grown = [ahead.sum(dim=1)] * (self._parameters[index] - 1)  # a bias may be missing
                found[:0] = [torch.bmm(ahead.mT, seen[index]), *grown]
                if place:
                    ahead = torch.bmm(ahead, weights[place])
        return found


class ByStages:
    """A convolutional network under cross entropy, one node after another.

    Args:
        model: Its structure counts.
        stages: Of it; see `stages_of`.
        pool: All examples; targets are classes.
    """

    independent = True

    def __init__(self, model: nn.Module, stages: Sequence[Stage], pool: Examples) -> None:
        self._sizes = [len(weight) for weight in model.parameters()]
        self.shapes = [
            torch.Size((_wide(len(weight)), *weight.shape[1:])) for weight in model.parameters()
        ]
        self._stages = stages
        self._first = next(place for place, stage in enumerate(stages) if stage.weights)
        self._shape = pool.inputs.shape[1:]
        self._inputs = pool.inputs.flatten(1)
        self._targets = pool.targets

    @torch.no_grad()
    def __call__(self, weights: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        """See `Gradients`."""
        means = torch.empty(len(batch.rows))
        found = [torch.zeros_like(weight) for weight in weights]
        for place, count in enumerate(batch.counts.tolist()):
            means[place] = self._one(
                batch.rows[place, :count], self._of(weights, place), self._of(found, place)
            )
        return means, found

    def _of(self, stacked: Sequence[Tensor], place: int) -> list[Tensor]:
        """Returns one node's tensors."""
        return [each[place, :size] for each, size in zip(stacked, self._sizes, strict=True)]

    def _one(self, rows: Tensor, weights: list[Tensor], out: list[Tensor]) -> Tensor:
        """Returns a node's mean loss on `rows` (batch,); writes the gradients to `out`."""
        x = self._inputs.index_select(0, rows).t().contiguous().view(*self._shape, len(rows))
        targets = self._targets.index_select(0, rows)[None]
        kept, place = [], 0
        for stage in self._stages:
            x, keep = stage.forward(x, weights[place : place + stage.weights])
            kept.append(keep)
            place += stage.weights
        logs = torch.log_softmax(x, dim=0)
        mean = -logs.gather(0, targets).mean()
        ahead = logs.exp_().scatter_add_(0, targets, torch.full(targets.shape, -1.0))
        ahead.div_(len(rows))
        for index in reversed(range(self._first, len(self._stages))):
            stage, end = self._stages[index], place
            place -= stage.weights
            own, grown, further = weights[place:end], out[place:end], index > self._first
            ahead = stage.backward(ahead, kept[index], own, grown, further=further)
        return mean


def _wide(width: int) -> int:
    return -(-width // _ALIGNED) * _ALIGNED


def _forward(layer: nn.Module, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Returns what a layer with `weights` makes of x (a, batch, width)."""
    if isinstance(layer, nn.ReLU):
        return torch.relu(x)
    if isinstance(layer, nn.Tanh):
        return torch.tanh(x)
    weight, *bias = weights
    if not bias:
        return torch.bmm(x, weight.mT)
    return torch.baddbmm(bias[0][:, None], x, weight.mT)


def is_perceptron(model: nn.Module) -> bool:
    """Says whether a model is a sequence of linear layers with ReLU or tanh between them."""
    layers = layers_of(model)
    plain = bool(layers) and all(type(each) in _KINDS for each in layers)
    flat = all(
        place == 0 and (each.start_dim, each.end_dim) == (1, -1)
        for place, each in enumerate(layers)
        if isinstance(each, nn.Flatten)
    )
    return plain and flat and any(isinstance(each, nn.Linear) for each in layers)


def is_cross_entropy(task: Task) -> bool:
    """Says whether a task's loss has the bits of torch's cross entropy on made answers."""
    generator = torch.Generator().manual_seed(1)
    for size, classes in _TRIED:
        outputs = torch.randn(size, classes, generator=generator)
        targets = torch.randint(classes, (size,), generator=generator)
        try:
            found = task.loss(outputs, targets)
        except Exception:  # noqa: BLE001 - another loss may not take such answers at all
            return False
        if not torch.equal(found, nn.functional.cross_entropy(outputs, targets)):
            return False
    return True


def gradients_of(model: nn.Module, task: Task, pool: Examples) -> Gradients:
    """Returns the fastest way that does for a model."""
    classes = pool.targets.dtype == torch.int64 and pool.targets.dim() == 1
    floats = pool.inputs.dtype == torch.float32
    if classes and floats and is_cross_entropy(task):
        if is_perceptron(model):
            return ByHand(model, pool)
        if stages := stages_of(model):
            return ByStages(model, stages, pool)
    return ByVmap(model, task, pool)
