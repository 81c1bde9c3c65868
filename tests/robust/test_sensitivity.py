"""Sensitivities: attacked by search, never exceeded, and reached where they are tight."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.robust import (
    Bucketing,
    Bulyan,
    Caf,
    CenteredClipping,
    Cge,
    Clip,
    GeometricMedian,
    Krum,
    Mean,
    Median,
    MultiKrum,
    Nnm,
    Pipeline,
    Rule,
    TrimmedMean,
)
from fedsec.robust.options import Options
from fedsec.robust.rule import Adjacency
from fedsec.robust.worst import buckets, extremes
from tests.robust.cases import RULES

Doubles = NDArray[np.float64]
BOTH: list[Adjacency] = ["replace-one", "zero-out"]

PRICED: dict[str, tuple[Pipeline, int]] = {
    "mean": (Pipeline(Mean()), 11),
    "trimmed mean f=2": (Pipeline(TrimmedMean(2)), 11),
    "trimmed mean f=5": (Pipeline(TrimmedMean(5)), 11),
    "centred clipping": (Pipeline(CenteredClipping(1, radius=0.4)), 11),
    "centred clipping, wide": (Pipeline(CenteredClipping(1, radius=5.0)), 11),
    "centred clipping, 3 steps": (Pipeline(CenteredClipping(1, radius=0.4, iterations=3)), 11),
    "median of buckets": (Pipeline(Median(), (Bucketing(4),)), 12),
    "median of an even number of buckets": (Pipeline(Median(), (Bucketing(3),)), 12),
    "median of buckets, the last one short": (Pipeline(Median(), (Bucketing(4),)), 11),
    "trimmed mean of buckets": (Pipeline(TrimmedMean(1), (Bucketing(2),)), 10),
    "mean of buckets": (Pipeline(Mean(), (Bucketing(2),)), 10),
    "median of buckets of buckets": (Pipeline(Median(), (Bucketing(2), Bucketing(2))), 12),
    "centred clipping of buckets": (
        Pipeline(CenteredClipping(1, radius=0.4, iterations=3), (Bucketing(2),)),
        12,
    ),
    "trimmed mean of clipped buckets": (Pipeline(TrimmedMean(1), (Bucketing(2), Clip(0.1))), 12),
    "median of clipped buckets": (Pipeline(Median(), (Bucketing(2), Clip(0.1))), 12),
    "clipped mean": (Pipeline(Mean(), (Clip(0.5),)), 11),
}
ROOMY = {"centred clipping of buckets": 0.8}
"""Share of the bound that is reached, where it is not all of it."""


def change(
    pipeline: Pipeline, rows: Doubles, other: Doubles, row: int = 0, start: Doubles | None = None
) -> float:
    """How far the result moves when a row becomes `other`."""
    neighbour = rows.copy()
    neighbour[row] = other
    ends = []
    for each in (rows, neighbour):
        options = Options(rng=np.random.default_rng(0), unusable="zero")
        if start is not None:
            options["reference"] = start
        ends.append(pipeline(each, **options).vector)
    return float(np.linalg.norm(ends[0] - ends[1]))


def within(rows: Doubles) -> Doubles:
    scaled: Doubles = rows / np.maximum(1.0, np.linalg.norm(rows, axis=-1, keepdims=True))
    return scaled


def search(pipeline: Pipeline, adjacency: Adjacency, n: int, d: int, tries: int) -> float:
    """The largest change that random starts and a hill climb find, for rows of norm <= 1."""
    random = np.random.default_rng(7)
    best = 0.0
    for _ in range(tries):
        row = within(random.standard_normal(d) * 3)
        # Half of the starts: rows along one line, where order statistics change most.
        spread = 0.02 if random.random() < 0.5 else 1.0
        rows = within(
            row * random.choice([-1.0, 1.0], (n, 1)) + spread * random.standard_normal((n, d))
        )
        rows[0] = row
        other = np.zeros(d) if adjacency == "zero-out" else -row
        found = change(pipeline, rows, other)
        for _ in range(25):
            moved = within(rows + 0.2 * random.standard_normal((n, d)))
            now = change(pipeline, moved, other)
            if now > found:
                rows, found = moved, now
        best = max(best, found)
    return best


@pytest.mark.parametrize("adjacency", BOTH)
@pytest.mark.parametrize("name", PRICED)
def test_no_search_exceeds_the_sensitivity(name: str, adjacency: Adjacency) -> None:
    pipeline, n = PRICED[name]
    bound = pipeline.sensitivity(1.0, n, adjacency)
    assert bound is not None
    for d in (1, 3):
        assert search(pipeline, adjacency, n, d, tries=5) <= bound * (1 + 1e-9)


def farthest(pipeline: Pipeline, n: int, adjacency: Adjacency, present: int) -> float:
    """The most that the inputs which are known to be worst move the result, of norm <= 1."""
    matrix = buckets(pipeline, n, np.random.default_rng(0))
    found = []
    for extreme in extremes(matrix[:, :present], pipeline, clip=1.0):
        rows = np.zeros((n, 2))
        rows[:present, 1] = extreme.values
        assert np.abs(rows).max() <= 1
        other = np.zeros(2) if adjacency == "zero-out" else -rows[extreme.row]
        start = np.array([0.0, extreme.start]) if extreme.start else None
        found.append(change(pipeline, rows, other, extreme.row, start))
    return max(found)


@pytest.mark.parametrize("adjacency", BOTH)
@pytest.mark.parametrize("name", PRICED)
def test_the_worst_inputs_reach_the_sensitivity(name: str, adjacency: Adjacency) -> None:
    pipeline, n = PRICED[name]
    bound = pipeline.sensitivity(1.0, n, adjacency)
    assert bound is not None
    share = farthest(pipeline, n, adjacency, n) / bound
    assert ROOMY.get(name, 0.99) <= share <= 1 + 1e-9


@pytest.mark.parametrize("name", PRICED)
def test_few_rows_beside_absent_ones_reach_it_too(name: str) -> None:
    pipeline, n = PRICED[name]
    bound = pipeline.sensitivity(1.0, n, "zero-out")
    assert bound is not None
    share = farthest(pipeline, n, "zero-out", n // 2 + 1) / bound
    assert 0.49 <= share <= 1 + 1e-9


def test_the_search_finds_a_bound_that_is_10_percent_too_small() -> None:
    pipeline, n = PRICED["trimmed mean f=2"]
    bound = pipeline.sensitivity(1.0, n, "replace-one")
    assert bound is not None
    assert search(pipeline, "replace-one", n, 1, tries=20) > 0.9 * bound


def test_formulas() -> None:
    assert Mean().sensitivity(2.0, 10, "replace-one") == pytest.approx(0.4)
    assert Mean().sensitivity(2.0, 10, "zero-out") == pytest.approx(0.2)
    assert TrimmedMean(2).sensitivity(1.0, 11, "replace-one") == pytest.approx(2 / 7)
    clipping = CenteredClipping(1, radius=0.5, iterations=3)
    assert clipping.sensitivity(1.0, 11, "replace-one") == pytest.approx(3 / 11)
    median = Pipeline(Median(), (Bucketing(4),))
    assert median.sensitivity(1.0, 20, "replace-one") == pytest.approx(2 / 4)
    # The last of 11 rows is a bucket of its own: no better than without buckets.
    assert Pipeline(Median(), (Bucketing(5),)).sensitivity(1.0, 11, "replace-one") is None
    assert Pipeline(Mean(), (Clip(0.5),)).sensitivity(1.0, 10, "replace-one") == pytest.approx(0.1)


def test_buckets_before_centred_clipping_cannot_ask_for_more_than_its_radius() -> None:
    chain = Pipeline(CenteredClipping(1, radius=0.1), (Bucketing(2),))
    assert chain.sensitivity(1.0, 10, "replace-one") == pytest.approx(2 * 0.1 / 5)


UNPRICED: list[Rule] = [
    Krum(2),
    MultiKrum(2),
    Bulyan(2),
    GeometricMedian(2),
    Cge(2),
    Caf(2),
    Median(),
]


@pytest.mark.parametrize("rule", UNPRICED, ids=lambda rule: type(rule).__name__)
def test_rules_without_a_useful_bound_say_so(rule: Rule) -> None:
    assert rule.sensitivity(1.0, 11, "replace-one") is None


def test_mixing_moves_many_rows_at_once_so_no_bound_is_known() -> None:
    for before in ((Nnm(2),), (Nnm(2), Clip(1.0))):
        assert Pipeline(TrimmedMean(2), before).sensitivity(1.0, 11, "zero-out") is None


def test_clipped_buckets_lie_within_twice_their_norm() -> None:
    chain = Pipeline(Mean(), (Bucketing(2), Clip(0.1)))
    assert chain.sensitivity(1.0, 10, "replace-one") == pytest.approx(2 * 0.1 / 5)


def test_the_trivial_bound_is_reached_by_krum_and_median() -> None:
    # Two balanced camps: one row decides which of them wins.
    rows = np.array([[1.0]] * 6 + [[-1.0]] * 5)
    assert change(Pipeline(Krum(2)), rows, np.array([-1.0])) == pytest.approx(2.0)
    assert change(Pipeline(Median()), rows, np.array([-1.0])) == pytest.approx(2.0)


def test_every_rule_answers() -> None:
    for rule in RULES.values():
        bound = rule.sensitivity(1.0, 11, "replace-one")
        assert bound is None or 0 < bound < 2


def test_clip_must_be_a_length() -> None:
    with pytest.raises(ConfigError, match="clip must be finite and > 0"):
        Mean().sensitivity(0.0, 10, "replace-one")
