"""Runs a cell: its plan, simulated, under its attack.

    rows of the nodes --> attack --> clip, code, noise share --> sums of groups --> rule --> model

All of it is what a plan's simulation does, but for what no plan says: `Seen`, `Annealed`.
"""

import numpy as np

from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt, Collected, Collection, Post
from fedsec.flower.messages import read_heading
from fedsec.flower.perturb import Perturb
from fedsec.privacy.clipping import clip_factor
from fedsec.vectors import norm
from fedsec_sim.chance import ADVERSARIES, CODE, generator
from fedsec_sim.defences import keystream
from fedsec_sim.lab import Lab
from fedsec_sim.setting import Collecting, groups_of, sums_of
from fedsec_sim.simulate import simulate
from fedsec_sim.threats import Threat
from fedsec_sim.three_defences.attack import Against, worst_places
from fedsec_sim.three_defences.cell import CLIP, Cell, Outcome
from fedsec_sim.three_defences.plans import length_of, multiplier, plan_of, row_noise
from fedsec_sim.three_defences.recipes import population_of, task_of


class Seen:
    """Rows of single nodes, clipped and, under local privacy, noised by honest ones.

    Args:
        inner: Collects the rows.
        cell: Says how much noise there is.
    """

    def __init__(self, inner: Collection, cell: Cell) -> None:
        self._inner = inner
        self._perturb = None if cell.epsilon is None else Perturb(CLIP, multiplier(cell))
        self._seed = cell.seed
        self._hostile = frozenset(hostile_of(cell))

    def __call__(self, post: Post, attempt: Attempt) -> Collected:
        """See `Collection`."""
        found = self._inner(post, attempt)
        for row, (node,) in zip(found.rows, found.groups, strict=True):
            if node in self._hostile:
                continue
            if self._perturb is None:
                row[:] = row * np.float32(clip_factor(norm(row), CLIP))
            else:
                source = keystream(self._seed, CODE, attempt.round, attempt.number, node)
                row[:] = self._perturb(row, source)
        return found


class Annealed:
    """Secret sums whose clip, and noise with it, shrinks from round to round.

    Args:
        inner: Collects the rows.
        cell: Says by how much.
    """

    def __init__(self, inner: Collection, cell: Cell) -> None:
        how, hostile = cell.how, frozenset(hostile_of(cell))
        plans = [plan_of(cell, CLIP * how.anneal**done) for done in range(how.rounds)]
        self._sums = [sums_of(plan, inner, length_of(cell), hostile) for plan in plans]

    def __call__(self, post: Post, attempt: Attempt) -> Collected:
        """See `Collection`."""
        return self._sums[read_heading(attempt.content).round - 1](post, attempt)


def run(cell: Cell) -> Outcome:
    """Returns what a cell comes to; takes a second or ten.

    Raises:
        ConfigError: It is refused, or its noise cannot be drawn.
    """
    if cell.refused:
        raise ConfigError(cell.refused)
    history = simulate(
        plan_of(cell),
        lab_of(cell),
        task=task_of(cell.data, cell.how.waves),
        collect=_collect(cell),
        engine="vmap",
        workers=1,
    )
    return Outcome(round(history.accuracy, 4), multiplier(cell), round(row_noise(cell), 4))


def lab_of(cell: Cell) -> Lab:
    """Returns who takes part, and who attacks."""
    population = population_of(cell.data, cell.nodes, cell.seed)
    momentum = cell.how.momentum
    if not cell.hostile:
        return Lab(population=population, momentum=momentum)
    attack = Against(cell.factor, CLIP, cell.how.anneal)
    threat = Threat(cell.hostile, attack, ids=hostile_of(cell))
    return Lab(population=population, momentum=momentum, threat=threat)


def hostile_of(cell: Cell) -> tuple[int, ...]:
    """Returns the ids of the hostile nodes, ascending."""
    if cell.placement == "worst":
        return worst_places(groups_in(cell), cell.hostile)
    ids = population_of(cell.data, cell.nodes, cell.seed).ids
    drawn = generator(cell.seed, ADVERSARIES).permutation(cell.nodes)[: cell.hostile]
    return tuple(sorted(ids[place] for place in drawn))


def groups_in(cell: Cell) -> tuple[tuple[int, ...], ...]:
    """Returns the ids of the nodes of each sum, as the plan's simulation draws them."""
    ids = population_of(cell.data, cell.nodes, cell.seed).ids
    if cell.size == 1:
        return tuple((node,) for node in ids)
    return tuple(map(tuple, groups_of(plan_of(cell))(ids)))


def _collect(cell: Cell) -> Collecting | None:
    """Returns what takes the place of the plan's own collection; None: nothing does."""
    if cell.size == 1:
        return lambda inner: Seen(inner, cell)
    return None if cell.how.anneal == 1.0 else lambda inner: Annealed(inner, cell)
