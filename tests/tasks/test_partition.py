"""Every split is disjoint, covering and repeatable; its skew is what its source says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ConfigError
from fedsec.tasks.partition import Indices, dirichlet, iid, shards

LABELS = np.repeat(np.arange(10), 100)


def check(parts: list[Indices], examples: int) -> None:
    together = np.concatenate(parts)
    assert sorted(together.tolist()) == list(range(examples))
    assert all(len(part) >= 1 for part in parts)
    assert all((np.diff(part) > 0).all() for part in parts)


@pytest.mark.slow
@given(
    labels=st.lists(st.integers(0, 5), min_size=20, max_size=200),
    nodes=st.integers(1, 10),
    alpha=st.sampled_from([0.001, 0.1, 0.5, 1.0, 100.0]),
    minimum=st.integers(1, 2),
    seed=st.integers(0, 2**63 - 1),
)
def test_dirichlet_is_disjoint_covering_and_repeatable(
    labels: list[int], nodes: int, alpha: float, minimum: int, seed: int
) -> None:
    given_labels = np.array(labels)
    parts = dirichlet(given_labels, nodes, alpha=alpha, minimum=minimum, seed=seed)
    check(parts, len(labels))
    assert min(map(len, parts)) >= minimum
    again = dirichlet(given_labels, nodes, alpha=alpha, minimum=minimum, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(
    labels=st.lists(st.integers(0, 5), min_size=20, max_size=200),
    nodes=st.integers(1, 10),
    per_node=st.integers(1, 2),
    seed=st.integers(0, 2**63 - 1),
)
def test_shards_are_disjoint_covering_and_repeatable(
    labels: list[int], nodes: int, per_node: int, seed: int
) -> None:
    parts = shards(np.array(labels), nodes, per_node=per_node, seed=seed)
    check(parts, len(labels))
    again = shards(np.array(labels), nodes, per_node=per_node, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(examples=st.integers(10, 200), nodes=st.integers(1, 10), seed=st.integers(0, 2**63 - 1))
def test_iid_parts_differ_by_at_most_one(examples: int, nodes: int, seed: int) -> None:
    parts = iid(examples, nodes, seed=seed)
    check(parts, examples)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_another_seed_is_another_split() -> None:
    splits = [dirichlet(LABELS, 5, alpha=0.5, seed=seed) for seed in (1, 2)]
    assert not all(np.array_equal(a, b) for a, b in zip(*splits, strict=True))


def test_a_shard_node_sees_few_classes() -> None:
    """10 classes of 100 in 20 shards of 50: a shard has one class, a node at most two."""
    for part in shards(LABELS, 10, per_node=2, seed=3):
        assert len(np.unique(LABELS[part])) <= 2
    assert max(len(np.unique(LABELS[part])) for part in iid(len(LABELS), 10, seed=3)) >= 9


def test_a_small_alpha_skews_and_a_large_one_does_not() -> None:
    def largest_share(alpha: float) -> float:
        parts = dirichlet(LABELS, 10, alpha=alpha, seed=3)
        shares = [np.bincount(LABELS[part], minlength=10).max() / len(part) for part in parts]
        return float(np.mean(shares))

    assert largest_share(0.05) > 0.6
    assert largest_share(1000.0) < 0.2


@pytest.mark.slow
def test_shares_follow_the_dirichlet_distribution() -> None:
    """The share of one class at one node is Beta(a, (n-1)a): mean 1/n, variance as below.

    2,000 draws; the bound on the variance is 5 standard errors of a kurtosis-6 sample.
    """
    nodes, alpha, draws = 4, 0.5, 2000
    labels = np.zeros(1000, np.int64)
    first = [
        len(dirichlet(labels, nodes, alpha=alpha, minimum=0, seed=seed)[0]) / 1000
        for seed in range(draws)
    ]
    variance = (1 / nodes) * (1 - 1 / nodes) / (nodes * alpha + 1)
    assert np.mean(first) == pytest.approx(1 / nodes, abs=5 * (variance / draws) ** 0.5)
    assert np.var(first) == pytest.approx(variance, rel=5 * (5 / draws) ** 0.5)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha must be > 0, got"):
        dirichlet(LABELS, 2, alpha=alpha, seed=1)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(ConfigError, match="9 examples are too few for 5 nodes with at least 2"):
        dirichlet(LABELS[:9], 5, alpha=1.0, minimum=2, seed=1)
    with pytest.raises(ConfigError, match="3 examples are too few for 4 nodes"):
        iid(3, 4, seed=1)
    with pytest.raises(ConfigError, match="nodes must be >= 1, got 0"):
        shards(LABELS, 0, seed=1)
