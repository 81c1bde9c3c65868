"""The reference: one node after another, one model, the training code of deployed nodes.

Any torch model, any task. With the same number of threads it gives the bits that a plain loop over
nodes gives, and those of a `fedsec.flower.local.LocalGrid`.
"""

import numpy as np

from fedsec.errors import StateError
from fedsec.flower.strategy import Matrix
from fedsec_sim.engines.engine import Bench, Job, Losses, OwnRows, Slots


class Loop:
    """See `Engine`.

    Args:
        bench: What is trained.
    """

    name = "loop"
    step = 1
    independent = True

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._slots = Slots(bench.model)
        self.rows = OwnRows(bench.layout.size)

    def train(self, job: Job, out: Matrix) -> Losses:
        """See `Engine`.

        Raises:
            StateError: The task raised something; names node and round.
        """
        bench, slots = self._bench, self._slots
        train = bench.population.train
        slots.send(job.sent)
        losses = np.empty(len(job.nodes))
        seeds = bench.seeds_of(job.nodes, job.round)
        for place, (node, seed) in enumerate(zip(job.nodes, seeds, strict=True)):
            slots.reset()
            part = train.part(node)
            try:
                losses[place] = bench.training(bench.task, bench.model, train.pool, seed, part)
            except Exception as error:
                where = f"node {bench.population.ids[node]}, round {job.round}"
                raise StateError(f"{where}: {type(error).__name__}: {error}") from error
            slots.update(out[place])
        return losses

    def close(self) -> None:
        """Nothing was started."""
