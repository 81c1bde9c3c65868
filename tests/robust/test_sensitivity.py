"""Sensitivities: attacked by search, never exceeded, and reached where they are tight."""

import json
from pathlib import Path

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
from fedsec.robust.rule import Adjacency
from tests.robust.cases import RULES

Doubles = NDArray[np.float64]
WORST = json.loads(Path(__file__).with_name("worst_rows.json").read_text())
BOTH: list[Adjacency] = ["replace-one", "zero-out"]

PRICED: dict[str, Pipeline] = {
    "mean": Pipeline(Mean()),
    "trimmed mean f=2": Pipeline(TrimmedMean(2)),
    "trimmed mean f=5": Pipeline(TrimmedMean(5)),
    "centred clipping": Pipeline(CenteredClipping(1, radius=0.4)),
    "centred clipping, wide": Pipeline(CenteredClipping(1, radius=5.0)),
    "centred clipping, 3 steps": Pipeline(CenteredClipping(1, radius=0.4, iterations=3)),
    "median of buckets": Pipeline(Median(), (Bucketing(4),)),
    "trimmed mean of buckets": Pipeline(TrimmedMean(1), (Bucketing(2),)),
    "mean of buckets": Pipeline(Mean(), (Bucketing(2),)),
    "clipped mean": Pipeline(Mean(), (Clip(0.5),)),
}


def change(pipeline: Pipeline, rows: Doubles, other: Doubles) -> float:
    """How far the result moves when the first row becomes `other`."""
    neighbour = rows.copy()
    neighbour[0] = other
    before = pipeline(rows, rng=np.random.default_rng(0), unusable="zero").vector
    after = pipeline(neighbour, rng=np.random.default_rng(0), unusable="zero").vector
    return float(np.linalg.norm(before - after))


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
    n = len(WORST[name]["rows"])
    bound = PRICED[name].sensitivity(1.0, n, adjacency)
    assert bound is not None
    for d in (1, 3):
        assert search(PRICED[name], adjacency, n, d, tries=5) <= bound * (1 + 1e-9)


@pytest.mark.parametrize("adjacency", BOTH)
@pytest.mark.parametrize("name", PRICED)
def test_the_kept_rows_reach_the_sensitivity(name: str, adjacency: Adjacency) -> None:
    case = WORST[name]
    rows = np.array(case["rows"])
    bound = PRICED[name].sensitivity(1.0, len(rows), adjacency)
    assert bound is not None
    assert np.linalg.norm(rows, axis=1).max() <= 1 + 1e-12
    other = np.zeros_like(rows[0]) if adjacency == "zero-out" else np.array(case["other"])
    reached = change(PRICED[name], rows, other)
    assert reached <= bound * (1 + 1e-9)
    if case["tight"][adjacency]:
        assert reached >= 0.99 * bound


def test_the_search_finds_a_bound_that_is_10_percent_too_small() -> None:
    bound = PRICED["trimmed mean f=2"].sensitivity(1.0, 11, "replace-one")
    assert bound is not None
    assert search(PRICED["trimmed mean f=2"], "replace-one", 11, 1, tries=20) > 0.9 * bound


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
