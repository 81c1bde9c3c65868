"""Hostile rows that cancel each other in a bucket: what is left of them is seen as what it is."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsec.robust import (
    Arc,
    Bucketing,
    CenteredClipping,
    Cge,
    Clip,
    FlTrust,
    GeometricMedian,
    Krum,
    Mean,
    MinimumDiameter,
    Nnm,
    Pipeline,
    Premix,
    Rule,
)
from fedsec.robust.engine import premix
from fedsec.robust.worst import buckets

N, D, F = 16, 600, 2
PAIR = Bucketing(2, byzantine=F)
CHAINS: dict[str, tuple[Rule, tuple[Premix, ...]]] = {
    "centred clipping": (CenteredClipping(F, radius=1.0), (PAIR,)),
    "centred clipping in steps": (CenteredClipping(F, radius=1.0, iterations=3), (PAIR,)),
    "cge": (Cge(F), (PAIR,)),
    "fltrust": (FlTrust(F), (PAIR,)),
    "krum": (Krum(F), (PAIR,)),
    "geometric median": (GeometricMedian(F), (PAIR,)),
    "minimum diameter": (MinimumDiameter(F), (PAIR,)),
    "clip, mean": (Mean(F), (PAIR, Clip(1.0))),
    "arc, mean": (Mean(F), (PAIR, Arc(F))),
    "nnm, krum": (Krum(F), (PAIR, Nnm(F))),
}
LENGTHS = [1e6, 1e10, 1e14]


def cancelling(pipeline: Pipeline, length: float, left: float) -> NDArray[np.float32]:
    """Returns honest rows of norm 1 about one direction, and a pair whose sum is short."""
    rng = np.random.default_rng(3)
    way = np.full(D, 1 / np.sqrt(D))
    rows = (0.9 * way + 0.4 / np.sqrt(D) * rng.normal(size=(N, D))).astype(np.float32)
    one, other = np.flatnonzero(buckets(pipeline, N, np.random.default_rng(0))[0])
    big = rng.normal(size=D) * length / np.sqrt(D)
    rows[one], rows[other] = big - left * way, -big - left * way
    return rows


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", CHAINS)
def test_the_result_is_that_of_exact_sums(name: str, length: float) -> None:
    rule, before = CHAINS[name]
    pipeline = Pipeline(rule, before)
    trusted = {"reference": np.full(D, 0.01, np.float32)} if isinstance(rule, FlTrust) else {}
    for left in (0.0, 300.0):
        rows = cancelling(pipeline, length, left)
        found = pipeline(rows, rng=np.random.default_rng(0), **trusted)  # type: ignore[arg-type]
        mixed = buckets(pipeline, N, np.random.default_rng(0)) @ rows.astype(np.float64)
        rest = Pipeline(rule, before[1:])
        exact = rest(mixed, **trusted)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.vector, exact.vector, rtol=1e-3, atol=2e-3)
        assert np.linalg.norm(found.vector) < 2


@pytest.mark.parametrize("between", [(), (Clip(0.5),), (Nnm(1),)], ids=repr)
@pytest.mark.parametrize(
    "rule",
    [CenteredClipping(1, radius=1.0), FlTrust(1), Krum(1), Cge(1), Mean(1)],
    ids=lambda rule: type(rule).__name__,
)
def test_buckets_of_buckets_are_formed_of_what_they_hold(
    rule: Rule, between: tuple[Premix, ...]
) -> None:
    before = (Bucketing(2), *between, Bucketing(2))
    rows = np.random.default_rng(0).normal(size=(32, 50)).astype(np.float32)
    trusted = {"reference": np.full(50, 0.1, np.float32)} if isinstance(rule, FlTrust) else {}
    found = Pipeline(rule, before)(rows, rng=np.random.default_rng(0), **trusted)  # type: ignore[arg-type]
    mixed = rows.astype(np.float64)
    drawn = int(np.random.default_rng(0).integers(1 << 62))
    for number, (size, stages) in enumerate([(16, ()), (8, between)]):
        mixed = premix(stages, mixed).rows
        order = np.random.default_rng([drawn, number]).permutation(len(mixed))
        mixed = mixed[order].reshape(size, 2, -1).mean(axis=1)
    exact = rule(mixed, **trusted)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.vector, exact.vector, atol=1e-6)


@pytest.mark.parametrize("n", [3, 4, 6])
@pytest.mark.parametrize(
    "pipeline",
    [
        Pipeline(CenteredClipping(0, radius=1e-4), (Bucketing(2),)),
        Pipeline(CenteredClipping(0, radius=1e-2, iterations=2), (Bucketing(2),)),
        Pipeline(Mean(0), (Bucketing(2), Clip(1e-2))),
    ],
    ids=repr,
)
def test_the_sensitivity_holds_in_float32_of_rows_that_nearly_cancel(
    pipeline: Pipeline, n: int
) -> None:
    rng, clip, worst = np.random.default_rng(5), 0.5, 0.0
    (row,) = np.flatnonzero((buckets(pipeline, n, np.random.default_rng(0)) > 0).sum(axis=1) == 2)[
        :1
    ]
    one, other = np.flatnonzero(buckets(pipeline, n, np.random.default_rng(0))[row])
    for _ in range(60):
        way = np.zeros(512)
        way[:256] = 1 + rng.random()
        way *= clip * rng.uniform(0.6, 0.999) / np.linalg.norm(way)
        rows = np.zeros((n, 512), np.float32)
        rows[one], rows[other] = way, -(1 - 10 ** rng.uniform(-3.5, -1)) * way
        neighbour = rows.copy()
        neighbour[one] = 0
        here, there = (
            pipeline(each, rng=np.random.default_rng(0), unusable="zero").vector.astype(np.float64)
            for each in (rows, neighbour)
        )
        worst = max(worst, float(np.linalg.norm(here - there)))
    bound = pipeline.sensitivity(clip, n, "zero-out")
    assert bound is not None
    assert 0.3 * bound < worst < bound * (1 + 1e-5)
