"""Distributed privacy: words of noised integers, summed; measured against what the plan states."""

import math

import numpy as np
import pytest
import scipy.stats

from fedsec.encoding import Rotated
from fedsec.errors import ConfigError
from fedsec.flower.messages import Heading, Metrics
from fedsec.flower.sums import sum_form
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.accounting import spent
from fedsec.privacy.events import Price, Skellam
from fedsec.privacy.keystream import Keystream

SIZE, N = 3000, 12
KEY = bytes(range(11, 43))


def plan_text(bits: int = 16, dropouts: int = 2, corrupt: int = 1) -> str:
    return f"""
        schema = 1
        name = "noised sums"
        [task]
        name = "digits"
        [training]
        rounds = 3
        [nodes]
        min_available = {N}
        quorum = {N - dropouts}
        [privacy]
        model = "distributed"
        epsilon = 50.0
        delta = 1e-5
        noise_multiplier = 1.0
        clip = 0.5
        bits = {bits}
        dropouts = {dropouts}
        corrupt = {corrupt}
        [secure_aggregation]
        mode = "semi-honest"
        corrupt = 0.05
        max_nodes = {N}
        """


def plan(bits: int = 16) -> FederationPlan:
    return FederationPlan.parse(plan_text(bits))


def heading(of: FederationPlan, number: int = 1, attempt: int = 1) -> Heading:
    return Heading(number, attempt, of.digest)


@pytest.mark.parametrize("bits", [12, 16, 20])
@pytest.mark.parametrize("answered", [N, N - 2])
def test_the_noise_of_the_sum_is_what_the_fewest_honest_shares_need(
    bits: int, answered: int
) -> None:
    """Nine honest shares of ten answers carry z C; more answers bring more, never less."""
    of = plan(bits)
    form, stream = sum_form(of, SIZE, heading(of)), Keystream(KEY)
    assert form.encoding.bits == bits
    rows = np.random.default_rng(2).normal(size=(answered, SIZE)).astype(np.float32)
    rows *= (0.5 / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    total = sum(form.encode(row, Metrics(1, {}), stream) for row in rows)
    summed = form.decode(np.asarray(total, form.encode(rows[0], Metrics(1, {}), stream).dtype), answered)  # fmt: skip
    noise = (summed.mean * answered - rows.sum(axis=0)).astype(np.float64)
    needed = 1.0 * 0.5 * math.sqrt(answered / 9)
    statistic = float((noise**2).sum()) / needed**2
    assert scipy.stats.chi2.cdf(statistic, SIZE) > 1e-5
    code = form.encoding
    assert isinstance(code, Rotated)
    rounding = answered / 4 / code.scale**2
    inflated = (code.l2 / code.scale / 0.5) ** 2
    most = needed**2 * inflated + rounding
    assert scipy.stats.chi2.sf(float((noise**2).sum()) / most, SIZE) > 1e-5
    # a guarantee for all twelve, or noise for C/n, would be noticed
    assert scipy.stats.chi2.sf(float((noise**2).sum()) / (0.8 * most), SIZE) < 1e-5


def test_what_the_plan_states_covers_what_the_nodes_do() -> None:
    of = plan()
    code = sum_form(of, SIZE, heading(of)).encoding
    assert isinstance(code, Rotated)
    share = code.noise.variance  # type: ignore[union-attr]
    l1 = min(math.sqrt(code.length) * code.l2, code.l2**2)
    real = spent([Price(Skellam(l1, code.l2, 9 * share), 9)], 1e-5)
    stated = spent([terms(of).whole], 1e-5)
    assert real <= stated <= 1.01 * real
    short = spent([Price(Skellam(l1, code.l2, 8 * share), 9)], 1e-5)
    assert short > stated  # one share fewer would not be covered


def test_every_turn_has_a_rotation_of_its_own() -> None:
    of = plan()
    seeds = {
        sum_form(of, SIZE, heading(of, number, attempt)).encoding.seed  # type: ignore[attr-defined]
        for number in (1, 2)
        for attempt in (1, 2)
    }
    assert len(seeds) == 4
    both = [sum_form(of, SIZE, heading(of)) for _ in range(2)]
    assert both[0] == both[1]


def test_words_that_are_too_short_are_refused_before_the_first_round() -> None:
    of = plan(bits=8)
    with pytest.raises(ConfigError, match="bits = 8 cannot hold the sum of 12 nodes"):
        sum_form(of, SIZE, heading(of))


def central_sum(word_bits: int) -> FederationPlan:
    keys = "bits = 16\n        dropouts = 2\n        corrupt = 1\n        "
    text = plan_text().replace('"distributed"', '"central"').replace(keys, "")
    return FederationPlan.parse(text + f"word_bits = {word_bits}\n")


def test_rounding_does_not_make_an_update_longer_than_the_clip() -> None:
    """Central noise covers the clip; in a secure sum nobody can clip after rounding."""
    of = central_sum(32)
    form, stream = sum_form(of, SIZE, heading(of)), Keystream(KEY)
    rows = np.random.default_rng(2).normal(size=(20, SIZE)).astype(np.float32)
    for row in [*rows, np.ones(SIZE, np.float32)]:
        alone = form.decode(form.encode(row, Metrics(1, {}), stream), 1)
        assert np.linalg.norm(alone.mean.astype(np.float64)) <= 0.5 * (1 + 1e-6)
        assert np.linalg.norm(alone.mean) > 0.499


def test_words_too_coarse_for_that_are_refused() -> None:
    of = central_sum(16)
    with pytest.raises(ConfigError, match="16 bits are too coarse for central privacy over 300000"):
        sum_form(of, 300_000, heading(of))
