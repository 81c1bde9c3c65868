"""One cell of the map: a federation under attack, with whatever of the three defences it has.

    rows of the nodes --> attack --> clip, code, noise share --> sums of groups --> rule --> model
                                     `fedsec.flower.sums`                           `fedsec.robust`

Hostile nodes know every honest update, agree with each other, and keep to no clip: each sends
`factor` times the clip, against the honest nodes' mean. In the worst case no group has two of them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Literal, TypeAlias

import numpy as np

from fedsec.encoding import FixedPoint, Rotated, padded
from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt, Collected, Collection, Post
from fedsec.flower.combination import Combination, Weighted
from fedsec.flower.messages import Heading
from fedsec.flower.perturb import Perturb
from fedsec.flower.robust import RobustCombination
from fedsec.flower.sums import ROTATION, SumForm
from fedsec.plan import FederationPlan, Privacy, Robust
from fedsec.plan.robust import RuleName
from fedsec.plan.terms import price
from fedsec.privacy.calibration import calibrate
from fedsec.privacy.distributed import NoisySum, set_up
from fedsec.privacy.skellam import Skellam
from fedsec.secagg.groups import draw_groups
from fedsec.vectors import norm
from fedsec_sim.attacks.view import View
from fedsec_sim.chance import ADVERSARIES, CODE, PARTS, generator
from fedsec_sim.defences import keystream
from fedsec_sim.lab import Lab
from fedsec_sim.secret_sums import SecretSums, together
from fedsec_sim.simulate import simulate
from fedsec_sim.threats import Threat
from fedsec_sim.three_defences.recipes import RECIPES, SEED, Recipe, population_of, task_of

Placement: TypeAlias = Literal["none", "worst", "random"]

CLIP = 1.0
DELTA = 1e-5
WORD_BITS = 32
RADIUS = 0.3
"""Of centred clipping, over the clip, where there is no noise: about the mean of honest nodes."""
DROPOUTS, CORRUPT = 1, 1
"""Of each group of a private cell: may be missing, and may leave their noise out or tell it."""

SHARE_LOST = 0.2
"""Of one sum of all: as much again of dropouts and corrupt nodes together."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A federation of the map.

    Attributes:
        data: ``"digits"`` or ``"mnist"``.
        nodes: n.
        epsilon: Of the whole run for each node, zero-out, at delta 1e-5; None: no noise.
        hostile: f, hostile nodes.
        factor: How many times longer than the clip their updates are; 0 where there are none.
        placement: ``"worst"``: as many groups have one as can be; ``"random"``: as it happens.
        size: g, nodes of a sum: 1: each is seen; n: one sum of all.
        rule: What is made of the rows.
        recipe: How it is learned.
    """

    data: str
    nodes: int
    epsilon: float | None
    hostile: int
    factor: int
    placement: Placement
    size: int
    rule: RuleName
    recipe: str = "plain"

    @property
    def key(self) -> str:
        """Names the cell in a file."""
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())

    @property
    def rows(self) -> int:
        """G, what the rule gets."""
        return self.nodes // self.size

    @property
    def refused(self) -> str:
        """Why a plan would be refused; "" where it would not."""
        if self.rule != "mean" and 2 * self.hostile >= self.rows:
            return f"{self.hostile} hostile nodes may spoil half of {self.rows} sums"
        return ""

    @property
    def how(self) -> Recipe:
        """How it is learned."""
        return RECIPES[self.recipe][self.data, self.nodes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cell came to.

    Attributes:
        accuracy: Of the last model on examples that no node has.
        multiplier: Of the noise, over the clip after rounding; 0: no noise.
        noise: Standard deviation of the noise in a row, all entries together, over the clip.
    """

    accuracy: float
    multiplier: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Against:
    """Every hostile node sends the same: against the honest mean, of a length of its own.

    Args:
        length: L2 norm of what is sent.
        clip: To which honest nodes clip.
    """

    length: float
    clip: float

    def __call__(self, view: View) -> None:
        """See `fedsec_sim.attacks.view.Attack`."""
        honest = view.honest
        norms = np.linalg.norm(honest, axis=1)
        mean = np.minimum(1.0, self.clip / np.maximum(norms, 1e-12)).astype(np.float32) @ honest
        length = norm(mean)
        view.write(mean * np.float32(-self.length / length) if length else mean)


class Seen:
    """Rows of single nodes, clipped and, under local privacy, noised by honest ones.

    Args:
        inner: Collects the rows.
        perturb: Of local privacy; None: clipped alone.
        hostile: Ids of nodes that do neither.
    """

    def __init__(self, inner: Collection, perturb: Perturb | None, hostile: frozenset[int]) -> None:
        self._inner = inner
        self._perturb = perturb
        self._hostile = hostile

    def __call__(self, post: Post, attempt: Attempt) -> Collected:
        """See `Collection`."""
        found = self._inner(post, attempt)
        for row, (node,) in zip(found.rows, found.groups, strict=True):
            if node in self._hostile:
                continue
            if self._perturb is None:
                row[:] = row * np.float32(min(1.0, CLIP / max(norm(row), 1e-12)))
            else:
                source = keystream(SEED, CODE, attempt.round, attempt.number, node)
                row[:] = self._perturb(row, source)
        return found


@dataclass(frozen=True)
class Trial:
    """A cell made ready.

    Args:
        cell: Which.
    """

    cell: Cell
    groups: tuple[tuple[int, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _groups(self.cell))

    @property
    def hostile(self) -> tuple[int, ...]:
        """Returns the ids of the hostile nodes."""
        cell = self.cell
        if cell.placement == "worst":  # one in each group, then a second one
            most = max(map(len, self.groups))
            dealt = [
                group[turn] for turn in range(most) for group in self.groups if turn < len(group)
            ]
            return tuple(sorted(dealt[: cell.hostile]))
        ids = population_of(cell.data, cell.nodes).ids
        drawn = generator(SEED, ADVERSARIES).permutation(cell.nodes)[: cell.hostile]
        return tuple(sorted(ids[place] for place in drawn))

    def collect(self, inner: Collection) -> Collection:
        """Returns what takes the nodes' rows to those that the coordinator sees."""
        cell, hostile = self.cell, frozenset(self.hostile)
        if cell.size == 1:
            noise = None if cell.epsilon is None else Perturb(CLIP, multiplier(cell))
            return Seen(inner, noise, hostile)
        groups = together if cell.size == cell.nodes else self._split
        return SecretSums(inner, self.form, SEED, groups=groups, hostile=hostile)

    def _split(self, cohort: Sequence[int]) -> Sequence[Sequence[int]]:
        del cohort  # all nodes take part in every round
        return self.groups

    def form(self, nodes: int, heading: Heading) -> SumForm:
        """Returns how vectors of a sum of so many nodes are laid out."""
        size = length_of(self.cell)
        if self.cell.epsilon is None:
            return SumForm(FixedPoint(size, CLIP, nodes, WORD_BITS), CLIP, nodes)
        found = noisy(self.cell, nodes)
        seed = hashlib.sha256(ROTATION + f"{heading.round} {heading.attempt}".encode()).digest()
        code = Rotated(size, CLIP, found.scale, found.bits, seed, Skellam(found.share))
        return SumForm(code, CLIP, nodes)

    def combine(self) -> Combination:
        """Returns what is made of the rows."""
        cell = self.cell
        if cell.rule == "mean":
            return Weighted()
        options: dict[str, float | int] = {}
        if cell.rule == "centered-clipping":
            # about as long as an honest row is, noise included
            options = {"radius": CLIP * (RADIUS + row_noise(cell)), "iterations": 1}
        robust = Robust(rule=cell.rule, byzantine=cell.hostile, options=options)
        return RobustCombination(robust, chance=lambda: generator(SEED, PARTS), threads=1)

    def lab(self) -> Lab:
        """Returns who takes part, and who attacks."""
        cell = self.cell
        population = population_of(cell.data, cell.nodes)
        momentum = cell.how.momentum
        if not cell.hostile:
            return Lab(population=population, momentum=momentum)
        attack = Against(CLIP * cell.factor, CLIP)
        threat = Threat(cell.hostile, attack, ids=self.hostile)
        return Lab(population=population, momentum=momentum, threat=threat)


def run(cell: Cell) -> Outcome:
    """Returns what a cell comes to; takes a second or ten.

    Raises:
        ConfigError: It is refused, or its noise cannot be drawn.
    """
    if cell.refused:
        raise ConfigError(cell.refused)
    trial = Trial(cell)
    history = simulate(
        plan_of(cell),
        trial.lab(),
        task=task_of(cell.data, cell.how.waves),
        combine=trial.combine(),
        collect=trial.collect,
        engine="vmap",
        workers=1,
    )
    accuracy = round(history.accuracy, 4)
    return Outcome(accuracy, multiplier(cell), round(row_noise(cell), 4))


def plan_of(cell: Cell) -> FederationPlan:
    """Returns what is learned; the defences are the cell's."""
    how = cell.how
    return FederationPlan.parse(
        f"""
schema = 1
name = "three defences"
[task]
name = "digits"
options = {{ model = "logistic" }}
[training]
rounds = {how.rounds}
local_steps = {how.steps}
batch_size = {max(population_of(cell.data, cell.nodes).train.sizes)}
learning_rate = 1.0
momentum = 0.0
server_learning_rate = {how.step}
seed = {SEED}
[nodes]
min_available = {cell.nodes}
[round]
evaluate_every = {how.rounds}
"""
    )


def _groups(cell: Cell) -> tuple[tuple[int, ...], ...]:
    ids = population_of(cell.data, cell.nodes).ids
    if cell.size == cell.nodes:
        return (tuple(ids),)
    if cell.size == 1:
        return tuple((node,) for node in ids)
    return draw_groups(ids, cell.size, hashlib.sha256(b"the map's groups").digest())


def honest_shares(size: int, nodes: int) -> int:
    """Returns how many noise shares a sum of `size` holds at least, of a run of `nodes`."""
    if size == nodes:
        return size - 2 * round(SHARE_LOST / 2 * size)
    return size - DROPOUTS - CORRUPT


def multiplier(cell: Cell) -> float:
    """Returns the noise multiplier that its epsilon asks for; 0 without noise."""
    if cell.epsilon is None:
        return 0.0
    model: Literal["local", "distributed"] = "local" if cell.size == 1 else "distributed"
    return _multiplier(model, cell.epsilon, cell.how.rounds)


@cache
def _multiplier(model: Literal["local", "distributed"], epsilon: float, rounds: int) -> float:
    privacy = Privacy(model=model, epsilon=epsilon, delta=DELTA, noise_multiplier=1.0, clip=CLIP)
    return calibrate(
        lambda noise: price(privacy, noise).times(rounds), epsilon=epsilon, delta=DELTA
    )


def noisy(cell: Cell, nodes: int) -> NoisySum:
    """Returns grid and noise shares of a sum of so many nodes."""
    return _noisy(length_of(cell), nodes, honest_shares(nodes, cell.nodes), multiplier(cell))


@cache
def _noisy(length: int, nodes: int, honest: int, noise: float) -> NoisySum:
    return set_up(
        length=padded(length),
        clip=CLIP,
        nodes=nodes,
        honest=honest,
        noise_multiplier=noise,
        bits=WORD_BITS,
    )


def row_noise(cell: Cell) -> float:
    """Returns the noise in a row, all entries together, over the clip: its standard deviation."""
    if cell.epsilon is None:
        return 0.0
    root = float(np.sqrt(length_of(cell)))
    if cell.size == 1:
        return 2 * multiplier(cell) * root
    return noisy(cell, cell.size).std(cell.size) / cell.size / CLIP * root


def length_of(cell: Cell) -> int:
    """Returns d."""
    return _length(cell.data, cell.how.waves)


@cache
def _length(data: str, waves: int) -> int:
    model = task_of(data, waves).make_model({"model": "logistic"}, SEED)
    return sum(weight.numel() for weight in model.parameters())
