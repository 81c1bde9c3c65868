"""Many small models at once: the forward pass of all nodes as one, and one backward pass.

Where a model is so small that calling an operation takes longer than computing it, stacking the
nodes saves the calls. Nodes are sorted by their number of steps, and only those that still train
are stepped; a batch that is not full is filled up with examples that count nothing.

Agrees with the loop to 1e-5, not in bits: a batched product adds in another order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedsec.flower.strategy import Matrix
from fedsec_sim.engines.engine import Bench, Job, Losses, OwnRows, Slots

CACHE = 4 << 20  # bytes of weights, gradients and the like of the nodes that are stepped together
MOST = 64  # nodes stepped together
COPIES = 4  # of a model that are alive in a step: weights, gradients, momentum, scratch

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def unsupported(bench: Bench) -> str:
    """Returns why a model is better trained in the loop, in a few words; "" if it is not."""
    model, weights = bench.model, list(bench.model.parameters())
    found = {
        "the model has buffers, e.g. running statistics": any(True for _ in model.buffers()),
        "the model draws random numbers": any(map(_is_random, model.modules())),
        "not all weights are trained in float32": not all(
            each.requires_grad and each.dtype == torch.float32 for each in weights
        ),
        "layers share weights": len(weights) < len(model.state_dict()),
        "convolutions are faster one node at a time on a CPU": any(
            isinstance(each, _CONVOLUTIONS) for each in model.modules()
        ),
    }
    return next((reason for reason, applies in found.items() if applies), "")


def _is_random(module: nn.Module) -> bool:
    """Says whether a layer draws numbers: dropout, or a recurrent or attention layer with some."""
    share = getattr(module, "p" if "Dropout" in type(module).__name__ else "dropout", 0)
    return isinstance(module, nn.RReLU) or (isinstance(share, float) and share > 0)


@dataclass(frozen=True, eq=False)
class _Batches:
    """What nodes see, step by step.

    Args:
        rows: Of the pool (m, steps, batch), filled up with row 0.
        counts: Examples that count (m, steps), 0 after a node's last step.
    """

    rows: Tensor
    counts: Tensor

    def steps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields rows (a, batch) and counts (a,) of the first a nodes, those that still train."""
        active = (self.counts > 0).sum(dim=0).tolist()
        for step, count in enumerate(active):
            yield self.rows[:count, step], self.counts[:count, step]


class Vmap:
    """See `Engine`.

    Args:
        bench: What is trained; `unsupported` has nothing against it.
        chunk: Nodes that are stepped together. None: as many as fit the cache.
    """

    name = "vmap"

    def __init__(self, bench: Bench, chunk: int | None = None) -> None:
        self._bench = bench
        self._slots = Slots(bench.model)
        size = bench.layout.size
        self.rows = OwnRows(size)
        self.step = chunk or max(1, min(MOST, CACHE // (4 * COPIES * size)))
        longest = int(bench.population.train.sizes.max())
        self._batch = min(bench.training.batch_size, longest)  # no wider than any node can fill
        self._names = [name for name, _ in bench.model.named_parameters()]
        self._shapes = [weight.shape for weight in bench.model.parameters()]
        self._generator = torch.Generator()
        self._kept: list[Tensor] = []
        self._forward = vmap(self._call)
        self._losses = vmap(self._loss)

    def train(self, job: Job, out: Matrix) -> Losses:
        """See `Engine`."""
        self._slots.send(job.sent)
        self._bench.model.train()
        losses = np.empty(len(job.nodes))
        for start in range(0, len(job.nodes), self.step):
            part = slice(start, start + self.step)
            losses[part] = self._together(job.nodes[part], job.round, out[part])
        return losses

    def close(self) -> None:
        """Nothing was started."""

    def _together(self, nodes: Sequence[int], round_number: int, out: Matrix) -> Losses:
        """Trains `nodes` at once; returns their losses."""
        training = self._bench.training
        sizes = self._bench.population.train.sizes[list(nodes)].tolist()
        steps = [training.step_count(size) for size in sizes]
        order = sorted(range(len(nodes)), key=lambda place: -steps[place])
        batches = self._batches([nodes[place] for place in order], round_number)
        stacked = self._stack(len(nodes))
        sent = [weight[:1].clone() for weight in stacked] if training.proximal_mu else []
        optimizer = training.make_optimizer(stacked)
        totals = torch.zeros(len(nodes), dtype=torch.float64)
        active = len(nodes)
        for rows, counts in batches.steps():
            if len(rows) < active:
                active = len(rows)
                optimizer.keep(active)
            weights = [weight[:active].detach().requires_grad_() for weight in stacked]
            means = self._means(weights, rows, counts)
            gradients = torch.autograd.grad(means.sum(), weights)
            optimizer.step(training.pull(gradients, weights, sent))
            totals[:active] += means.detach().double() * counts
        self._write(stacked, order, out)
        found = np.empty(len(nodes))
        found[order] = (totals / batches.counts.sum(dim=1)).numpy()
        return found

    def _batches(self, nodes: list[int], round_number: int) -> _Batches:
        bench, size = self._bench, self._batch
        train = bench.population.train
        sizes = train.sizes[nodes].tolist()
        steps = [bench.training.step_count(examples) for examples in sizes]
        rows = np.zeros((len(nodes), max(steps) * size), np.int64)
        counts = np.zeros((len(nodes), max(steps)), np.int64)
        for place, (node, examples) in enumerate(zip(nodes, sizes, strict=True)):
            generator = self._generator.manual_seed(bench.seed_of(node, round_number))
            start, step = train.starts[node], 0
            for seen in bench.training.passes(examples, generator):
                begin, full = step * size, len(seen) // size
                rows[place, begin : begin + len(seen)] = train.rows[start + seen.numpy()]
                counts[place, step : step + full] = size
                if rest := len(seen) % size:
                    counts[place, step + full] = rest
                step += full + (rest > 0)
        shape = (len(nodes), -1, size)
        return _Batches(torch.from_numpy(rows.reshape(shape)), torch.from_numpy(counts))

    def _stack(self, count: int) -> list[Tensor]:
        """Returns the weights that were sent, `count` times (m, ...), in memory that stays."""
        if not self._kept:
            self._kept = [torch.empty(self.step, *shape) for shape in self._shapes]
        pieces = torch.split(self._slots.sent_row, [shape.numel() for shape in self._shapes])
        return [
            kept[:count].copy_(piece.view(1, *shape))
            for kept, piece, shape in zip(self._kept, pieces, self._shapes, strict=True)
        ]

    def _means(self, weights: list[Tensor], rows: Tensor, counts: Tensor) -> Tensor:
        """Returns each node's mean loss (a,) over the examples of its batch that count."""
        pool = self._bench.population.train.pool
        outputs = self._forward(dict(zip(self._names, weights, strict=True)), pool.inputs[rows])
        targets = pool.targets[rows]
        each = self._losses(outputs.flatten(0, 1), targets.flatten(0, 1)).view(rows.shape)
        counted = torch.arange(rows.shape[1]) < counts[:, None]
        return each.where(counted, 0.0).sum(dim=1) / counts

    def _call(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        output: Tensor = functional_call(self._bench.model, weights, (inputs,))
        return output

    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of one example: the task's is a mean over a batch."""
        return self._bench.task.loss(output[None], target[None])

    @torch.no_grad()
    def _write(self, stacked: list[Tensor], order: list[int], out: Matrix) -> None:
        rows = torch.cat([weight.flatten(1) for weight in stacked], dim=1)
        rows.sub_(self._slots.sent_row)
        torch.from_numpy(out)[torch.tensor(order)] = rows
