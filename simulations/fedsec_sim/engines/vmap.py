"""Many small models at once: the forward pass of all nodes as one, and one backward pass.

Where a model is so small that calling an operation takes longer than computing it, stacking the
nodes saves the calls. Nodes are sorted by their number of steps, and only those that still train
are stepped; a batch that is not full is filled up with examples that count nothing.

Agrees with the loop to 1e-5, not in bits: a batched product adds in another order. Perceptrons have
the same bits in any chunk; other models only where the same nodes are stepped together, so that
work is given out in whole chunks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsec.flower.strategy import Matrix
from fedsec_sim.engines.engine import Bench, Job, Losses, OwnRows, Slots
from fedsec_sim.engines.stacked import Batch, ByVmap, gradients_of
from fedsec_sim.population import Indices

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
        "such convolutions are faster in the loop on a CPU": any(
            isinstance(each, _CONVOLUTIONS) for each in model.modules()
        )
        and isinstance(gradients_of(model, bench.task, bench.population.train.pool), ByVmap),
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
        rows: Of the pool (steps, m, batch), filled up.
        counts: Examples that count (steps, m), 0 after a node's last step; descending in m where
            they are 0.
    """

    rows: Indices
    counts: Indices

    def steps(self) -> Iterator[Batch]:
        """Yields a batch of the first a nodes, those that still train, for each step."""
        rows, counts = torch.from_numpy(self.rows), torch.from_numpy(self.counts)
        size = self.rows.shape[2]
        active = (self.counts > 0).sum(axis=1).tolist()
        full = (self.counts == size).sum(axis=1).tolist()
        for step, count in enumerate(active):
            yield Batch(rows[step, :count], counts[step, :count], full[step] == count)


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
        self._shapes = [weight.shape for weight in bench.model.parameters()]
        self._generator = torch.Generator()
        self._kept: list[Tensor] = []
        self._gradients = gradients_of(bench.model, bench.task, bench.population.train.pool)

    @property
    def independent(self) -> bool:
        """See `Engine`: of perceptrons."""
        return self._gradients.independent

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
        sizes = self._bench.population.train.sizes[list(nodes)]
        order = np.argsort([-training.step_count(size) for size in sizes.tolist()], kind="stable")
        batches = self._batches([nodes[place] for place in order], round_number)
        stacked = self._stack(len(nodes))
        sent = [weight[:1].clone() for weight in stacked] if training.proximal_mu else []
        optimizer = training.make_optimizer(stacked)
        totals = torch.zeros(len(nodes), dtype=torch.float64)
        active = len(nodes)
        for batch in batches.steps():
            if len(batch.rows) < active:
                active = len(batch.rows)
                optimizer.keep(active)
            weights = [weight[:active] for weight in stacked]
            means, gradients = self._gradients(weights, batch)
            optimizer.step(training.pull(gradients, weights, sent))
            totals[:active] += means.double() * batch.counts
        self._write(stacked, order, out)
        found = np.empty(len(nodes))
        found[order] = totals.numpy() / batches.counts.sum(axis=0)
        return found

    def _batches(self, nodes: list[int], round_number: int) -> _Batches:
        bench, size = self._bench, self._batch
        train = bench.population.train
        sizes = train.sizes[nodes]
        whole = -(-sizes // size)  # batches of a pass, the last of which may be smaller
        steps = np.array([bench.training.step_count(examples) for examples in sizes.tolist()])
        rows = np.zeros((len(nodes), steps.max() * size), np.int64)
        lengths = (whole * size).tolist()
        seeds = bench.seeds_of(nodes, round_number)
        for seed, row, examples, length in zip(seeds, rows, sizes.tolist(), lengths, strict=True):
            generator = self._generator.manual_seed(seed)
            begin = 0
            for seen in bench.training.passes(examples, generator):
                row[begin : begin + len(seen)] = seen.numpy()
                begin += length
        rows += train.starts[nodes][:, None]
        step = np.arange(steps.max())[:, None]
        counts = np.minimum(size, sizes - step % whole * size) * (step < steps)
        shaped = train.rows[rows].reshape(len(nodes), -1, size)
        return _Batches(np.ascontiguousarray(shaped.transpose(1, 0, 2)), counts)

    def _stack(self, count: int) -> list[Tensor]:
        """Returns the weights that were sent, `count` times (m, ...), in memory that stays."""
        if not self._kept:
            self._kept = [torch.zeros(self.step, *shape) for shape in self._gradients.shapes]
        stacked = [kept[:count] for kept in self._kept]
        pieces = torch.split(self._slots.sent_row, [shape.numel() for shape in self._shapes])
        for whole, own, piece in zip(stacked, self._own(stacked), pieces, strict=True):
            if own.shape != whole.shape:
                whole.zero_()  # a node that diverged may have left something there
            own.copy_(piece.view(1, *own.shape[1:]))
        return stacked

    def _own(self, stacked: list[Tensor]) -> list[Tensor]:
        """Returns the weights in their memory, without what fills it up."""
        return [
            whole[(slice(None), *map(slice, shape))]
            for whole, shape in zip(stacked, self._shapes, strict=True)
        ]

    @torch.no_grad()
    def _write(self, stacked: list[Tensor], order: NDArray[np.intp], out: Matrix) -> None:
        rows = torch.cat([weight.flatten(1) for weight in self._own(stacked)], dim=1)
        rows.sub_(self._slots.sent_row)
        out[order] = rows.numpy()
