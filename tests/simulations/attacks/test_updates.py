"""Attacks on updates against their papers' formulas, written plainly."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.errors import ConfigError
from fedsec.robust import Krum, Median, TrimmedMean
from fedsec_sim.attacks.adaptive import Optimised, maximise
from fedsec_sim.attacks.colluding import Alie, Ipm, MinMax, MinSum, alie_z
from fedsec_sim.attacks.fang import FangKrum, FangTrimmedMean, krum_bound
from fedsec_sim.attacks.mimic import Mimic
from fedsec_sim.attacks.plain import (
    Constant,
    FreeRider,
    GaussianNoise,
    ModelReplacement,
    NanBomb,
    Scaling,
    SignFlip,
    Zero,
)
from fedsec_sim.attacks.view import View

BYZANTINE = (2, 5, 6)


def view(
    n: int = 12,
    d: int = 40,
    byzantine: tuple[int, ...] = BYZANTINE,
    seed: int = 1,
    rule: Any = None,
) -> View:
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32) + 0.3
    return View(rows, byzantine, 3, np.random.default_rng(9), rule)


def honest_of(seen: View) -> Any:
    return np.array([row for i, row in enumerate(seen.rows) if i not in seen.byzantine])


def test_plain_attacks_are_multiples_of_the_own_update() -> None:
    for attack, factor in (
        (SignFlip(2.0), -2.0),
        (Scaling(10.0), 10.0),
        (ModelReplacement(0.5), 12 / (3 * 0.5)),
    ):
        seen = view()
        before = seen.rows.copy()
        attack(seen)
        np.testing.assert_allclose(
            seen.rows[list(BYZANTINE)], factor * before[list(BYZANTINE)], rtol=1e-6
        )


def test_plain_attacks_that_ignore_the_own_update() -> None:
    for attack, value in ((Zero(), 0.0), (Constant(-3.0), -3.0), (NanBomb("-inf"), -np.inf)):
        seen = view()
        attack(seen)
        assert (seen.rows[list(BYZANTINE)] == value).all()
    seen = view()
    NanBomb()(seen)
    assert np.isnan(seen.rows[list(BYZANTINE)]).all()


@pytest.mark.parametrize(
    ("attack", "std"), [(GaussianNoise(200.0), 200.0), (FreeRider(0.5, 2.0), 0.5 / 9)]
)
def test_noise_has_the_stated_deviation(attack: Any, std: float) -> None:
    seen = view(d=40_000)
    attack(seen)
    found = seen.rows[list(BYZANTINE)]
    # 120,000 draws: the sample deviation is within 1 % (five standard errors) of the true one
    assert found.std() == pytest.approx(std, rel=0.01)
    assert not np.array_equal(found[0], found[1])


def test_ipm_is_minus_epsilon_times_the_mean() -> None:
    seen = view()
    expected = -0.1 * honest_of(seen).mean(axis=0)
    Ipm(0.1)(seen)
    for row in BYZANTINE:
        np.testing.assert_allclose(seen.rows[row], expected, rtol=1e-5)


def test_alie_is_the_mean_less_z_deviations() -> None:
    seen = view()
    honest = honest_of(seen).astype(np.float64)
    # n = 12, f = 3: s = 7 - 3 = 4, Phi(z) = (12 - 3 - 4) / (12 - 3) = 5/9
    z = alie_z(12, 3)
    assert 0.5 * (1 + math.erf(z / math.sqrt(2))) == pytest.approx(5 / 9, abs=1e-12)
    Alie()(seen)
    expected = honest.mean(axis=0) - z * honest.std(axis=0)
    np.testing.assert_allclose(seen.rows[5], expected, rtol=1e-4, atol=1e-6)


def test_alie_says_what_its_formula_needs() -> None:
    with pytest.raises(ConfigError, match="f < n/2, got n = 4, f = 2"):
        Alie()(view(n=4, byzantine=(0, 1)))


def test_colluders_use_nothing_but_their_own_updates() -> None:
    for attack in (
        Ipm(knowledge="colluders"),
        Alie(knowledge="colluders"),
        MinMax(knowledge="colluders"),
        MinSum(knowledge="colluders"),
        FangTrimmedMean(knowledge="colluders"),
    ):
        seen, other = view(), view()
        other.rows[[i for i in range(12) if i not in BYZANTINE]] *= 7
        attack(seen)
        attack(other)
        assert np.array_equal(seen.rows[list(BYZANTINE)], other.rows[list(BYZANTINE)]), attack


def bisect(allowed: Any) -> float:
    """The paper's algorithm 1, with more steps: the largest gamma that is allowed."""
    low, high = 0.0, 50.0
    while allowed(high):
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low


DIRECTIONS = {
    "unit": lambda known: -known.mean(axis=0) / np.linalg.norm(known.mean(axis=0)),
    "std": lambda known: -known.std(axis=0),
    "sign": lambda known: -np.sign(known.mean(axis=0)),
}


@pytest.mark.parametrize("perturbation", ["unit", "std", "sign"])
@pytest.mark.parametrize("kind", [MinMax, MinSum])
def test_min_max_and_min_sum_are_what_bisection_finds(kind: Any, perturbation: Any) -> None:
    seen = view()
    known = honest_of(seen).astype(np.float64)
    mean, direction = known.mean(axis=0), DIRECTIONS[perturbation](known)
    apart = np.linalg.norm(known[:, None] - known[None], axis=2)

    def allowed(gamma: float) -> bool:
        away = np.linalg.norm(mean + gamma * direction - known, axis=1)
        if kind is MinMax:
            return bool(away.max() <= apart.max())
        return bool((away**2).sum() <= (apart**2).sum(axis=1).max())

    kind(perturbation)(seen)
    expected = mean + bisect(allowed) * direction
    np.testing.assert_allclose(seen.rows[5], expected, rtol=1e-4, atol=1e-5)


def test_min_max_of_equal_updates_is_that_update() -> None:
    rows = np.ones((5, 3), np.float32)
    for attack in (MinMax("unit"), MinMax("std"), MinSum("unit"), MinSum("std")):
        seen = View(rows.copy(), (4,), 1, np.random.default_rng(1))
        attack(seen)
        np.testing.assert_allclose(seen.rows[4], rows[0], atol=1e-6)


def test_an_optimised_attack_hurts_at_least_as_much_as_any_factor_on_a_grid() -> None:
    rules = (
        lambda rows: Median()(rows).vector,
        lambda rows: TrimmedMean(byzantine=3)(rows).vector,
    )
    for rule in rules:
        for base in (Alie(), Ipm()):
            seen = view(rule=rule)
            mean = honest_of(seen).mean(axis=0)
            Optimised(base)(seen)
            found = np.linalg.norm(rule(seen.rows) - mean)
            grid = []
            for factor in np.geomspace(0.01, 30, 60):
                seen.write(base.row(seen, factor))
                grid.append(np.linalg.norm(rule(seen.rows) - mean))
            assert found >= 0.97 * max(grid)


def test_an_optimised_attack_needs_the_rule() -> None:
    with pytest.raises(ConfigError, match="needs the coordinator's rule"):
        Optimised(Ipm())(view())


@given(peak=st.floats(0.05, 200.0))
@settings(derandomize=True, max_examples=50, deadline=None)
def test_the_line_search_finds_a_peak_and_keeps_to_its_budget(peak: float) -> None:
    tried = []

    def hill(x: float) -> float:
        tried.append(x)
        return -abs(x - peak)

    assert maximise(hill, start=1.0, evaluations=40) == pytest.approx(peak, rel=0.05, abs=0.05)
    assert len(tried) <= 40
    assert min(tried) >= 0


def test_mimic_copies_the_node_furthest_along_the_direction_of_largest_variance() -> None:
    rng = np.random.default_rng(3)
    memory: dict[str, Any] = {}
    axis = np.zeros(20)
    axis[4] = 1
    for number in range(1, 15):
        rows = 0.05 * rng.standard_normal((8, 20)) + np.outer([3, -1, 9, 0, -2, 1, 0, 0], axis)
        seen = View(rows.astype(np.float32), (6, 7), number, rng, memory=memory)
        Mimic(warmup=10)(seen)
        if number > 3:
            assert abs(memory["z"][4]) > 0.99
            assert np.array_equal(seen.rows[6], seen.rows[2])
            assert np.array_equal(seen.rows[7], seen.rows[2])
    assert int(memory["seen"][0]) == 10


def test_mimic_learns_as_the_paper_says() -> None:
    seen = view(byzantine=(10, 11))
    honest = honest_of(seen).astype(np.float64)
    z = np.random.default_rng(9).standard_normal(40)
    z /= np.linalg.norm(z)
    mu = honest.mean(axis=0)
    learnt = sum(((x - mu) @ z) * (x - mu) for x in honest)
    Mimic()(seen)
    np.testing.assert_allclose(seen.memory["z"], learnt / np.linalg.norm(learnt), rtol=1e-9)
    # the second round, with weights 1/2 and 1/2
    old_z, old_mu = seen.memory["z"], mu
    again = View(seen.rows * 2, (10, 11), 4, seen.rng, memory=seen.memory)
    mu = old_mu / 2 + 2 * honest.mean(axis=0) / 2
    learnt = old_z / 2 + sum(((x - mu) @ old_z) * (x - mu) for x in 2 * honest) / 2
    Mimic()(again)
    np.testing.assert_allclose(again.memory["z"], learnt / np.linalg.norm(learnt), rtol=1e-6)


def test_fang_krum_is_chosen_by_krum_and_points_backwards() -> None:
    for seed in range(5):
        seen = view(n=13, byzantine=(0, 6, 12), seed=seed)
        mean = honest_of(seen).mean(axis=0)
        FangKrum()(seen)
        vector = Krum(byzantine=3)(seen.rows).vector
        assert np.array_equal(vector, seen.rows[0])
        assert (np.sign(vector) == -np.sign(mean)).all()
        assert len(set(np.abs(vector))) == 1


def test_fang_krum_starts_at_the_papers_bound() -> None:
    honest = honest_of(view()).astype(np.float64)
    m, c, d = 12, 3, 40
    sums = []
    for i, x in enumerate(honest):
        others = sorted(((x - y) ** 2).sum() for j, y in enumerate(honest) if j != i)
        sums.append(sum(others[: m - c - 2]))
    first = math.sqrt(min(sums) / ((m - 2 * c - 1) * d))
    second = max(np.linalg.norm(x) for x in honest) / math.sqrt(d)
    assert krum_bound(honest.astype(np.float32), c) == pytest.approx(first + second, rel=1e-6)


def test_fang_krum_needs_what_krum_needs() -> None:
    with pytest.raises(ConfigError, match="2f\\+3"):
        FangKrum()(view(n=8))


def test_fang_trimmed_mean_lies_beyond_the_honest_values_on_the_wrong_side() -> None:
    seen = view(d=400)
    honest = honest_of(seen)
    mean, least, most = honest.mean(axis=0), honest.min(axis=0), honest.max(axis=0)
    FangTrimmedMean()(seen)
    for row in seen.rows[list(BYZANTINE)]:
        for j, value in enumerate(row):
            if mean[j] >= 0:
                ends = sorted((least[j], least[j] / 2 if least[j] > 0 else least[j] * 2))
            else:
                ends = sorted((most[j], most[j] * 2 if most[j] > 0 else most[j] / 2))
            assert ends[0] - 1e-6 <= value <= ends[1] + 1e-6


def test_fang_with_partial_knowledge_lies_three_to_four_deviations_away() -> None:
    seen = view(d=400)
    own = seen.own.astype(np.float64)
    mean, std = own.mean(axis=0), own.std(axis=0)
    FangTrimmedMean("colluders")(seen)
    away = (seen.rows[list(BYZANTINE)] - mean) / std * -np.where(mean >= 0, 1, -1)
    assert away.min() >= 3 - 1e-3
    assert away.max() <= 4 + 1e-3
    with pytest.raises(ConfigError, match="got f = 1"):
        FangTrimmedMean("colluders")(view(byzantine=(1,)))
