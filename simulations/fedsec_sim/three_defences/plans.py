"""The plan of a cell: what an operator would write to have the federation of the map."""

from functools import cache, lru_cache
from typing import Literal

import numpy as np

from fedsec.flower.sums import noisy_sum
from fedsec.plan import FederationPlan, Privacy
from fedsec.plan.terms import price
from fedsec.privacy.calibration import calibrate
from fedsec_sim.three_defences.cell import CLIP, Cell
from fedsec_sim.three_defences.recipes import population_of, task_of

DELTA = 1e-5
RADIUS = 0.3
"""Of centred clipping, over the clip, where there is no noise: about the mean of honest nodes."""
DROPOUTS, CORRUPT = 1, 1
"""Of each group of a private cell: may be missing, and may leave their noise out or tell it."""

SHARE_LOST = 0.1
"""Of one sum of all: may be missing; as many again may be corrupt."""


def plan_of(cell: Cell, clip: float = CLIP) -> FederationPlan:
    """Returns what is learned, and how it is defended.

    Where each update is seen it names no privacy: `running.Seen` clips and noises, so that hostile
    nodes know honest updates before their noise.

    Args:
        cell: Which.
        clip: Largest L2 norm of an update in a sum.
    """
    return FederationPlan.parse(_text(cell, clip) + _rule(cell))


def _text(cell: Cell, clip: float) -> str:
    how, sizes = cell.how, population_of(cell.data, cell.nodes, cell.seed).train.sizes
    visibility = {1: "each", cell.nodes: "sum"}.get(cell.size, "groups")
    return f"""
schema = 1
name = "three defences"
visibility = "{visibility}"
[task]
name = "digits"
options = {{ model = "logistic" }}
[training]
rounds = {how.rounds}
local_steps = {how.steps}
batch_size = {max(sizes)}
learning_rate = 1.0
momentum = 0.0
server_learning_rate = {how.step}
seed = {cell.seed}
[nodes]
min_available = {cell.nodes}
quorum = {cell.nodes}
[round]
attempts = 1
evaluate_every = {how.rounds}
{_sums(cell, clip)}{_privacy(cell, clip)}"""


def _sums(cell: Cell, clip: float) -> str:
    if cell.size == 1:
        return ""
    groups = f"group_size = {cell.size}\ncorrupt_per_group = {CORRUPT}\n"
    return (
        f'[secure_aggregation]\nmode = "malicious"\nmax_nodes = {cell.nodes}\n'
        f"corrupt = {SHARE_LOST}\ndropout = {SHARE_LOST}\n"
        + (groups if cell.size < cell.nodes else "")
        + (f"clip = {clip}\n" if cell.epsilon is None else "")
    )


def _privacy(cell: Cell, clip: float) -> str:
    if cell.epsilon is None or cell.size == 1:
        return ""
    dropouts = DROPOUTS if cell.size < cell.nodes else round(SHARE_LOST * cell.nodes)
    return f"""[privacy]
model = "distributed"
epsilon = {cell.epsilon}
delta = {DELTA}
noise_multiplier = {multiplier(cell)!r}
clip = {clip}
dropouts = {dropouts}
bits = 32
"""


def _rule(cell: Cell) -> str:
    if cell.rule == "mean":
        return ""
    lines = ["[robust]", f'rule = "{cell.rule}"', f"byzantine = {cell.hostile}"]
    if cell.before:
        lines.append(f'before = ["{cell.before}"]')
    if cell.rule == "centered-clipping":  # about as long as an honest row is, noise included
        radius = CLIP * (RADIUS + row_noise(cell))
        lines.append(f"options = {{ radius = {radius!r}, iterations = 1 }}")
    return "\n".join(lines) + "\n"


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


@lru_cache(maxsize=64)
def row_noise(cell: Cell) -> float:
    """Returns the noise in a row, all entries together, over the clip: its standard deviation."""
    if cell.epsilon is None:
        return 0.0
    size = length_of(cell)
    if cell.size == 1:
        return 2 * multiplier(cell) * float(np.sqrt(size))
    summed = noisy_sum(FederationPlan.parse(_text(cell, CLIP)), size)
    return summed.std(cell.size) / cell.size / CLIP * float(np.sqrt(size))


def length_of(cell: Cell) -> int:
    """Returns d."""
    return _length(cell.data, cell.how.waves)


@cache
def _length(data: str, waves: int) -> int:
    model = task_of(data, waves).make_model({"model": "logistic"}, 1)
    return sum(weight.numel() for weight in model.parameters())
