"""How updates become rows where nobody sends any: an engine writes them where the rule reads them.

    Attempt --> who answers --> train --> attack --> Collected --> the plan's own Combination

It takes the place of `fedsec.flower.collection.Plain` in the very round loop that a coordinator
runs, so that cohorts, weights, rules, privacy and reports are the deployed ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedsec.flower.collection import LONGEST, Attempt, Collected, Post, too_large
from fedsec.flower.messages import EXAMPLES, TRAIN_LOSS, Metrics, read_instruction
from fedsec.flower.replies import Reasons, frozen
from fedsec.flower.strategy import Matrix, Weighting, Weights
from fedsec.privacy.figures import Figures
from fedsec.vectors import Layout, Vector, is_finite, is_longer
from fedsec_sim.engines.engine import Engine, Job, Losses
from fedsec_sim.population import Population

WAVE = 128 << 20
"""Bytes of the rows that are in memory at once where only their mean is wanted."""
LEAST = 8  # rows in a wave, whatever they take
_PLAIN = 1e37  # a square of a length that float32 holds: no entry is NaN or infinite


@dataclass(frozen=True, eq=False)
class Turn:
    """What those who meddle with an attempt may know of it.

    Args:
        round: From 1.
        attempt: From 1.
        sent: The model's vector (d,).
        nodes: Ids of the nodes whose updates are in the rows (n,).
        weights: How much each counts (n,), to any sum.
        content: Of the coordinator's message.
    """

    round: int
    attempt: int
    sent: Vector
    nodes: tuple[int, ...]
    weights: Weights
    content: RecordDict


class Attendance(Protocol):
    """Who answers, and who does not."""

    def __call__(self, attempt: Attempt) -> tuple[Sequence[int], Reasons]:
        """Returns the ids of who answers, ascending, and of the others why not."""
        ...


class Meddler(Protocol):
    """Changes rows between the nodes and the coordinator."""

    def __call__(self, rows: Matrix, turn: Turn) -> None:
        """Writes to some of the `rows` (n, d), in place."""
        ...


def everybody(attempt: Attempt) -> tuple[Sequence[int], Reasons]:
    """Returns the whole cohort: nobody is late or lost."""
    return attempt.cohort, {}


class Simulated:
    """See `fedsec.flower.collection.Collection`.

    Args:
        engine: Trains nodes.
        population: Who they are.
        layout: Of the model.
        weigh: How much each node counts.
        whole: Whether the rows are wanted. Else only their mean is formed, wave by wave, in memory
            that does not grow with the cohort.
        withheld: Whether nodes report no figures, as under privacy; then all weigh alike.
        longest: L2 norm beyond which an update is refused.
        figures: That stand behind each row, encoded, where a plan with privacy tells some.
        attend: Who answers.
        meddle: Changes rows, e.g. an attack; needs `whole`.
    """

    def __init__(
        self,
        engine: Engine,
        population: Population,
        layout: Layout,
        weigh: Weighting,
        *,
        whole: bool,
        withheld: bool = False,
        longest: float = LONGEST,
        figures: Figures | None = None,
        attend: Attendance = everybody,
        meddle: Meddler | None = None,
    ) -> None:
        self._engine = engine
        self._population = population
        self._layout = layout
        self._weigh = weigh
        self._attend = attend
        self._meddle = meddle
        self._withheld = withheld
        self._longest = longest
        self._figures = figures
        self._whole = whole or meddle is not None or figures is not None

    def __call__(self, post: Post, attempt: Attempt) -> Collected:
        """See `Collection`; `post` is not used."""
        del post
        sent = self._layout.flatten(read_instruction(attempt.content).arrays)
        present, failed = self._attend(attempt)
        nodes = [self._population.position[node] for node in present]
        examples = self._population.train.sizes[nodes]
        job = Job(attempt.round, sent, nodes)
        if not self._whole and nodes:
            return self._mean(job, present, examples, failed)
        rows = self._engine.rows(len(nodes))
        losses = self._engine.train(job, rows)
        rows = self._with_figures(rows, examples, losses)
        weights = self._weights(examples)
        if self._meddle is not None:
            turn = Turn(
                attempt.round, attempt.number, sent, tuple(present), weights, attempt.content
            )
            self._meddle(rows, turn)
        usable, rejected = sort_rows(rows, present, self._longest)
        if rejected:
            rows, weights, losses = rows[usable], weights[usable], losses[usable]
            present, examples = [present[place] for place in usable], examples[usable]
        return Collected(
            rows=rows,
            groups=tuple((node,) for node in present),
            weights=weights,
            metrics=() if self._withheld else _metrics(examples, losses),
            failed=frozen(failed),
            rejected=frozen(rejected),
        )

    def _with_figures(self, rows: Matrix, examples: NDArray[np.int64], losses: Losses) -> Matrix:
        if self._figures is None:
            return rows
        told = [
            self._figures.encode({EXAMPLES: float(count), TRAIN_LOSS: float(loss)})
            for count, loss in zip(examples, losses, strict=True)
        ]
        shares = np.array(told, np.float32).reshape(len(rows), self._figures.count)
        return np.hstack((rows, shares))

    def _weights(self, examples: NDArray[np.int64]) -> Weights:
        if self._withheld or not len(examples):
            return np.full(len(examples), 1.0 / max(1, len(examples)))
        return self._weigh(examples.tolist())

    def _mean(
        self, job: Job, present: Sequence[int], examples: NDArray[np.int64], failed: Reasons
    ) -> Collected:
        """Returns one row, the mean of all. Where each wave ends depends on d alone."""
        step = wave(self._layout.size)
        total = np.zeros(self._layout.size, np.float32)
        weights = self._weigh(examples.tolist())
        losses: Losses = np.empty(len(job.nodes))
        rejected: dict[int, str] = {}
        kept: list[int] = []
        shares = weights / weights.sum()
        for start in range(0, len(job.nodes), step):
            part = slice(start, start + step)
            rows = self._engine.rows(len(job.nodes[part]))
            losses[part] = self._engine.train(Job(job.round, job.sent, job.nodes[part]), rows)
            usable, wrong = sort_rows(rows, present[part], self._longest)
            rejected |= wrong
            places = [start + place for place in usable]
            kept += places
            total += shares[places].astype(np.float32) @ (rows[usable] if wrong else rows)
        if rejected and kept:  # those that do not count must not thin the mean
            total *= np.float32(1 / shares[kept].sum())
        whole = float(weights[kept].sum()) if kept else 1.0
        mean_loss = float(weights[kept] @ losses[kept]) / whole
        metrics = Metrics(int(examples[kept].sum()), {TRAIN_LOSS: mean_loss})
        return Collected(
            rows=total[None] if kept else np.empty((0, total.size), np.float32),
            groups=(tuple(present[place] for place in kept),) if kept else (),
            weights=np.ones(min(1, len(kept))),
            metrics=(metrics,) if kept else (),
            failed=frozen(failed),
            rejected=frozen(rejected),
        )


def _metrics(examples: NDArray[np.int64], losses: Losses) -> tuple[Metrics, ...]:
    return tuple(
        Metrics(count, {TRAIN_LOSS: loss})
        for count, loss in zip(examples.tolist(), losses.tolist(), strict=True)
    )


def rows_of(rows: Matrix, turn: Turn) -> tuple[Attempt, Collected]:
    """Returns an attempt in which each node of `turn` sent its row and nothing else happened."""
    attempt = Attempt(turn.round, turn.attempt, turn.nodes, turn.content)
    groups = tuple((node,) for node in turn.nodes)
    return attempt, Collected(rows, groups, turn.weights, (), {}, {})


def wave(size: int) -> int:
    """Returns how many rows of `size` entries are in memory at once for a mean."""
    return max(LEAST, WAVE // (4 * size))


def sort_rows(
    rows: Matrix, nodes: Sequence[int], longest: float
) -> tuple[list[int], dict[int, str]]:
    """Returns the places of the usable rows, and what is wrong with the others by node id."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float32)
    if (squares <= min(longest**2, _PLAIN)).all():  # not so if one is NaN: the usual case, at once
        return list(range(len(rows))), {}
    usable: list[int] = []
    rejected: dict[int, str] = {}
    for place, (node, row) in enumerate(zip(nodes, rows, strict=True)):
        if not is_finite(row):
            bad = int(np.count_nonzero(~np.isfinite(row)))
            rejected[node] = f"not-finite: {bad} of {row.size} entries are NaN or infinite"
        elif is_longer(row, longest):
            rejected[node] = too_large(longest)
        else:
            usable.append(place)
    return usable, rejected
