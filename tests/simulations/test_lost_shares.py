"""Noise of groups of which a node is lost: deployed nodes and simulated ones, by one yardstick.

row = (sum of the survivors' updates and of their noise shares) / size of the group as drawn
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from fedsec.commands.coupling import coupling_of
from fedsec.flower.clock import CLOCK
from fedsec.flower.collection import Attempt, Collected, Post
from fedsec.flower.messages import Metrics, instruction
from fedsec.flower.node_privacy import NodePrivacy, unchanged
from fedsec.flower.publishing import Publisher
from fedsec.flower.rounds import Rounds
from fedsec.flower.strategy import FedAvg, ServerState
from fedsec.flower.sums import noisy_sum
from fedsec.flower.table import collection, combination
from fedsec.ledgerfile import LedgerFile
from fedsec.plan import FederationPlan
from fedsec.plan.privacy import honest
from fedsec.plan.terms import terms
from fedsec.releases import Releases
from fedsec_sim.setting import sums_of
from tests.flower.fakes import Waiting
from tests.flower.secure import FIRST, SecureGrid, roster

N, GROUP, SIZE, CLIP, MULTIPLIER = 15, 5, 8192, 1.0, 2.0
NODES = tuple(range(FIRST, FIRST + N))
DRAWN = np.random.default_rng(4).normal(size=(N, SIZE)).astype(np.float32)
UPDATES = DRAWN * np.float32(0.5) / np.linalg.norm(DRAWN, axis=1, keepdims=True)
PLAN = f"""
schema = 1
name = "lost shares"
visibility = "groups"
[task]
name = "digits"
[training]
rounds = 2
[nodes]
min_available = {N}
quorum = {{}}
[round]
attempts = 1
deadline_s = 5
reconnect_s = 1
[secure_aggregation]
mode = "malicious"
group_size = {GROUP}
corrupt_per_group = 1
[privacy]
model = "distributed"
epsilon = 50.0
delta = 1e-5
noise_multiplier = {MULTIPLIER}
clip = {CLIP}
dropouts = 1
"""
MEDIAN = FederationPlan.parse(PLAN.format(14) + '[robust]\nrule = "median"\nbyzantine = 1\n')
MEAN = FederationPlan.parse(PLAN.format(10))

Collect: TypeAlias = Callable[[FederationPlan, Collection[int]], Collected]
"""From a plan, and whose vectors are lost in its first round, to what the coordinator sees."""


class Deployed:
    """Guarded nodes with ledgers, and a coordinator, in this process; what it collects is kept."""

    def __init__(self, agreed: FederationPlan, directory: Path) -> None:
        self.agreed = agreed
        self.ledgers = {node: LedgerFile(directory / f"{node}.ledger", {}) for node in NODES}
        self._directory = directory
        self.grid = SecureGrid(agreed, UPDATES.tolist(), private=self._private)
        self.seen: list[Collected] = []
        collect = collection(agreed, SIZE, roster(N))

        def kept(post: Post, attempt: Attempt) -> Collected:
            self.seen.append(collect(post, attempt))
            return self.seen[-1]

        self.rounds = Rounds(
            agreed,
            self.grid,
            self.grid,
            size=SIZE,
            collect=kept,
            combine=combination(agreed, publish=None),
            clock=Waiting().clock,
        )

    def _private(self, node: int) -> NodePrivacy:
        releases = Releases(self._directory / str(node))
        pays = Publisher(terms(self.agreed), 1, self.agreed.digest, self.ledgers[node], releases)
        return NodePrivacy(None, unchanged, pay=pays.charge)

    def charges(self, node: int) -> int:
        """Returns how many releases a node has paid for."""
        charged = [charge for _, charge in self.ledgers[node].entries()]
        assert all(charge.price == terms(self.agreed).price for charge in charged)
        return len(charged)


def begin() -> ServerState:
    return ServerState.begin({"w": np.zeros(SIZE, np.float32)}, FedAvg())


def deployed(directory: Path) -> Collect:
    def collect(agreed: FederationPlan, lost: Collection[int]) -> Collected:
        made = Deployed(agreed, directory)
        made.grid.quiet = {(node, "vector") for node in lost}
        made.rounds(begin(), 1)
        return made.seen[0]

    return collect


def simulated(directory: Path) -> Collect:
    del directory

    def collect(agreed: FederationPlan, lost: Collection[int]) -> Collected:
        alive = [node for node in NODES if node not in lost]
        updates = UPDATES[[node - FIRST for node in alive]]

        def trained(post: Post, attempt: Attempt) -> Collected:
            del post, attempt
            many = len(alive)
            groups = tuple((node,) for node in alive)
            told = (Metrics(1, {}),) * many
            failed = dict.fromkeys(lost, "it is lost")
            return Collected(updates, groups, np.ones(many), told, failed, {})

        model = {"w": np.zeros(SIZE, np.float32)}
        content = instruction(model, round_number=1, attempt=1, plan=agreed.digest)
        nobody = Post(None, 1.0, CLOCK)  # type: ignore[arg-type]  # is asked
        return sums_of(agreed, trained, SIZE)(nobody, Attempt(1, 1, NODES, content))

    return collect


def noise_of(row: NDArray[np.float32], survivors: Sequence[int]) -> NDArray[np.float64]:
    """Returns the noise in a row (d,), if it is the sum over the size of the group as drawn."""
    honest_sum = UPDATES[[node - FIRST for node in survivors]].sum(axis=0, dtype=np.float64)
    return row - honest_sum / GROUP


def fits(noise: NDArray[np.float64], std: float) -> bool:
    """Whether normal noise of this deviation is so large; a good one fails once in 5,000,000."""
    tail = scipy.stats.chi2.cdf(float((noise**2).sum()) / std**2, SIZE)
    return bool(1e-7 < tail < 1 - 1e-7)


@pytest.mark.parametrize("kind", [deployed, simulated])
def test_a_row_is_a_sum_over_the_drawn_size_with_the_noise_of_who_is_left(
    kind: Callable[[Path], Collect], tmp_path: Path
) -> None:
    lost = FIRST + 4
    found = kind(tmp_path)(MEDIAN, {lost})
    assert sorted(map(len, found.groups)) == [GROUP - 1, GROUP, GROUP]
    assert found.nodes == tuple(node for node in NODES if node != lost)
    assert list(found.weights) == [GROUP] * 3  # what weighs less would tell who answered
    assert list(found.failed) == [lost]
    stated = coupling_of(MEDIAN, SIZE)
    assert stated is not None
    promise = MULTIPLIER * CLIP / GROUP
    for row, survivors in zip(found.rows, found.groups, strict=True):
        answered = len(survivors)
        std = noisy_sum(MEDIAN, SIZE).std(answered) / GROUP
        assert std == pytest.approx(stated.std * (answered / GROUP) ** 0.5)
        noise = noise_of(row, survivors)
        assert fits(noise, std)
        for other in (0.9 * std, 1.1 * std, std * (1 - 1 / answered) ** 0.5):
            assert not fits(noise, other)  # a tenth or a share less or more would be seen
        one_is_corrupt = std * ((answered - 1) / answered) ** 0.5
        assert one_is_corrupt >= promise
        signal = UPDATES[[node - FIRST for node in survivors]].sum(axis=0) / GROUP
        along = float(signal @ noise) / float(np.linalg.norm(signal))
        assert abs(along) < 5 * std
    assert noisy_sum(MEDIAN, SIZE).std(honest(MEDIAN)) / GROUP == pytest.approx(promise, rel=0.01)


def test_a_group_with_too_few_shares_is_no_row(tmp_path: Path) -> None:
    """Two of five are lost: three shares are left, and one of them may be a corrupt node's."""
    made = Deployed(MEAN, tmp_path)
    state = made.rounds(begin(), 1)
    first, *others = made.seen[0].groups
    made.grid.quiet = {(node, "vector") for node in first[:2]}
    made.rounds(state, 2)
    found = made.seen[1]
    assert found.groups == tuple(others)
    assert set(found.failed) == set(first)
    assert "its group has no sum" in found.failed[first[2]]


def test_nor_is_it_in_a_simulation(tmp_path: Path) -> None:
    collect = simulated(tmp_path)
    whole = collect(MEAN, set())
    first, *others = whole.groups
    found = collect(MEAN, set(first[:2]))
    assert found.groups == tuple(others)
    assert set(found.failed) == set(first)
    assert "no sum: 3 survivors, at least 4 are needed" in found.failed[first[2]]
    np.testing.assert_array_equal(found.rows, whole.rows[1:])


def test_every_release_is_paid_for_before_a_vector_is_out(tmp_path: Path) -> None:
    """Whose vector is lost on the way has paid; who is left out before that has not."""
    made = Deployed(MEDIAN, tmp_path)
    made.grid.quiet = {(NODES[4], "vector")}
    state = made.rounds(begin(), 1)
    assert [made.charges(node) for node in NODES] == [1] * N
    made.grid.quiet, made.grid.silent = set(), {NODES[7]}
    made.rounds(state, 2)
    assert [made.charges(node) for node in NODES] == [1 + (node != NODES[7]) for node in NODES]
    assert [len(each.nodes) for each in made.seen] == [N - 1, N - 1]
