"""Distributed privacy in one process: rounds, secure sums, guarded nodes, what each is charged."""

import math

import numpy as np
import pytest
import scipy.stats
from flwr.app import Message

from fedsec.errors import BudgetExhausted, StateError
from fedsec.flower.mod import guard
from fedsec.flower.node_privacy import NodePrivacy, unchanged
from fedsec.flower.noised_figures import NOISED
from fedsec.flower.reporting import ROUND
from fedsec.flower.rounds import Rounds
from fedsec.flower.secure_messages import Stage, read_stage
from fedsec.flower.secure_node import Identity
from fedsec.flower.strategy import FedAvg, ServerState
from fedsec.flower.sums import noisy_sum
from fedsec.flower.table import combination
from fedsec.plan import FederationPlan
from fedsec.plan.figures import figures_of, joined_of
from tests.flower.fakes import FakeGrid, Waiting, answering
from tests.flower.secure import FIRST, signer

SIZE, N = 2000, 6
PLAN = f"""
schema = 1
name = "distributed"
[task]
name = "digits"
[training]
rounds = 3
[nodes]
min_available = {N}
quorum = 5
[round]
attempts = 2
deadline_s = 5
[privacy]
model = "distributed"
epsilon = 50.0
delta = 1e-5
noise_multiplier = 1.0
clip = 1.0
dropouts = 1
corrupt = 1
[secure_aggregation]
mode = "semi-honest"
max_nodes = {N}
"""


class Ledgers:
    """What each node was charged, and when: the words that had left the node by then."""

    def __init__(self) -> None:
        self.charged: dict[int, list[tuple[int, int]]] = {}
        self.broke: set[int] = set()

    def pay(self, node: int, number: int, attempt: int) -> None:
        if node in self.broke:
            raise BudgetExhausted("nothing is left")
        known = self.charged.setdefault(node, [])
        if (number, attempt) not in known:
            known.append((number, attempt))


class NoisedGrid(FakeGrid):
    """Nodes behind their guards, each with its share of the noise."""

    def __init__(self, agreed: FederationPlan, updates: np.ndarray, ledgers: Ledgers) -> None:
        self.left_unpaid: list[int] = []
        joined = joined_of(agreed)

        def node(place: int) -> object:
            me = FIRST + place
            private = NodePrivacy(
                None,
                unchanged if joined is None else lambda update, _heading: joined(update),
                pay=lambda number, attempt: ledgers.pay(me, number, attempt),
                figures=figures_of(agreed.privacy),
            )
            mod = guard(agreed, lambda _plan: None, Identity(signer(me)), private)
            app = answering(updates[place].tolist())

            def answer(message: Message, context: object) -> Message:
                reply = mod(message, context, app)  # type: ignore[arg-type]
                if read_stage(message.content) is Stage.VECTOR and me not in ledgers.charged:
                    self.left_unpaid.append(me)
                return reply

            return answer

        super().__init__([node(place) for place in range(N)])  # type: ignore[misc]

    def pull_messages(self, message_ids: object) -> list[Message]:
        replies = super().pull_messages(message_ids)  # type: ignore[arg-type]
        return [each for each in replies if each.metadata.src_node_id not in self.silent]


def run(
    ledgers: Ledgers, updates: np.ndarray, plan: str = PLAN
) -> tuple[Rounds, NoisedGrid, ServerState]:
    agreed = FederationPlan.parse(plan)
    grid = NoisedGrid(agreed, updates, ledgers)
    combine = combination(agreed)
    rounds = Rounds(agreed, grid, grid, size=SIZE, combine=combine, clock=Waiting().clock)
    return rounds, grid, ServerState.begin({"w": np.zeros(SIZE, np.float32)}, FedAvg())


def unit_rows() -> np.ndarray:
    rows = np.random.default_rng(8).normal(size=(N, SIZE)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_the_model_moves_by_the_noised_mean_and_every_node_has_paid_first() -> None:
    ledgers, rows = Ledgers(), unit_rows()
    rounds, grid, state = run(ledgers, rows)
    moved = rounds(state, 1)
    noise = (moved.vector - rows.mean(axis=0)).astype(np.float64)
    found = noisy_sum(FederationPlan.parse(PLAN), SIZE)
    std = found.std(N) / N
    statistic = float((noise**2).sum())
    rounding = 1 / (4 * N * found.scale**2)
    assert scipy.stats.chi2.cdf(statistic / std**2, SIZE) > 1e-5
    assert scipy.stats.chi2.sf(statistic / (std**2 + rounding), SIZE) > 1e-5
    assert scipy.stats.chi2.sf(statistic / (0.8 * std**2), SIZE) < 1e-5
    assert std >= 1.0 / N * math.sqrt(N / 4)
    assert ledgers.charged == {FIRST + place: [(1, 1)] for place in range(N)}
    assert grid.left_unpaid == []


def test_what_sums_are_divided_by_does_not_tell_who_answered() -> None:
    ledgers, rows = Ledgers(), unit_rows()
    rounds, grid, state = run(ledgers, rows * 0 + np.float32(1 / math.sqrt(SIZE)))
    grid.silent = {FIRST}
    moved = rounds(state, 1)
    (event,) = grid.of(ROUND)
    assert len(event["answered"]) == 5
    # along the direction that all share, the mean over 6 of five updates of length 1
    along = float(moved.vector.sum()) / math.sqrt(SIZE)
    std = noisy_sum(FederationPlan.parse(PLAN), SIZE).std(5) / N
    assert abs(along - 5 / 6) < 5 * std


def test_nodes_without_budget_do_not_open_the_sum() -> None:
    """Two of six refuse: fewer than the quorum are left, and nothing is released."""
    ledgers = Ledgers()
    ledgers.broke = {FIRST, FIRST + 1}
    rounds, _, state = run(ledgers, unit_rows())
    with pytest.raises(StateError, match="privacy budget"):
        rounds(state, 1)
    assert all(FIRST + place not in ledgers.charged for place in (0, 1))


def test_every_attempt_that_a_node_answers_is_charged() -> None:
    ledgers, rows = Ledgers(), unit_rows()
    rounds, _, state = run(ledgers, rows)
    ledgers.broke = {FIRST, FIRST + 1}
    with pytest.raises(StateError):
        rounds(state, 1)
    tries = {tuple(entries) for entries in ledgers.charged.values()}
    assert tries == {((1, 1), (1, 2))}


TOLD = """metrics = { train-loss = [0.0, 2.0], num-examples = [0, 4] }
metrics_noise = 2.0
[secure_aggregation]"""


def test_figures_stand_in_the_sum_and_share_its_noise() -> None:
    """Their means over 6 public nodes, of which one is absent and counts as the middle."""
    ledgers, rows = Ledgers(), unit_rows()
    plan = PLAN.replace("[secure_aggregation]", TOLD)
    rounds, grid, state = run(ledgers, rows, plan)
    grid.silent = {FIRST}
    moved = rounds(state, 1)
    agreed = FederationPlan.parse(plan)
    joined = joined_of(agreed)
    assert joined is not None
    found = noisy_sum(agreed, SIZE + 2)
    noise = (moved.vector - rows[1:].sum(axis=0) / N).astype(np.float64)
    std = found.std(5) / N
    assert std == pytest.approx(joined.multiplier * math.sqrt(5 / 4) / N, rel=0.01)
    statistic = float((noise**2).sum()) / std**2
    assert 1e-5 < scipy.stats.chi2.cdf(statistic / (1 + 1 / 4 / found.share), SIZE) < 1 - 1e-5
    (event,) = grid.of(ROUND)
    told, share = event[NOISED], std / joined.weight
    assert share == pytest.approx(2.0 * math.sqrt(2) / 2 * math.sqrt(5 / 4) / N, rel=0.01)
    for name, expected, width in (("train-loss", 1 - 5 / 6, 2), ("num-examples", 2 - 5 / 6, 4)):
        assert abs(told[name] - expected) < 6 * share * width
    assert event["train_loss"] == told["train-loss"]
    assert "examples" not in event
