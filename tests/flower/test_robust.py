"""Hostile nodes in a round: left out, named, recorded; more of them than allowed: no result."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedsec.errors import StateError
from fedsec.flower.arrays import pack
from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.messages import Metrics
from fedsec.flower.records import RecordFiles
from fedsec.flower.robust import CENTRE, RobustCombination
from fedsec.flower.rounds import Rounds
from fedsec.flower.strategy import FedAvg, ServerState
from fedsec.flower.table import combination
from fedsec.plan import FederationPlan, Robust
from fedsec.robust import CenteredClipping, Pipeline, TrimmedMean
from tests.flower.fakes import FakeGrid, answering, plan, raising, raw_reply, replying

HONEST = [[1.0, 0.0, 2.0], [1.1, 0.1, 2.0], [0.9, -0.1, 2.1], [1.0, 0.1, 1.9], [1.0, 0.0, 2.0]]
FAR = [-10.0, 0.0, -20.0]
NAN = replying(raw_reply(pack(np.array([np.nan, 0, 0], np.float32))))


def robust(text: str, nodes: int, quorum: int, training: str = "rounds = 4") -> FederationPlan:
    more = f"[nodes]\nmin_available = {nodes}\nquorum = {quorum}\n[round]\nattempts = 2\n"
    return plan(training, f"{more}[robust]\n{text}\n")


def go(of: FederationPlan, apps: Sequence[ClientAppCallable], rounds: int = 1) -> FakeGrid:
    grid = FakeGrid(apps)
    run = Rounds(of, grid, grid, size=3, evaluation=lambda _: {})
    state = ServerState.begin({"w": np.zeros(3, np.float32)}, FedAvg())
    for number in range(1, rounds + 1):
        state = run(state, number)
    grid.vector = state.vector  # type: ignore[attr-defined]  # for the tests below
    return grid


def moved(grid: FakeGrid) -> "np.typing.NDArray[np.float32]":
    vector: np.typing.NDArray[np.float32] = grid.vector  # type: ignore[attr-defined]  # set by go
    return vector


def test_a_poisoned_update_and_one_that_is_not_finite_change_nothing_and_are_named() -> None:
    of = robust('rule = "trimmed-mean"\nbyzantine = 2', nodes=7, quorum=5)
    grid = go(of, [*map(answering, HONEST), answering(FAR), NAN])
    # The one that was rejected used up one of the two.
    rows = np.array([*HONEST, FAR], np.float32)
    np.testing.assert_array_equal(moved(grid), Pipeline(TrimmedMean(1))(rows).vector)
    (report,) = grid.of("round")
    assert report["suspects"].keys() == {"105"}  # type: ignore[attr-defined]
    assert report["rejected"].keys() == {"106"}  # type: ignore[attr-defined]
    (told,) = grid.of("nodes")
    records = {record["nodes"][0]: record for record in told["nodes"]}  # type: ignore[attr-defined]
    assert records.keys() == set(range(100, 107))
    assert records[105]["rank"] == 6
    assert records[105]["cosine"] == pytest.approx(-1, abs=1e-2)
    assert records[105]["norm"] == pytest.approx(500**0.5, rel=1e-5)
    assert records[106] == {
        "nodes": [106],
        "excluded": "not-finite: 1 of 3 entries are NaN or infinite",
    }
    assert "weight" not in records[100]  # each coordinate has its own


def test_the_plain_mean_would_have_followed_the_attacker() -> None:
    grid = go(
        robust('rule = "mean"\nbyzantine = 0', 6, 5), [*map(answering, HONEST), answering(FAR)]
    )
    assert moved(grid)[0] < 0
    assert moved(grid)[2] < 0


def test_suspects_can_be_left_out_but_no_more_than_the_plan_allows() -> None:
    text = 'rule = "geometric-median"\nbyzantine = 1\non_suspect = "exclude"'
    farther = [2 * value for value in FAR]
    apps = [*map(answering, HONEST), answering(FAR), answering(farther)]
    grid = go(robust(text, 7, 6), apps)
    (told,) = grid.of("nodes")
    records = {record["nodes"][0]: record for record in told["nodes"]}  # type: ignore[attr-defined]
    assert records[106]["weight"] == 0
    assert "times as far as the median row" in records[106]["excluded"]
    assert records[106]["cosine"] == pytest.approx(-1, abs=1e-2)
    assert records[105]["weight"] > 0
    assert "times as far as the median row" in records[105]["suspect"]
    rest = sum(record["weight"] for record in records.values())
    assert rest == pytest.approx(1)
    (report,) = grid.of("round")
    assert list(report["excluded"]) == ["106"]  # type: ignore[call-overload]


def test_honest_ones_that_stand_out_use_up_nothing_of_what_the_rule_withstands() -> None:
    """Three honest updates are long; three colluders, of usual length, put theirs into one entry."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(10, 10_000)).astype(np.float32)
    rows[7:] *= 5
    rows[:3, 0] = 90
    results = {}
    for what in ("log", "exclude"):
        section = {"rule": "trimmed-mean", "byzantine": 3, "on_suspect": what}
        combine = RobustCombination(Robust.model_validate(section))
        collected = Collected(rows, tuple((i,) for i in range(10)), np.ones(10), (), {}, {})
        results[what] = combine(Attempt(1, 1, tuple(range(10)), RecordDict()), collected, {})
    left_out = {each.nodes[0] for each in results["exclude"].records if each.excluded}
    assert left_out == {7, 8, 9}
    for made in results.values():
        assert abs(made.vector[0]) < 5
    np.testing.assert_array_equal(
        results["exclude"].vector, Pipeline(TrimmedMean(3))(rows[:7]).vector
    )


def test_fewer_are_left_out_where_the_rule_could_not_withstand_f_among_the_rest() -> None:
    """Krum needs 2f+3 rows: of eight that answer one can go, though two stand out."""
    text = 'rule = "krum"\nbyzantine = 2\non_suspect = "exclude"'
    apps = [*map(answering, [*HONEST, HONEST[0]]), *map(answering, (FAR, [-20.0, 0.0, -40.0]))]
    (report,) = go(robust(text, 8, 8), apps).of("round")
    assert list(report["excluded"]) == ["107"]  # type: ignore[call-overload]


def test_nobody_is_left_out_where_nobody_stands_out() -> None:
    log, exclude = (
        go(
            robust(f'rule = "mean"\nbyzantine = 1\non_suspect = "{what}"', 5, 5),
            [*map(answering, HONEST)],
        )
        for what in ("log", "exclude")
    )
    np.testing.assert_array_equal(moved(log), moved(exclude))
    assert exclude.of("round")[0]["excluded"] == {}


def test_more_hostile_nodes_than_the_plan_withstands_fail_the_run_by_name() -> None:
    of = robust('rule = "median"\nbyzantine = 1', 6, 4)
    with pytest.raises(StateError) as caught:
        go(of, [*map(answering, HONEST), NAN, NAN])
    assert "2 updates cannot be used, robust.byzantine allows 1" in str(caught.value)
    assert "node 105: not-finite" in str(caught.value)
    assert "node 106: not-finite" in str(caught.value)


def test_rows_too_large_to_work_with_count_against_f_too() -> None:
    huge = [3e38, 3e38, 3e38]
    of = robust('rule = "trimmed-mean"\nbyzantine = 1', 6, 5)
    grid = go(of, [*map(answering, HONEST), answering(huge)])
    assert np.abs(moved(grid)).max() < 3


@pytest.mark.parametrize("size", [1e14, 1e19, 1e25, 3e38])
@pytest.mark.parametrize(
    "rule",
    [
        'rule = "geometric-median"\nbyzantine = 1',
        'rule = "caf"\nbyzantine = 1',
        'rule = "centered-clipping"\nbyzantine = 1\nbefore = ["nnm"]\noptions = { radius = 1.0 }',
    ],
)
def test_one_giant_update_stops_no_round(rule: str, size: float) -> None:
    """Of that size, products of entries overflow float32, sums in float64 do not."""
    honest = np.random.default_rng(0).normal(size=(10, 3)).tolist()
    grid = go(robust(rule, 11, 10), [*map(answering, honest), answering([size] * 3)])
    assert np.linalg.norm(moved(grid)) < 10
    (told,) = grid.of("nodes")
    records = told["nodes"]
    assert isinstance(records, list)
    assert isinstance(records[-1], dict)
    assert records[-1]["nodes"] == [110]
    assert "suspect" in records[-1] or str(records[-1]["excluded"]).startswith("too-large")


def test_dropouts_that_break_the_promise_repeat_the_round_and_never_weaken_the_rule() -> None:
    """f = 3 of 10 drawn needs nine for Krum; eight answer, though the quorum would allow it."""
    of = robust('rule = "krum"\nbyzantine = 0.3', 9, 7)  # f = 2 of 9 that are surely there
    apps = [answering(HONEST[i % 5]) for i in range(8)] + [raising(OSError("lost"))] * 2
    with pytest.raises(StateError) as caught:
        go(of, apps)
    assert "did not come about in 2 of 2 attempts" in str(caught.value)
    assert "krum: 8 updates are too few for byzantine = 3: need n >= 2f+3 = 9" in str(caught.value)


def test_claimed_examples_buy_no_more_than_the_cap() -> None:
    training = 'rounds = 4\nweighting = "examples"\nmax_examples = 1000000'
    of = robust('rule = "mean"\nbyzantine = 0\nweight_cap = 2.0', 5, 5, training)
    grid = go(
        of,
        [
            *(answering(update, examples=10) for update in HONEST[:4]),
            answering(FAR, examples=10**9),
        ],
    )
    (told,) = grid.of("nodes")
    weights = [record["weight"] for record in told["nodes"]]  # type: ignore[attr-defined]
    assert weights == pytest.approx([0.15] * 4 + [0.4])


def test_centred_clipping_goes_on_from_where_the_round_before_ended() -> None:
    of = robust('rule = "centered-clipping"\nbyzantine = 1\noptions = { radius = 0.5 }', 5, 5)
    grid = go(of, [*map(answering, HONEST)], rounds=2)
    rows = np.array(HONEST, np.float32)
    rule = CenteredClipping(1, radius=0.5)
    one = rule(rows).vector
    two = rule(rows, reference=one).vector
    np.testing.assert_allclose(moved(grid), one + two, rtol=1e-6)


def test_a_state_in_the_middle_continues_bit_by_bit() -> None:
    of = robust('rule = "centered-clipping"\nbyzantine = 1\noptions = { radius = 0.5 }', 5, 5)
    grid = FakeGrid([*map(answering, HONEST)])
    run = Rounds(of, grid, grid, size=3, evaluation=lambda _: {})
    first = run(ServerState.begin({"w": np.zeros(3, np.float32)}, FedAvg()), 1)
    stored = ServerState.from_arrays(first.to_arrays(), first.to_json())
    np.testing.assert_array_equal(stored.memory[CENTRE], first.memory[CENTRE])
    np.testing.assert_array_equal(run(stored, 2).vector, run(first, 2).vector)


def test_a_group_is_one_row_and_all_its_nodes_are_named() -> None:
    rows = np.array([*HONEST, FAR], np.float32)
    groups = tuple((10 + i, 20 + i) for i in range(6))
    weights = np.full(6, 2.0)
    collected = Collected(rows, groups, weights, (), {}, {})
    of = robust('rule = "krum"\nbyzantine = 1', 12, 12)
    assert of.robust is not None
    attempt = Attempt(1, 1, tuple(sorted(n for group in groups for n in group)), RecordDict())
    made = RobustCombination(of.robust)(attempt, collected, {})
    assert made.records[-1].nodes == (15, 25)
    assert dict(made.figures)["suspects"].keys() == {"15", "25"}  # type: ignore[union-attr]


def test_unequal_groups_are_averaged_by_their_nodes() -> None:
    rows = np.array([[0, 0, 0], [3, 3, 3]], np.float32)
    collected = Collected(rows, ((1,), (2, 3)), np.array([1.0, 2.0]), (), {}, {})
    of = robust('rule = "mean"\nbyzantine = 0', 3, 3)
    attempt = Attempt(1, 1, (1, 2, 3), RecordDict())
    made = combination(of)(attempt, collected, {})
    np.testing.assert_allclose(made.vector, [2, 2, 2], rtol=1e-6)


def test_rules_that_draw_do_so_unforeseeably_or_from_a_given_source() -> None:
    of = robust('rule = "median"\nbyzantine = 1\nbefore = ["bucketing"]', 8, 8)
    rows = np.random.default_rng(1).normal(size=(8, 50)).astype(np.float32)
    metrics = tuple(Metrics(1, {}) for _ in range(8))
    collected = Collected(rows, tuple((i,) for i in range(8)), np.ones(8), metrics, {}, {})
    attempt = Attempt(1, 1, tuple(range(8)), RecordDict())
    seen = {combination(of)(attempt, collected, {}).vector.tobytes() for _ in range(8)}
    assert len(seen) > 1  # 105 ways to pair eight rows: eight equal draws are next to impossible
    seeded = [
        combination(of, lambda: np.random.default_rng(7))(attempt, collected, {}).vector
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*seeded)


def test_records_that_no_guarantee_covers_go_to_a_private_file_and_nowhere_else(
    tmp_path: Path,
) -> None:
    of = robust('rule = "trimmed-mean"\nbyzantine = 1', 6, 5)
    grid = FakeGrid([*map(answering, HONEST), answering(FAR)])
    files = RecordFiles(tmp_path / "run" / "records")
    (tmp_path / "run").mkdir()
    run = Rounds(of, grid, grid, size=3, evaluation=lambda _: {}, keep_records=files)
    run(ServerState.begin({"w": np.zeros(3, np.float32)}, FedAvg()), 1)
    assert grid.of("nodes") == []
    (file,) = files.directory.iterdir()
    assert file.name == "round-00001.json"
    assert (file.stat().st_mode & 0o777, files.directory.stat().st_mode & 0o777) == (0o600, 0o700)
    kept = json.loads(file.read_text())
    assert (kept["round"], [record["nodes"] for record in kept["nodes"]]) == (
        1,
        [[100 + i] for i in range(6)],
    )
