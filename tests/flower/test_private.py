"""Central privacy: what is released, how much noise is on it, and what it does not depend on."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import scipy.stats
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedsec.errors import BudgetExhausted, ConfigError
from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.combination import Combined
from fedsec.flower.private import CLIP, Central, weighted_sum
from fedsec.flower.publishing import Trial
from fedsec.flower.reporting import ROUND
from fedsec.flower.robust import CENTRE
from fedsec.flower.rounds import Rounds
from fedsec.flower.strategy import FedAvg, ServerState
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.keystream import Keystream
from fedsec.vectors import Arrays, Vector
from tests.flower.fakes import FakeGrid, Waiting, answering

KEY = bytes(range(7, 39))
N = 11


def plan(
    more: str = "", *, robust: str = "", clip: float = 0.5, z: float = 1.0, n: int = N
) -> FederationPlan:
    return FederationPlan.parse(
        f"""
        schema = 1
        name = "private"
        [task]
        name = "digits"
        [training]
        rounds = 5
        [nodes]
        min_available = {n}
        [privacy]
        model = "central"
        epsilon = 50.0
        delta = 1e-5
        noise_multiplier = {z}
        clip = {clip}
        {more}
        {robust}
        """
    )


def at_once(_round: int, _attempt: int, make: Callable[[], Vector]) -> Vector:
    return make()


def central(of: FederationPlan, key: bytes = KEY, publish: object = at_once) -> Central:
    return Central(of, publish, Keystream(key), lambda: np.random.default_rng(1))  # type: ignore[arg-type]


def collected(rows: Sequence[Vector] | NDArray[np.float32], nodes: Sequence[int] = ()) -> Collected:
    matrix = np.array(rows, np.float32)
    ids = nodes or range(1, len(matrix) + 1)
    return Collected(
        matrix, tuple((node,) for node in ids), np.ones(len(matrix)), (), {}, {}
    )  # fmt: skip


def combine(of: Central, rows: object, memory: Arrays | None = None, number: int = 1) -> Combined:
    attempt = Attempt(number, 1, tuple(range(1, N + 1)), RecordDict())
    return of(attempt, collected(rows), memory or {})  # type: ignore[arg-type]


RULES = {
    "mean": "",
    "trimmed mean": '[robust]\nrule = "trimmed-mean"\nbyzantine = 2\n',
    "bucketed trimmed mean": '[robust]\nrule = "trimmed-mean"\nbyzantine = 1\nbefore = ["bucketing"]\n',
    "bucketed median": '[robust]\nrule = "median"\nbyzantine = 1\nbefore = [{ name = "bucketing", size = 2 }]\n',
    "centred clipping": '[robust]\nrule = "centered-clipping"\nbyzantine = 2\n[robust.options]\nradius = 0.3\niterations = 2\n',
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_the_noise_is_the_multiplier_times_the_sensitivity(rule: str) -> None:
    """Chi-square over 20,000 entries: 7 % too little or too much is noticed."""
    size = 20_000
    of = central(plan(robust=RULES[rule], z=1.5))
    rows = np.zeros((N, size), np.float32)
    noise = combine(of, rows).vector.astype(np.float64)
    wanted = 1.5 * of.mechanism(0.5).sensitivity
    statistic = float((noise**2).sum()) / wanted**2
    assert scipy.stats.chi2.sf(statistic / 1.002, size) > 1e-5
    assert scipy.stats.chi2.cdf(statistic, size) > 1e-5
    assert scipy.stats.chi2.sf(statistic / 0.93**2, size) < 1e-4
    figures = combine(of, rows).figures
    assert figures["noise_std"] == pytest.approx(wanted, rel=3e-3)


@pytest.mark.parametrize("rule", RULES)
def test_neighbours_are_no_farther_apart_than_the_sensitivity(rule: str) -> None:
    """With the same noise on both, what differs is the aggregate: one row against the zero row."""
    rng = np.random.default_rng(3)
    farthest = 0.0
    for trial in range(40):
        spread = 10.0 ** rng.integers(-2, 2)
        rows = rng.normal(size=(N, 3)).astype(np.float32) * np.float32(spread)
        if trial % 2:  # two camps: where medians and trimmed means are moved most
            rows = np.where(np.arange(N)[:, None] % 2, 1, -1) * np.ones((N, 3), np.float32)
        other = rows.copy()
        other[trial % N] = 0
        of = plan(robust=RULES[rule])
        pair = [combine(central(of), x).vector.astype(np.float64) for x in (rows, other)]
        farthest = max(farthest, float(np.linalg.norm(pair[0] - pair[1])))
    bound = central(of).mechanism(0.5).sensitivity
    assert farthest <= bound * 1.003 + 1e-7  # float32 results, on a grid
    assert farthest > 0.3 * bound


def test_the_noise_covers_a_secure_sum_s_rounding_to_float32() -> None:
    """The mean of n updates is rounded once: n times a rounding of one update."""
    n = 20_000
    summed = plan('[secure_aggregation]\nmode = "semi-honest"\nmax_nodes = 20000\n', n=n)
    length, step = np.float32(0.4), np.float32(2.0**-26)  # half the distance of two float32 there
    sums = [n * float(np.float32(float(length) + shift * float(step))) for shift in (0.9, 1.1)]
    farthest = 0.5 + (sums[1] - sums[0])  # neighbours on both sides of a rounding
    assert central(summed).mechanism(0.5).sensitivity >= farthest / n
    assert central(plan(n=n)).mechanism(0.5).sensitivity == 0.5 / n


def test_the_mean_of_clipped_updates_comes_out() -> None:
    rows = np.array([[3, 4], [0.03, 0.04], [0, 0]], np.float32)
    of = central(plan(z=0.05, clip=1.0))
    wanted = (np.array([0.6, 0.8]) + np.array([0.03, 0.04])) / N
    np.testing.assert_allclose(combine(of, rows).vector, wanted, atol=6 * 0.05 / N)


def test_the_denominator_does_not_depend_on_who_answered() -> None:
    rows = np.full((N, 4), 0.1, np.float32)
    full, half = (combine(central(plan()), rows[:m]).vector for m in (N, 5))
    np.testing.assert_allclose((full - half) * N, 0.6, rtol=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_an_absent_node_is_a_zero_row(rule: str) -> None:
    rows = np.random.default_rng(5).normal(size=(N, 50)).astype(np.float32)
    rows[-2:] = 0
    of = plan(robust=RULES[rule])
    absent = combine(central(of), rows[:-2])
    assert np.array_equal(combine(central(of), rows).vector, absent.vector)
    assert all(record.nodes for record in absent.records)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
def test_an_update_that_cannot_be_clipped_counts_as_absent(rule: str, bad: float) -> None:
    rows = np.random.default_rng(5).normal(size=(N, 50)).astype(np.float32)
    zero = rows.copy()
    rows[0, 0], zero[0] = bad, 0
    of = plan(robust=RULES[rule])
    released = combine(central(of), rows).vector
    assert np.isfinite(released).all()
    if math.isfinite(bad):  # it is long, but has a direction
        zero[0, 0] = 1
    np.testing.assert_allclose(released, combine(central(of), zero).vector, atol=1e-6)


def test_an_empty_cohort_releases_noise() -> None:
    of = central(plan("population = 40\nsampling = 0.25\n"))
    noise = combine(of, np.zeros((0, 10_000), np.float32)).vector
    assert np.std(noise) == pytest.approx(0.5 / 10, rel=0.03)


def test_nothing_is_released_before_it_is_paid_for() -> None:
    def broke(_round: int, _attempt: int, _make: Callable[[], Vector]) -> Vector:
        raise BudgetExhausted("nothing is left")

    with pytest.raises(BudgetExhausted):
        combine(central(plan(), publish=broke), np.zeros((N, 3), np.float32))


def test_a_release_that_was_made_before_is_made_no_second_time() -> None:
    stored: dict[int, Vector] = {}

    def kept(number: int, _attempt: int, make: Callable[[], Vector]) -> Vector:
        if number not in stored:
            stored[number] = make()
        return stored[number]

    adaptive = "clip_quantile = 0.5\nclip_noise = 2.0\n"
    rows = np.ones((N, 3), np.float32)
    first = combine(central(plan(adaptive), publish=kept), rows)
    again = combine(central(plan(adaptive), bytes(32), publish=kept), rows * 0)
    assert np.array_equal(first.vector, again.vector)
    assert first.memory[CLIP] == again.memory[CLIP]


class TestAdaptiveClip:
    MORE = "clip_quantile = 0.5\nclip_noise = 3.0\nclip_learning_rate = 0.4\npopulation = 100\n"

    @pytest.mark.parametrize("start", [0.01, 1.0, 100.0])
    def test_it_converges_to_the_quantile(self, start: float) -> None:
        rng = np.random.default_rng(1)
        of = central(plan(self.MORE, clip=start))
        memory: Arrays = {}
        clips = []
        for number in range(1, 81):
            norms = np.exp(rng.normal(size=(100, 1)))
            rows = (rng.normal(size=(100, 2)) + 1e-9).astype(np.float32)
            rows *= (norms / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
            memory = combine(of, rows, memory, number).memory
            clips.append(float(memory[CLIP]))
        assert np.mean(clips[-20:]) == pytest.approx(1.0, rel=0.25)

    def test_the_count_costs_a_part_of_the_round(self) -> None:
        size = 20_000
        of = central(plan(self.MORE))
        noise = combine(of, np.zeros((100, size), np.float32)).vector.astype(np.float64)
        assert noise.size == size
        wanted = (1 - 1 / 36) ** -0.5 * 0.5 / 100
        statistic = float((noise**2).sum()) / wanted**2
        assert scipy.stats.chi2.sf(statistic / 1.002, size) > 1e-5
        assert scipy.stats.chi2.cdf(statistic, size) > 1e-5

    def test_absent_nodes_do_not_move_it(self) -> None:
        """Half of those who are there are short: the clip stays, however few they are."""
        rows = np.array([[0.1], [0.2], [7.0], [9.0]], np.float32)
        moves = []
        for trial in range(200):
            of = central(plan(self.MORE), bytes([trial]) * 32)
            moves.append(math.log(float(combine(of, rows).memory[CLIP]) / 0.5))
        assert abs(np.mean(moves)) < 5 * 0.4 * 0.03 / math.sqrt(200)


def test_centred_clipping_starts_from_what_was_released() -> None:
    found = combine(central(plan(robust=RULES["centred clipping"])), np.ones((N, 3), np.float32))
    assert np.array_equal(found.memory[CENTRE], found.vector)


def test_a_group_counts_for_its_nodes() -> None:
    """A sum in secret comes as one mean of its nodes."""
    rows = np.array([[0.1, 0.2]], np.float32)
    given = Collected(rows, ((1, 2, 3),), np.array([3.0]), (), {}, {})
    attempt = Attempt(1, 1, (1, 2, 3), RecordDict())
    found = central(plan(z=0.05))(attempt, given, {})
    np.testing.assert_allclose(found.vector, rows[0] * 3 / N, atol=6 * 0.05 * 0.5 / N)


def test_a_weighted_sum_is_summed_in_double_precision() -> None:
    rows = np.full((1000, 3), 0.1, np.float32)
    rows[0] = [1e8, 0, np.nan]
    factors = np.ones(1000)
    factors[0] = 0
    exact = 999 * float(np.float32(0.1))
    np.testing.assert_allclose(weighted_sum(rows, factors), exact, rtol=1e-14)


def test_other_models_are_not_central() -> None:
    other = plan().model_copy(update={"privacy": None})
    with pytest.raises(ConfigError, match=r'no privacy.model = "central"'):
        central(other)


def test_a_round_without_anybody_is_released_and_charged() -> None:
    """Drawn in secret, a cohort may be empty: nobody may learn that from what comes out."""
    of = plan("population = 11\nsampling = 0.001\n")
    trial = Trial(terms(of))
    grid = FakeGrid([answering([1.0] * 500)] * N)
    combine_rows = Central(of, trial, Keystream(KEY), np.random.default_rng)
    rounds = Rounds(of, grid, grid, size=500, combine=combine_rows, clock=Waiting().clock)
    state = ServerState.begin({"w": np.zeros(500, np.float32)}, FedAvg())
    moved = rounds(rounds(state, 1), 2)
    assert grid.asked == []
    assert [event["cohort"] for event in grid.of(ROUND)] == ["secret", "secret"]
    assert np.std(moved.vector) == pytest.approx(0.5 / 0.011 * math.sqrt(2), rel=0.15)
    assert [charge.round for charge in trial.book.charges] == [1, 2]
