"""Sums of groups through the round: rows of groups, rules over them, lost groups, fixed groups."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from flwr.app import Message

from fedsec.errors import StateError
from fedsec.flower.group_node import placed
from fedsec.flower.messages import Heading
from fedsec.flower.reporting import NODES, ROUND
from fedsec.flower.rounds import Rounds
from fedsec.flower.secure_messages import Stage, read_stage, request
from fedsec.flower.strategy import FedAvg, ServerState
from fedsec.flower.table import combination
from fedsec.plan import FederationPlan
from tests.flower.fakes import Waiting
from tests.flower.secure import FIRST, SecureGrid
from tests.robust.oracles import fltrust

N, SIZE = 15, 3
UPDATES = np.random.default_rng(5).normal(size=(N, SIZE)).round(2).tolist()
MEDIAN = '[robust]\nrule = "median"\nbyzantine = {}\n'


def plan(
    mode: str = "semi-honest", more: str = "", *, quorum: int = N, training: str = "rounds = 3"
) -> FederationPlan:
    return FederationPlan.parse(f"""
schema = 1
name = "groups"
visibility = "groups"
[task]
name = "digits"
[training]
{training}
[nodes]
min_available = {N}
quorum = {quorum}
[round]
attempts = 2
deadline_s = 5
reconnect_s = 1
[secure_aggregation]
mode = "{mode}"
clip = 20.0
group_size = 5
{more}""")


def begin(agreed: FederationPlan, grid: SecureGrid) -> tuple[Rounds, ServerState]:
    rounds = Rounds(agreed, grid, grid, size=SIZE, clock=Waiting().clock)
    return rounds, ServerState.begin({"w": np.zeros(SIZE, np.float32)}, FedAvg())


def groups_in(grid: SecureGrid) -> list[list[int]]:
    """Returns whose nodes each row of the last round was of, as its records say."""
    rows = grid.of(NODES)[-1]["nodes"]
    assert isinstance(rows, list)
    return [row["nodes"] for row in rows]


def means(groups: Sequence[Sequence[int]], updates: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array([np.mean([updates[node - FIRST] for node in group], 0) for group in groups])


@pytest.mark.parametrize("mode", ["semi-honest", "malicious"])
def test_a_rule_goes_over_the_means_of_groups_that_stay(mode: str) -> None:
    agreed = plan(mode, MEDIAN.format(1))
    grid = SecureGrid(agreed, UPDATES)
    rounds, state = begin(agreed, grid)
    told = []
    for number in (1, 2, 3):
        before = state.vector.copy()
        state = rounds(state, number)
        groups = groups_in(grid)
        told.append(groups)
        assert sorted(map(len, groups)) == [5, 5, 5]
        assert sorted(node for group in groups for node in group) == list(range(100, 100 + N))
        step = np.median(means(groups, UPDATES), axis=0)
        np.testing.assert_allclose(state.vector - before, step, atol=1e-5)
    assert told[0] == told[1] == told[2]


def test_the_mean_of_groups_is_the_mean_of_nodes() -> None:
    agreed = plan()
    grid = SecureGrid(agreed, UPDATES)
    rounds, state = begin(agreed, grid)
    np.testing.assert_allclose(rounds(state, 1).vector, np.mean(UPDATES, axis=0), atol=1e-5)


def test_one_hostile_node_spoils_one_row_and_no_rule() -> None:
    hostile = [list(row) for row in UPDATES]
    hostile[4] = [20.0, -20.0, 0.0]
    agreed = plan("malicious", MEDIAN.format(1))
    grid = SecureGrid(agreed, hostile)
    rounds, state = begin(agreed, grid)
    moved = rounds(state, 1).vector
    clean = means([g for g in groups_in(grid) if FIRST + 4 not in g], UPDATES)
    assert len(clean) == 2
    assert (clean.min(0) - 1e-5 <= moved).all()
    assert (moved <= clean.max(0) + 1e-5).all()


def beside_root(rows: np.ndarray, root: np.ndarray) -> np.ndarray:
    """MoNNA: the mean of the root update and of all rows but the one that is farthest from it."""
    near = sorted(rows, key=lambda row: float(np.sum((row - root) ** 2)))[: len(rows) - 1]
    return np.mean([root, *near], axis=0)


@pytest.mark.parametrize(("rule", "formula"), [("fltrust", fltrust), ("monna", beside_root)])
def test_a_trusted_update_judges_the_means_of_groups(
    rule: str, formula: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> None:
    root = np.array([1.0, 0.5, -1.0], np.float32)
    updates = (root + 0.2 * np.array(UPDATES)).tolist()
    updates[4] = [-12.0, -6.0, 12.0]  # turns the mean of its group round
    section = f'[robust]\nrule = "{rule}"\nbyzantine = 1\nroot = "clean"\n'
    agreed = plan("malicious", section)
    grid = SecureGrid(agreed, updates)
    trusting = combination(agreed, root=lambda _: root)
    rounds = Rounds(agreed, grid, grid, size=SIZE, combine=trusting, clock=Waiting().clock)
    moved = rounds(ServerState.begin({"w": np.zeros(SIZE, np.float32)}, FedAvg()), 1).vector
    rows = means(groups_in(grid), updates)
    np.testing.assert_allclose(moved, formula(rows, root), atol=1e-5)
    told = {FIRST + 4 in row["nodes"]: row["weight"] for row in grid.of(NODES)[-1]["nodes"]}
    assert told[True] == 0.0 < told[False]


def test_a_group_below_its_threshold_is_a_missing_row_where_the_plan_bears_it() -> None:
    agreed = plan(quorum=10)
    grid = SecureGrid(agreed, UPDATES)
    rounds, state = begin(agreed, grid)
    state = rounds(state, 1)
    first = next(iter(draws_of(grid)))
    grid.silent = set(first[:2])  # of five nodes one may leave
    before = state.vector.copy()
    state = rounds(state, 2)
    rest = [UPDATES[node - 100] for node in range(100, 100 + N) if node not in first]
    np.testing.assert_allclose(state.vector - before, np.mean(rest, axis=0), atol=1e-5)
    event = grid.of(ROUND)[-1]
    assert event["answered"] == sorted(set(range(100, 100 + N)) - set(first))
    failed = event["failed"]
    assert isinstance(failed, dict)
    assert "its group has no sum: the secure sum is lost at stage" in failed[str(first[2])]
    grid.silent = set()  # who comes back is in its group again
    state = rounds(state, 3)
    assert grid.of(ROUND)[-1]["answered"] == list(range(100, 100 + N))


def test_a_lost_group_is_a_lost_attempt_where_the_rule_cannot_bear_it() -> None:
    agreed = plan(more=MEDIAN.format(1))
    grid = SecureGrid(agreed, UPDATES)
    rounds, state = begin(agreed, grid)
    state = rounds(state, 1)
    grid.silent = set(groups_in(grid)[0][:2])
    grid.came.clear()
    with pytest.raises(
        StateError, match=r"10 nodes are left, nodes\.quorum = 15; no sum was opened"
    ):
        rounds(state, 2)
    stages = [read_stage(message.content) for message in grid.came if message.has_content()]
    assert stages.count(Stage.VECTOR) == 2 * 10  # both whole groups, in both attempts
    assert Stage.REVEAL not in stages


def draws_of(grid: SecureGrid) -> list[tuple[int, ...]]:
    """Returns the groups, as each node keeps them in mind."""
    known = (placed(context) for context in grid._contexts.values())
    return sorted({tuple(each.members) for each in known if each is not None})


def test_a_node_that_gives_the_draw_up_is_left_out_of_the_next_one() -> None:
    agreed = plan(quorum=10)
    updates = [*UPDATES, [0.0, 0.0, 0.0]]
    grid = SecureGrid(agreed, updates)
    grid.quiet = {(115, "part")}
    rounds, state = begin(agreed, grid)
    state = rounds(state, 1)
    assert sorted(node for group in draws_of(grid) for node in group) == list(range(100, 115))
    (note,) = grid.of("note")
    assert "no groups were drawn: 1 nodes did not reveal" in str(note["text"])
    assert "115" in str(note["rejected"])


def test_a_node_that_comes_late_is_in_no_group_and_is_not_asked() -> None:
    agreed = plan()
    grid = SecureGrid(agreed, [*UPDATES, [100.0, 0.0, 0.0]])
    grid.away = {115}
    rounds, state = begin(agreed, grid)
    state = rounds(state, 1)
    grid.away = set()
    before = state.vector.copy()
    state = rounds(state, 2)
    np.testing.assert_allclose(state.vector - before, np.mean(UPDATES, axis=0), atol=1e-5)
    assert grid.of(ROUND)[-1]["answered"] == list(range(100, 115))


@pytest.mark.parametrize(
    ("stage", "round_number", "why"),
    [
        (Stage.ENTRY, 2, "this node's group stands, for the whole run"),
        (Stage.GROUPS, 2, "this node's group stands"),
    ],
)
def test_no_group_is_drawn_twice(stage: Stage, round_number: int, why: str) -> None:
    agreed = plan()
    grid = SecureGrid(agreed, UPDATES)
    rounds, state = begin(agreed, grid)
    rounds(state, 1)
    reply = ask(grid, agreed, stage, round_number)
    assert reply.has_error()
    assert why in reply.error.reason


def test_groups_are_drawn_in_the_first_round_only() -> None:
    agreed = plan()
    grid = SecureGrid(agreed, UPDATES)
    assert "groups are drawn in round 1" in ask(grid, agreed, Stage.ENTRY, 2).error.reason
    assert not ask(grid, agreed, Stage.ENTRY, 1).has_error()
    assert "in no draw" in ask(grid, agreed, Stage.PART, 1, node=101).error.reason
    sums = FederationPlan.parse(ONE_SUM)
    other = SecureGrid(sums, UPDATES)
    assert "the plan has no groups" in ask(other, sums, Stage.ENTRY, 1).error.reason


ONE_SUM = f"""
schema = 1
name = "one sum"
[task]
name = "digits"
[training]
rounds = 3
[nodes]
min_available = {N}
[secure_aggregation]
mode = "semi-honest"
clip = 20.0
"""


def test_a_node_without_a_group_trains_for_nobody() -> None:
    agreed = plan()
    grid = SecureGrid(agreed, UPDATES)
    assert "this node is in no group" in ask(grid, agreed, Stage.OFFER, 1).error.reason


def ask(
    grid: SecureGrid, agreed: FederationPlan, stage: Stage, round_number: int, node: int = 100
) -> Message:
    content = request(stage, Heading(round_number, 1, agreed.digest), bytes(8))
    message = Message(content, node, "train", group_id=str(round_number))
    assert read_stage(content) is stage
    (reply,) = grid.send_and_receive([message])
    return reply
