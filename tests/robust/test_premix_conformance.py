"""What every pre-aggregation and chain of them promises, in front of every rule."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.robust import (
    PREMIXES,
    Arc,
    Bucketing,
    Clip,
    FlTrust,
    Mean,
    Monna,
    Nnm,
    Pipeline,
    Premix,
    TooManyFaults,
)
from fedsec.robust.aggregate import Aggregate
from fedsec.robust.engine import premix
from fedsec.robust.options import Options
from tests.robust import cases
from tests.robust.cases import F, rows_of

N, D = 25, 6  # 13 buckets of two: enough for every rule with f = 2
Stages = tuple[Premix, ...]
BUCKETS = Bucketing(size=2, byzantine=F)
CHAINS: dict[str, Stages] = {
    **{name: (stage,) for name, stage in cases.PREMIXES.items()},
    "clip, nnm": (Clip(2.0), Nnm(F)),
    "nnm, arc": (Nnm(F), Arc(F)),
    "arc, bucketing": (Arc(F), BUCKETS),
    "bucketing, clip": (BUCKETS, Clip(2.0)),
    "nnm, bucketing, nnm": (Nnm(F), BUCKETS, Nnm(F)),
}
EACH = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


def draws(chain: Stages) -> bool:
    return any(isinstance(stage, Bucketing) for stage in chain)


def clips(chain: Stages) -> bool:
    return any(isinstance(stage, Clip | Arc) for stage in chain)


def rules(chain: Stages, without: frozenset[str] = frozenset()) -> Iterator[tuple[str, Pipeline]]:
    """Every rule of the table behind the chain, but for MoNNA where buckets mix whom it trusts."""
    for name, rule in cases.RULES.items():
        if name in without or (name == "monna" and draws(chain)):
            continue
        made = Monna(F, trusted=N - 1) if name == "monna" else rule
        yield name, Pipeline(made, chain)


def run(pipeline: Pipeline, rows: Any, d: int = D, **more: Unpack[Options]) -> Aggregate:
    more.setdefault("rng", np.random.default_rng(0))
    if isinstance(pipeline.rule, FlTrust):
        more.setdefault("reference", np.ones(d))
    return pipeline(rows, **more)


def test_every_premix_of_the_table_is_in_a_chain() -> None:
    used = {type(stage) for chain in CHAINS.values() for stage in chain}
    assert used == {entry.made_by for entry in PREMIXES.values()}


@EACH
def test_order_of_rows_does_not_matter_unless_places_are_drawn(chain: Stages) -> None:
    rows = rows_of(n=N, d=D)
    order = np.concatenate([np.random.default_rng(3).permutation(N - 1), [N - 1]])
    if draws(chain):
        # Which places go together is drawn without a look at what the rows hold.
        buckets = [
            (premix((BUCKETS,), each, rng=np.random.default_rng(4))).matrix
            for each in (rows, 9 - rows)
        ]
        np.testing.assert_array_equal(*buckets)
        return
    for name, pipeline in rules(chain):
        there, back = run(pipeline, rows), run(pipeline, rows[order])
        assert there.vector.dtype == rows.dtype
        np.testing.assert_allclose(back.vector, there.vector, atol=1e-12, err_msg=name)
    mixed = premix(chain, rows)
    np.testing.assert_allclose(premix(chain, rows[order]).rows, mixed.rows[order], atol=1e-12)


def test_buckets_are_drawn_by_place_before_every_rule() -> None:
    """Sensitivities rest on it: what a row holds must not move others to other buckets."""
    rows = rows_of(n=N, d=D)
    held = premix((BUCKETS,), rows, rng=np.random.default_rng(0)).matrix > 0
    for name, pipeline in rules((BUCKETS,)):
        weights = run(pipeline, rows).weights
        if weights is not None:
            for bucket in held:
                np.testing.assert_allclose(np.ptp(weights[bucket]), 0, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(premix((Bucketing(1),), rows).matrix, np.eye(N))  # draws nothing


@EACH
def test_moving_all_rows_moves_the_result_unless_norms_count(chain: Stages) -> None:
    rows, move = rows_of(n=N, d=D), np.linspace(-2, 2, D)
    by_origin = frozenset({"cge", "fltrust", "centered-clipping", "geometric-median"})
    for name, pipeline in rules(chain, without=by_origin):
        moved = run(pipeline, rows + move).vector - move
        if not clips(chain):
            np.testing.assert_allclose(moved, run(pipeline, rows).vector, atol=1e-9, err_msg=name)


@EACH
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_scaling_all_rows_and_radii_scales_the_result(chain: Stages, factor: float) -> None:
    rows = rows_of(n=N, d=D)
    other = tuple(
        replace(stage, norm=stage.norm * factor) if isinstance(stage, Clip) else stage
        for stage in chain
    )
    for name, pipeline in rules(chain, without=frozenset({"centered-clipping", "fltrust"})):
        scaled = run(Pipeline(pipeline.rule, other), rows * factor).vector
        wanted = run(pipeline, rows).vector * factor
        np.testing.assert_allclose(scaled, wanted, rtol=1e-4, atol=1e-9 * factor, err_msg=name)


@EACH
@pytest.mark.parametrize("value", [0.25, -0.0, 1e-42])
def test_equal_rows_give_that_row(chain: Stages, value: float) -> None:
    rows = np.full((N, D), value, np.float32)
    for name, pipeline in rules(chain):
        if name == "centered-clipping" and value == 0.25:
            continue  # three steps of 0.5 towards it from the origin, and there
        found = run(pipeline, rows, reference=rows[0]) if name == "fltrust" else run(pipeline, rows)
        np.testing.assert_allclose(found.vector, rows[0], rtol=1e-5, atol=2e-44, err_msg=name)
        assert not found.suspects


@EACH
def test_rows_that_are_not_finite_are_left_out_and_named(chain: Stages) -> None:
    rows = rows_of(n=N, d=D).astype(np.float32)
    rows[1, 3], rows[2] = np.nan, -np.inf
    for name, pipeline in rules(chain):
        found = run(pipeline, rows)
        assert np.isfinite(found.vector).all(), name
        assert found.diagnostics.excluded == {1: "is not finite", 2: "is not finite"}
        assert {1, 2} <= {suspect.row for suspect in found.suspects}
        if found.weights is not None:
            assert not found.weights[1:3].any()
    mixed = premix(chain, rows, rng=np.random.default_rng(0), byzantine=F)
    assert not mixed.matrix[:, 1:3].any()
    assert np.isfinite(mixed.rows).all()


@EACH
def test_more_unusable_rows_than_a_stage_withstands_are_an_error(chain: Stages) -> None:
    rows = rows_of(n=N, d=D)
    rows[: F + 1, 0] = np.nan
    for name, pipeline in rules(chain):
        if name == "median" and not any(isinstance(stage, Nnm | Arc) for stage in chain):
            assert np.isfinite(run(pipeline, rows).vector).all()  # any minority
            continue
        with pytest.raises(TooManyFaults, match="row 0: is not finite") as caught:
            run(pipeline, rows)
        assert (caught.value.allowed, caught.value.rows) == (F, N), name


@EACH
def test_rows_of_another_shape_or_dtype_are_left_out_and_named(chain: Stages) -> None:
    rows: list[NDArray[Any]] = list(rows_of(n=N, d=D))
    rows[0], rows[4] = rows[0][:-1], rows[4].astype(np.float32)
    for name, pipeline in rules(chain):
        found = run(pipeline, rows)
        assert set(found.diagnostics.excluded) == {0, 4}, name
        assert "has shape (5,)" in found.diagnostics.excluded[0]
        assert "dtype float32" in found.diagnostics.excluded[4]


NOT_ROBUST = frozenset({"mean", "centered-clipping", "fltrust"})


@EACH
@pytest.mark.parametrize("value", [1e12, 1e30, -3e38])
def test_huge_rows_never_reach_the_result(chain: Stages, value: float) -> None:
    rows = rows_of(n=N, d=50).astype(np.float32)
    rows[:F] = value
    low, high = rows[F:].min(axis=0), rows[F:].max(axis=0)
    if clips(chain):  # honest rows become shorter, too
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    for name, pipeline in rules(chain, without=NOT_ROBUST):
        vector = run(pipeline, rows, d=50).vector
        assert (low - 0.2 <= vector).all(), name
        assert (vector <= high + 0.2).all(), name


@EACH
def test_tiny_rows_are_rows_like_others(chain: Stages) -> None:
    rows = rows_of(n=N, d=D).astype(np.float32)
    rows[0], rows[1], rows[2] = -0.0, 1e-42, 1e-30
    for name, pipeline in rules(chain):
        found, exact = run(pipeline, rows), run(pipeline, rows.astype(np.float64))
        np.testing.assert_allclose(found.vector, exact.vector, atol=1e-5, err_msg=name)
        assert not found.diagnostics.excluded


@EACH
def test_one_huge_row_does_not_disturb_distances_among_the_others(chain: Stages) -> None:
    rows = rows_of(7, n=N, d=400)
    rows = (rows[:1] + 1e-3 * rows).astype(np.float32)
    rows[0] = 1e12
    for name, pipeline in rules(chain, without=NOT_ROBUST):
        found, exact = run(pipeline, rows, d=400), run(pipeline, rows.astype(np.float64), d=400)
        np.testing.assert_allclose(found.vector, exact.vector, atol=1e-3, err_msg=name)
        if found.weights is not None and exact.weights is not None:
            np.testing.assert_allclose(found.weights, exact.weights, atol=1e-4, err_msg=name)


@EACH
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_input_is_not_written_to_and_dtype_stays(chain: Stages, dtype: str) -> None:
    rows = rows_of(n=N, d=D).astype(dtype)
    rows[0, 0], rows[1] = np.nan, 300
    kept = rows.tobytes()
    rows.flags.writeable = False
    for name, pipeline in rules(chain):
        found = run(pipeline, rows)
        assert found.vector.dtype == dtype, name
        np.testing.assert_array_equal(run(pipeline, list(rows)).vector, found.vector, name)
    assert premix(chain, rows, rng=np.random.default_rng(0), byzantine=F).rows.dtype == dtype
    assert rows.tobytes() == kept


@EACH
def test_same_generator_gives_the_same_bits_with_any_number_of_threads(chain: Stages) -> None:
    rows = rows_of(n=N, d=40_000).astype(np.float32)
    state = str(np.random.get_state())  # noqa: NPY002 - it must not change
    for name in ("mean", "trimmed-mean", "multi-krum", "dnc"):
        pipeline = Pipeline(cases.RULES[name], chain)
        vectors = [
            run(pipeline, rows, rng=np.random.default_rng(5), threads=threads).vector.tobytes()
            for threads in (1, 1, 3)
        ]
        assert vectors[0] == vectors[1] == vectors[2], name
    assert state == str(np.random.get_state())  # noqa: NPY002 - the same


@EACH
def test_unusable_rows_can_count_as_zero_rows(chain: Stages) -> None:
    rows = rows_of(n=N, d=D).astype(np.float32)
    zeroed = rows.copy()
    rows[3, 2], zeroed[3] = np.inf, 0.0
    for name, pipeline in rules(chain):
        found = run(pipeline, rows, unusable="zero")
        np.testing.assert_allclose(
            found.vector, run(pipeline, zeroed).vector, atol=1e-6, err_msg=name
        )
        assert list(found.diagnostics.excluded) == [3]


@EACH
def test_one_column_is_enough(chain: Stages) -> None:
    for name, pipeline in rules(chain):
        assert run(pipeline, rows_of(n=N, d=1), d=1).vector.shape == (1,), name


@pytest.mark.parametrize("stage", [Nnm(0), Arc(0), Clip(99.0), Bucketing(3), Bucketing(1)], ids=str)
def test_a_single_row_stays_what_it_is(stage: Premix) -> None:
    row = np.array([[1.0, -2.0, 0.5]])
    mixed = premix((stage,), row, rng=np.random.default_rng(0))
    np.testing.assert_allclose(mixed.rows, row)
    np.testing.assert_allclose(run(Pipeline(Mean(), (stage,)), row).vector, row[0])


@pytest.mark.parametrize("stage", [Nnm(0), Arc(0)], ids=str)
def test_without_hostile_rows_nothing_is_lost(stage: Premix) -> None:
    rows = rows_of(n=N, d=D)
    mean = run(Pipeline(Mean(), (stage,)), rows).vector
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize(
    "make", [Nnm, Arc, lambda f: Bucketing(3, f)], ids=["nnm", "arc", "bucketing"]
)
def test_the_last_legal_f_is_taken_and_the_next_refused(make: Any) -> None:
    for n in (13, 14, 15, 24, 25):
        share = 6 if isinstance(make(0), Bucketing) else 2
        most = (n - 1) // share
        make(most).check(n)
        with pytest.raises(
            ConfigError, match=f"{n} updates are too few for byzantine = {most + 1}"
        ):
            make(most + 1).check(n)


@pytest.mark.parametrize("name", ["geometric-median", "krum", "caf", "centered-clipping", "cge"])
def test_rows_that_mixing_cancels_have_norm_zero_and_not_less(name: str) -> None:
    for seed in range(20):
        half = np.random.default_rng(seed).normal(size=(6, 3))
        rows = np.vstack([half, -half, np.zeros((1, 3))])
        found = Pipeline(cases.RULES[name], (Nnm(0), Nnm(0)))(rows)
        np.testing.assert_allclose(found.vector, 0, atol=1e-12)
