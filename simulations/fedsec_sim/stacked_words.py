"""Words of many nodes at once: to the bit those of `SumForm.encode`, in a fraction of its time.

A small model's update takes longer to call for than to code. Each node keeps its own source of
chance; what is drawn from it, and in which order, is the same.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedsec.encoding import Doubles, FixedPoint, Integers, Rotated, Words, wrap
from fedsec.flower.messages import Metrics
from fedsec.flower.strategy import Matrix
from fedsec.flower.sums import SumForm
from fedsec.privacy.clipping import clip_factor, clip_factors
from fedsec.privacy.keystream import Keystream
from fedsec.vectors import norm

STACK = 1 << 16
"""Entries that are coded at a time."""


def words_of(
    form: SumForm,
    rows: Matrix,
    metrics: Sequence[Metrics],
    turns: Sequence[tuple[int, Keystream]],
) -> Iterator[Words]:
    """Yields the words (length,) that nodes make, in the order of `turns`.

    Args:
        form: Of the sum.
        rows: Updates (n, d), finite.
        metrics: That go with each row.
        turns: Where each node's row is, and the source of its chance.
    """
    if form.length != form.encoding.length or not isinstance(form.encoding, FixedPoint | Rotated):
        for place, source in turns:
            yield form.encode(rows[place], metrics[place], source)
        return
    step = max(1, STACK // form.length)
    for start in range(0, len(turns), step):
        places, sources = zip(*turns[start : start + step], strict=True)
        yield from _coded(form.encoding, _clipped(rows[list(places)], form.clip), sources)


def _clipped(rows: Matrix, clip: float) -> Matrix:
    factors = clip_factors(np.array([norm(row) for row in rows]), clip)
    return rows * factors.astype(np.float32)[:, None]


def _coded(code: FixedPoint | Rotated, rows: Matrix, sources: Sequence[Keystream]) -> Words:
    if isinstance(code, FixedPoint):
        return wrap(_fixed(code, rows, sources), code.bits)
    rounded = _quantized(code, rows, sources)
    if code.noise is not None:
        rounded += np.stack([code.noise.sample(code.length, source) for source in sources])
    return wrap(rounded, code.bits)


def _fixed(code: FixedPoint, rows: Matrix, sources: Sequence[Keystream]) -> Integers:
    """Returns grid steps (m, d)."""
    steps = rows.astype(np.float64)
    np.clip(steps, -code.clip, code.clip, out=steps)
    steps *= code.scale
    steps += _drawn(code.length, sources).view(np.int32) * 2.0**-32
    return np.rint(steps).astype(np.int64)


def _quantized(code: Rotated, rows: Matrix, sources: Sequence[Keystream]) -> Integers:
    """Returns grid steps before noise (m, length)."""
    checked: Doubles = rows.astype(np.float64)
    for row in checked:
        factor = clip_factor(math.sqrt(float(row @ row)), code.clip)
        row *= code.scale * factor  # noqa: PLW2901
    rotated = code.rotation.forward(checked)
    chance = _drawn(code.length, sources) * 2.0**-32
    rounded = np.floor(rotated + chance).astype(np.int64)
    norms = np.einsum("ij,ij->i", rounded, rounded)
    for again in np.flatnonzero(norms > math.floor(code.l2**2)).tolist():
        rounded[again] = code.quantize(rows[again], sources[again])  # its next try
    return rounded


def _drawn(size: int, sources: Sequence[Keystream]) -> NDArray[np.uint32]:
    return np.stack([source.words(size, np.uint32) for source in sources])
