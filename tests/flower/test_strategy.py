"""Each optimiser against its paper's formula, one number at a time; the state stored and restored."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.artifacts import read_model, write_model
from fedsec.errors import ConfigError
from fedsec.flower.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    Mean,
    ServerOptimizer,
    ServerState,
    Weighting,
)
from fedsec.flower.table import ALGORITHMS, local_training, weighting
from fedsec.tasks.training import LocalTraining
from fedsec.vectors import AnyArray, Vector
from tests.flower.fakes import plan

START: dict[str, AnyArray] = {
    "w": np.array([[1.0, -2.0], [0.5, 0.0]], np.float32),
    "steps": np.array(4, np.int64),
    "b": np.array([3.0], np.float64),
}
OPTIMIZERS: list[ServerOptimizer] = [
    FedAvg(),
    FedAvg(learning_rate=0.5),
    FedAvgM(learning_rate=0.5, momentum=0.9),
    FedAdam(learning_rate=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3),
    FedAdam(learning_rate=0.1, beta_1=0.0, beta_2=0.5, tau=0.1),
]


def aggregates(rounds: int) -> list[Vector]:
    rng = np.random.default_rng(5)
    return [rng.normal(size=5).astype(np.float32) for _ in range(rounds)]


def by_the_paper(optimizer: ServerOptimizer, start: float, changes: list[float]) -> float:
    """One coordinate through all rounds, in plain Python floats."""
    w, m, v = start, 0.0, 0.0
    match optimizer:
        case FedAvg(learning_rate=rate):
            for change in changes:
                w += rate * change
        case FedAvgM(learning_rate=rate, momentum=momentum):
            for change in changes:
                m = momentum * m + change
                w += rate * m
        case FedAdam(learning_rate=rate, beta_1=beta_1, beta_2=beta_2, tau=tau):
            v = tau**2
            for change in changes:
                m = beta_1 * m + (1 - beta_1) * change
                v = beta_2 * v + (1 - beta_2) * change**2
                w += rate * m / (math.sqrt(v) + tau)
    return w


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_each_optimiser_is_its_papers(optimizer: ServerOptimizer) -> None:
    state = ServerState.begin(START, optimizer)
    start = state.vector.copy()
    changes = aggregates(7)
    for change in changes:
        state = optimizer.step(state, change)
    wanted = [
        by_the_paper(optimizer, float(start[i]), [float(c[i]) for c in changes]) for i in range(5)
    ]
    np.testing.assert_allclose(state.vector, wanted, rtol=2e-6)
    assert state.vector.dtype == np.float32
    assert state.round == 7
    assert all(slot.dtype == np.float32 for slot in state.slots.values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_step_changes_neither_the_state_nor_the_aggregate(optimizer: ServerOptimizer) -> None:
    state = ServerState.begin(START, optimizer)
    aggregate = aggregates(1)[0]
    for array in (aggregate, *state.to_arrays().values()):
        array.flags.writeable = False
    optimizer.step(state, aggregate)
    assert state.round == 0


def test_fedavg_with_rate_one_is_the_mean_of_the_nodes_models() -> None:
    state = ServerState.begin(START, FedAvg())
    models = [state.vector + update for update in aggregates(3)]
    updates = np.stack([model - state.vector for model in models])
    stepped = FedAvg().step(state, Mean()(updates, Weighting()([1, 1, 1])))
    np.testing.assert_allclose(stepped.vector, np.mean(models, axis=0), rtol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_stored_state_continues_bit_by_bit(optimizer: ServerOptimizer, tmp_path: Path) -> None:
    changes = aggregates(6)
    state = ServerState.begin(START, optimizer)
    for change in changes[:3]:
        state = optimizer.step(state, change)
    write_model(tmp_path / "state", state.to_arrays(), {"state": state.to_json()})
    arrays, metadata = read_model(tmp_path / "state")
    restored = ServerState.from_arrays(arrays, metadata["state"])
    for change in changes[3:]:
        state, restored = optimizer.step(state, change), optimizer.step(restored, change)
    assert restored.to_json() == state.to_json()
    assert restored.to_arrays().keys() == state.to_arrays().keys()
    for name, array in state.to_arrays().items():
        assert restored.to_arrays()[name].tobytes() == array.tobytes()


def test_arrays_that_have_no_mean_stay_as_they_were() -> None:
    state = ServerState.begin(START, FedAvg())
    arrays = FedAvg().step(state, np.ones(5, np.float32)).arrays()
    assert list(arrays) == ["w", "steps", "b"]
    assert arrays["steps"].tolist() == 4
    assert arrays["b"].dtype == np.float64
    assert arrays["b"].tolist() == [4.0]
    START["steps"][...] = 9
    assert state.arrays()["steps"].tolist() == 4
    START["steps"][...] = 4


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is nothing to train"):
        ServerState.begin({"steps": np.array(1)}, FedAvg())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "no json"),
        ({}, "{}"),
        ({}, "[]"),
        ({"vector": np.zeros(4, np.float32)}, None),
        ({"vector": np.zeros(5, np.float64)}, None),
        ({"slot/momentum": np.zeros(4, np.float32)}, None),
        ({}, json.dumps({"round": "x", "layout": "[]"})),
    ],
)
def test_what_is_no_stored_state_is_refused(change: dict[str, AnyArray], text: str | None) -> None:
    state = ServerState.begin(START, FedAvgM())
    with pytest.raises(ConfigError):
        ServerState.from_arrays(state.to_arrays() | change, text or state.to_json())


# --- weights and the mean --------------------------------------------------------------------------


@given(st.lists(st.integers(1, 2**53), min_size=1, max_size=20), st.integers(1, 10**6))
def test_shares_are_capped_claims(examples: list[int], cap: int) -> None:
    shares = Weighting(max_examples=cap)(examples)
    capped = [min(count, cap) for count in examples]
    np.testing.assert_allclose(shares, [count / sum(capped) for count in capped], rtol=1e-12)
    assert Weighting()(examples).tolist() == [1 / len(examples)] * len(examples)


def test_a_huge_claim_buys_no_more_than_the_cap() -> None:
    honest, liar = [100] * 9, [2**53]
    assert Weighting(max_examples=100)(honest + liar)[-1] == pytest.approx(0.1)
    assert Weighting()(honest + liar)[-1] == pytest.approx(0.1)


def test_weights_out_of_range() -> None:
    with pytest.raises(ConfigError, match="max_examples must be >= 1, got 0"):
        Weighting(max_examples=0)
    with pytest.raises(ConfigError, match="nothing to weigh"):
        Weighting()([])


@given(
    n=st.integers(1, 40),
    d=st.sampled_from([1, 3, 1000, 70_000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_mean_is_numpys_in_float64(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    updates = rng.normal(size=(n, d)).astype(np.float32)
    shares = Weighting(max_examples=50)(rng.integers(1, 100, n).tolist())
    before = updates.copy()
    got = Mean()(updates, shares)
    wanted = (shares[:, None] * updates.astype(np.float64)).sum(axis=0)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-6)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(updates, before)


# --- from a plan -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "optimizer"),
    [
        ('algorithm = "fedavg"\nserver_learning_rate = 0.5', FedAvg(learning_rate=0.5)),
        ('algorithm = "fedprox"', FedAvg(learning_rate=1.0)),
        ('algorithm = "fedavgm"\nserver_momentum = 0.8', FedAvgM(learning_rate=1.0, momentum=0.8)),
        ('algorithm = "fedadam"\ntau = 0.1', FedAdam(0.03, beta_1=0.9, beta_2=0.99, tau=0.1)),
    ],
)
def test_a_plan_names_its_optimiser(training: str, optimizer: ServerOptimizer) -> None:
    _, chosen = plan(f"rounds = 1\n{training}").learning
    assert ALGORITHMS[chosen.algorithm](chosen) == optimizer


def test_a_plan_names_weights_and_local_work() -> None:
    _, training = plan(
        'rounds = 1\nweighting = "examples"\nmax_examples = 7\nalgorithm = "fedprox"\n'
        'proximal_mu = 0.3\nlocal_steps = 5\noptimizer = "adam"\nbatch_size = 4'
    ).learning
    assert weighting(training) == Weighting(7)
    assert local_training(training) == LocalTraining(
        epochs=None, steps=5, batch_size=4, optimizer="adam", learning_rate=0.05, proximal_mu=0.3
    )
    assert weighting(plan().learning[1]) == Weighting(None)


def test_a_value_that_the_parser_would_have_filled_in_is_asked_for() -> None:
    _, training = plan('rounds = 1\nalgorithm = "fedadam"').learning
    with pytest.raises(ConfigError, match=r"training\.tau is missing for algorithm = 'fedadam'"):
        ALGORITHMS["fedadam"](training.model_copy(update={"tau": None}))
