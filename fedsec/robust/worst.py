"""Inputs between which rules move as far as their sensitivity: for audits, and to test the bounds.

All rows lie on one line. The one that changes stands among camps which cancel each other out, so
that the middle of the rows, or where a clipped sum goes, is its own to decide:

    mixed rows   -1 ... -1   [its own]   +1 ... +1      balanced: replaced, it crosses the middle
                  0 ...  0   [its own]   +1 ... +1      half above: few rows do, the absent are zero

Where rows are means of others, its own holds nothing else, and is one of the fewest.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedsec.robust.aggregate import Doubles
from fedsec.robust.engine import premix
from fedsec.robust.norm_rules import CenteredClipping
from fedsec.robust.pipeline import Pipeline
from fedsec.robust.premixing import Bucketing, Clip

_INSIDE = 0.9  # of the way to where rows would no longer be clipped


@dataclass(frozen=True, slots=True)
class Extreme:
    """One input.

    Args:
        name: In words.
        values: Where each row lies on the line (n,), over the largest norm of a row.
        row: Index of the one that changes: to zero, or to its opposite.
        start: Where a rule that moves from a public start begins, in the same unit.
    """

    name: str
    values: Doubles
    row: int
    start: float = 0.0


def buckets(pipeline: Pipeline, n: int, rng: np.random.Generator) -> Doubles:
    """Returns what each of m mixed rows takes from each row (m, n), clipping aside.

    Args:
        pipeline: Of which only the buckets are looked at.
        n: Rows.
        rng: As it will be given to the pipeline: it draws the same buckets.
    """
    stages = tuple(stage for stage in pipeline.before if isinstance(stage, Bucketing))
    return premix(stages, np.ones((n, 1)), rng=rng).matrix


def extremes(matrix: Doubles, pipeline: Pipeline, clip: float) -> Iterator[Extreme]:
    """Yields inputs that move the pipeline's result the most when one row changes.

    Where all rows are there they reach the bounds of means, trimmed means and medians, also over
    buckets, clipped or not, and of centred clipping with a radius of less than half of what a row
    moves. In several steps they reach 0.8 to 1 of it with a radius up to that, or behind buckets,
    and 1 / steps with a wider one. Of buckets of buckets they reach what those that were drawn
    allow: half, e.g., where the smallest of the first are not in the smallest of the second.

    Args:
        matrix: What each row that the rule sees takes from each row that is there (m, n), >= 0;
            a row that is absent takes nothing. Without pre-aggregation: the unit matrix.
        pipeline: Is moved.
        clip: Largest norm of a row.
    """
    mine, row = np.unravel_index(np.argmax(matrix), matrix.shape)
    others = [place for place in range(len(matrix)) if place != mine and matrix[place].any()]
    camps = {
        "balanced": [1.0 if place % 2 else -1.0 for place in range(len(others))],
        "half above": [float(place < (len(matrix) - 1) // 2) for place in range(len(others))],
    }
    for name, sides in camps.items():
        values = np.zeros(matrix.shape[1])
        for place, side in zip(others, sides, strict=True):
            values[matrix[place] > 0] = side
        values[row] = 1.0
        for start in _starts(pipeline, clip, float(matrix[mine, row])):
            begins = f", from {start:.2g} clips" if start else ""
            yield Extreme(f"camps, {name}{begins}", values, int(row), start)
        against = _against(matrix[mine], int(row))
        if against.any():
            yield Extreme(f"camps, {name}, against its own", values + against, int(row))


def _against(mixed: Doubles, row: int) -> Doubles:
    """Returns what rows mixed with one hold against it (n,): half of it, so that it turns the sign.

    With it the mixed row is as long as without it, and opposite; where that is clipped, by the rule
    or before, both ends are reached.

    Args:
        mixed: What the mixed row takes from each row (n,).
        row: Index of the one; its value is 1.
    """
    others = mixed.copy()
    others[row] = 0.0
    total = float(others.sum())
    share = min(1.0, float(mixed[row]) / 2 / total) if total > 0 else 0.0
    return np.where(others > 0, -share, 0.0)


def _starts(pipeline: Pipeline, clip: float, share: float) -> tuple[float, ...]:
    """Returns where to begin: in between what a row moves and zero, which then pull opposite ways.

    With a radius of less than half of that length, both pull as far as they may; with a longer
    one the row does, and the camps are just so far away that they stay clipped.

    Args:
        pipeline: Is moved.
        clip: Largest norm of a row.
        share: Of the row in the mixed one.
    """
    rule = pipeline.rule
    clips = [stage.norm for stage in pipeline.before if isinstance(stage, Clip)]
    length = share * min([clip, *clips])
    if not isinstance(rule, CenteredClipping) or rule.radius >= length:
        return (0.0,)
    return (0.0, min(0.5, _INSIDE * (1 - rule.radius / length)) * length / clip)
