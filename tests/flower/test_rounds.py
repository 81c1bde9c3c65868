"""The run loop: exactly the accepted nodes count, one bad node never stops a round."""

from collections.abc import Sequence

import numpy as np
import pytest
from flwr.app import Array, Context, Message
from flwr.clientapp.typing import ClientAppCallable
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import StateError
from fedsec.flower.arrays import pack
from fedsec.flower.collection import Attempt, Collected, Post
from fedsec.flower.messages import evaluate_reply
from fedsec.flower.publishing import Trial
from fedsec.flower.rounds import Rounds
from fedsec.flower.table import combination
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.keystream import Keystream
from tests.flower.fakes import (
    FakeGrid,
    Waiting,
    answering,
    plan,
    raising,
    raw_reply,
    replying,
)
from tests.flower.roundsrig import START, UPDATES, begin, rounds


def four_nodes(more: str = "") -> FederationPlan:
    return plan(more="[nodes]\nmin_available = 4\nquorum = 2\n" + more)


# --- the result ------------------------------------------------------------------------------------


def test_the_result_is_the_mean_of_all_when_all_answer() -> None:
    grid = FakeGrid([answering(update) for update in UPDATES])
    state = rounds(grid, four_nodes())(begin(), 1)
    np.testing.assert_allclose(state.vector, START["w"] + np.mean(UPDATES, axis=0), rtol=1e-6)
    (report,) = grid.of("round")
    assert report["answered"] == [100, 101, 102, 103]
    assert (report["round"], report["rounds"], report["attempt"]) == (1, 4, 1)
    assert (report["loss"], report["accuracy"], report["train_loss"]) == (0.25, 0.5, 0.5)
    assert (report["examples"], report["failed"], report["rejected"]) == (40, {}, {})


def bad_replies() -> list[tuple[ClientAppCallable, str]]:
    def array(values: Sequence[float], dtype: str = "float32") -> Array:
        return pack(np.array(values, dtype))

    return [
        (replying(raw_reply(array([1, np.nan, 3]))), "not-finite: 1 of 3 entries"),
        (replying(raw_reply(array([np.inf, 2, 3]))), "not-finite: 1 of 3 entries"),
        (replying(raw_reply(array([1, 2e15, 3]))), "too-large: the update is longer than 1e+15"),
        (replying(raw_reply(array([3e38, 3e38, 3e38]))), "too-large"),
        (replying(raw_reply(array([1, 2]))), "bad-update: the update is 'float32' (2,)"),
        (replying(raw_reply(array([1, 2, 3], "int64"))), "bad-update: the update is 'int64'"),
        (replying(raw_reply(name="v")), "bad-update: want one array"),
        (replying(raw_reply(metrics={"num-examples": 0, "train-loss": 1.0})), "bad-metrics: num-"),
        (replying(raw_reply(metrics={"num-examples": -1, "train-loss": 1.0})), "bad-metrics: num"),
        (replying(raw_reply(metrics={"num-examples": 2**63, "train-loss": 1.0})), "bad-metrics"),
        (replying(raw_reply(metrics={"num-examples": 1e12, "train-loss": 1.0})), "bad-metrics"),
        (replying(evaluate_reply(1, {"loss": 1.0})), "bad-records"),
    ]


@pytest.mark.parametrize(("app", "reason"), bad_replies())
@pytest.mark.parametrize("at", [0, 2, 3])
def test_a_bad_reply_costs_its_sender_and_nobody_else(
    app: ClientAppCallable, reason: str, at: int
) -> None:
    apps = [answering(update) for update in UPDATES]
    apps[at] = app
    grid = FakeGrid(apps)
    state = rounds(grid, four_nodes())(begin(), 1)
    honest = [update for i, update in enumerate(UPDATES) if i != at]
    np.testing.assert_allclose(state.vector, START["w"] + np.mean(honest, axis=0), rtol=1e-6)
    (report,) = grid.of("round")
    assert report["answered"] == [100 + i for i in range(4) if i != at]
    assert report["failed"] == {}
    rejected = report["rejected"]
    assert isinstance(rejected, dict)
    assert list(rejected) == [str(100 + at)]
    assert rejected[str(100 + at)].startswith(reason)


def test_one_that_raises_and_one_that_is_silent_are_named_with_the_reason() -> None:
    grid = FakeGrid([*map(answering, UPDATES[:3]), raising(RuntimeError("out of\nmemory"))])
    grid.silent = {101}
    state = rounds(grid, four_nodes("[round]\ndeadline_s = 9\n"))(begin(), 1)
    np.testing.assert_allclose(
        state.vector, START["w"] + np.mean([UPDATES[0], UPDATES[2]], axis=0), rtol=1e-6
    )
    (report,) = grid.of("round")
    assert report["failed"] == {
        "101": "no answer within 9 s (round.deadline_s)",
        "103": "RuntimeError: out of memory",
    }
    assert grid.timeouts == [9.0]


@given(
    updates=st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=2, max_size=8
    ),
    examples=st.lists(st.integers(1, 2**53), min_size=8, max_size=8),
    broken=st.sets(st.integers(0, 7)),
    cap=st.none() | st.integers(1, 1000),
)
def test_any_mix_gives_the_mean_of_exactly_the_accepted(
    updates: list[list[float]], examples: list[int], broken: set[int], cap: int | None
) -> None:
    apps = [
        raising(ValueError("x")) if i in broken else answering(update, examples=examples[i])
        for i, update in enumerate(updates)
    ]
    kept = [i for i in range(len(updates)) if i not in broken]
    weights = "" if cap is None else f'weighting = "examples"\nmax_examples = {cap}\n'
    of = plan(
        "rounds = 4\n" + weights, "[nodes]\nmin_available = 1\nquorum = 1\n[round]\nattempts = 1\n"
    )
    grid = FakeGrid(apps)
    if not kept:
        with pytest.raises(StateError, match="did not come about"):
            rounds(grid, of)(begin(), 1)
        return
    state = rounds(grid, of)(begin(), 1)
    counts = np.array([min(examples[i], cap) if cap else 1 for i in kept], np.float64)
    mean = np.average(np.array([updates[i] for i in kept], np.float64), axis=0, weights=counts)
    np.testing.assert_allclose(state.vector, START["w"] + mean, rtol=1e-5, atol=1e-4)
    assert grid.of("round")[0]["answered"] == [100 + i for i in kept]


def test_the_next_round_is_not_disturbed_by_the_reused_matrix() -> None:
    grid = FakeGrid([answering(update) for update in UPDATES])
    run = rounds(grid, four_nodes())
    one = run(begin(), 1)
    kept = one.vector.copy()
    grid.silent = {100, 101}
    two = run(one, 2)
    np.testing.assert_array_equal(one.vector, kept)
    np.testing.assert_allclose(two.vector, kept + np.mean(UPDATES[2:], axis=0), rtol=1e-6)


# --- quorum and attempts ---------------------------------------------------------------------------


def test_a_missed_quorum_repeats_the_round() -> None:
    attempts: list[int] = []

    def flaky(message: Message, context: Context) -> Message:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("lost")
        return answering(UPDATES[1])(message, context)

    grid = FakeGrid([answering(UPDATES[0]), flaky])
    state = rounds(grid, plan())(begin(), 1)
    np.testing.assert_allclose(state.vector, START["w"] + np.mean(UPDATES[:2], axis=0), rtol=1e-6)
    assert grid.of("round")[0]["attempt"] == 2
    (note,) = grid.of("note")
    assert note["text"] == "round 1, attempt 1: 1 of 2 nodes gave a usable answer, nodes.quorum = 2"
    assert note["failed"] == {"101": "ConnectionError: lost"}


def test_a_quorum_missed_in_every_attempt_fails_the_run_and_says_who_and_why() -> None:
    grid = FakeGrid(
        [answering(UPDATES[0]), raising(OSError("disk full")), replying(evaluate_reply(1, {}))]
    )
    of = plan(more="[nodes]\nmin_available = 3\nquorum = 2\n[round]\nattempts = 2\n")
    with pytest.raises(StateError) as caught:
        rounds(grid, of)(begin(), 1)
    assert str(caught.value) == (
        "round 1 did not come about in 2 of 2 attempts (round.attempts); in the last one 1 of 3 "
        "nodes gave a usable answer, nodes.quorum = 2. node 101: OSError: disk full; node 102: bad-records: records "
        "'metrics', want 'metrics', 'update'"
    )
    assert len(grid.asked) == 2
    assert grid.of("round") == []


def test_people_read_names_where_the_grid_knows_them_and_long_lists_are_cut() -> None:
    class Named(FakeGrid):
        def name_of(self, node_id: int) -> str:
            return f"clinic-{node_id - 100}"

    grid = Named([raising(OSError("no"))] * 23)
    with pytest.raises(StateError, match=r"clinic-0: OSError: no; clinic-1: .*; and 3 more$"):
        rounds(grid, plan(more="[round]\nattempts = 1\n"))(begin(), 1)


def test_a_round_waits_for_enough_nodes_and_then_goes_on() -> None:
    waiting = Waiting()
    grid = FakeGrid([answering(update) for update in UPDATES])
    grid.away = {100, 101, 102}

    def come_back() -> None:
        if waiting.time > 1:
            grid.away.clear()

    grid.before = come_back
    rounds(grid, four_nodes(), waiting=waiting)(begin(), 1)
    assert grid.of("round")[0]["answered"] == [100, 101, 102, 103]
    assert 1 < waiting.time < 2


def test_waiting_ends_with_a_sentence() -> None:
    waiting = Waiting()
    grid = FakeGrid([answering(UPDATES[0])])
    run = rounds(grid, plan(more="[nodes]\nwait_s = 5\n"), waiting=waiting)
    with pytest.raises(StateError, match=r"1 nodes are ready, 2 are needed; waited 5 s \(nodes\.w"):
        run(begin(), 1)
    assert 5 <= waiting.time < 6


def test_rounds_follow_each_other() -> None:
    grid = FakeGrid([answering(UPDATES[0])] * 2)
    with pytest.raises(StateError, match="round 3 cannot follow a state after round 0"):
        rounds(grid, plan())(begin(), 3)


def test_a_model_that_overflows_fails_the_run() -> None:
    grid = FakeGrid([answering(UPDATES[0])] * 2)

    def collect(_post: Post, attempt: Attempt) -> Collected:
        rows = np.full((2, 3), 3e38, np.float32)
        return Collected(rows, ((100,), (101,)), np.ones(2), (), {}, {})

    run = Rounds(plan(), grid, grid, size=3, evaluation=lambda _: {}, collect=collect)
    with (
        np.errstate(over="ignore"),
        pytest.raises(StateError, match="the model is no longer finite after round 2"),
    ):
        run(run(begin(), 1), 2)


# --- cohorts ---------------------------------------------------------------------------------------


def cohorts(seed: int, ready: Sequence[int] = range(20), count: int = 200) -> list[list[int]]:
    of = plan(
        f"rounds = 4\nseed = {seed}", "[nodes]\nmin_available = 20\nfraction = 0.25\nquorum = 5\n"
    )
    run = rounds(FakeGrid([answering(UPDATES[0])]), of)
    return [run.draw(ready, number, 1) for number in range(1, count + 1)]


def test_a_cohort_follows_from_the_seed_and_the_round() -> None:
    assert cohorts(1) == cohorts(1)
    assert cohorts(1) != cohorts(2)
    assert cohorts(1, ready=list(range(20))[::-1]) == cohorts(1)
    assert all(len(set(drawn)) == 5 and drawn == sorted(drawn) for drawn in cohorts(1))


def test_another_attempt_draws_anew() -> None:
    of = plan(more="[nodes]\nmin_available = 20\nfraction = 0.25\nquorum = 5\n")
    run = rounds(FakeGrid([answering(UPDATES[0])]), of)
    assert run.draw(range(20), 1, 1) != run.draw(range(20), 1, 2)


def test_a_draw_is_uniform() -> None:
    """2,000 draws of 5 of 20; chi-square below mean + 5 standard deviations.

    The variance of a count is that of draws without replacement; the second half shows that the
    bound would notice a node drawn 20 % too often.
    """
    draws = 2000
    counts = np.bincount(np.concatenate(cohorts(3, count=draws)), minlength=20)
    expected, variance = draws / 4, draws * 0.25 * 0.75

    def statistic(seen: "np.typing.NDArray[np.float64]") -> float:
        return float(((seen - expected) ** 2 / variance).sum()) * 19 / 20

    bound = 19 + 5 * (2 * 19) ** 0.5
    assert statistic(counts.astype(float)) < bound
    skewed = counts.astype(float)
    skewed[0] *= 1.2
    skewed[1] *= 0.8
    assert statistic(skewed) > bound


def test_only_drawn_nodes_are_asked() -> None:
    grid = FakeGrid([answering(UPDATES[0])] * 20)
    of = plan(more="[nodes]\nmin_available = 20\nfraction = 0.25\nquorum = 5\n")
    rounds(grid, of)(begin(), 1)
    assert [len(asked) for asked in grid.asked] == [5]
    assert grid.of("round")[0]["answered"] == sorted(grid.asked[0])


def test_the_report_of_a_round_does_not_depend_on_who_was_drawn_in_secret() -> None:
    """With the same rows and one node more or fewer in the cohort: the same report but for noise."""
    of = plan(
        more="[nodes]\nmin_available = 4\n"
        '[privacy]\nmodel = "central"\nepsilon = 50.0\ndelta = 1e-5\nnoise_multiplier = 2.0\n'
        "clip = 1.0\nsampling = 0.5\n"
    )
    told = []
    for apps in ([answering(UPDATES[0])] * 4, [raising(ValueError("no")), *[answering([0])] * 3]):
        grid = FakeGrid(apps)
        combine = combination(of, publish=Trial(terms(of)), source=Keystream(bytes(32)))
        run = Rounds(of, grid, grid, size=3, evaluation=lambda _: {}, combine=combine)
        run.draw = lambda _ready, _round, _attempt, grid=grid: list(grid.get_node_ids())
        run(begin(), 1)
        (report,) = grid.of("round")
        told.append(report)
    assert told[0] == told[1]
    assert told[0]["cohort"] == "secret"
    assert not {"answered", "failed", "rejected", "seconds"} & set(told[0])
