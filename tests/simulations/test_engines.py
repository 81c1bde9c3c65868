"""Engines against each other and against a loop written plainly: bits where bits are promised."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsec.errors import ConfigError, StateError
from fedsec.tasks.seeds import training_seed
from fedsec_sim.engines.choose import choose
from fedsec_sim.engines.engine import Bench, Job
from fedsec_sim.engines.loop import Loop
from fedsec_sim.engines.vmap import Vmap, unsupported
from fedsec_sim.engines.workers import Workers
from tests.simulations.benches import SIZES, Made, bench, plan, population, sent, trained


def test_the_loop_has_the_bits_of_plain_torch() -> None:
    made = bench(momentum=0.9, local_epochs=2)
    first, everyone = sent(made), list(range(len(SIZES)))
    got = trained(Loop(made), made, everyone, first)
    for node in everyone:
        model = Made().make_model({}, made.seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        data = made.population.train.examples(node)
        torch.manual_seed(training_seed(1, 1, 100 + node))
        for _ in range(2):
            for rows in torch.randperm(len(data)).split(16):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(data.inputs[rows]), data.targets[rows]).backward()
                optimizer.step()
        flat = torch.cat([weight.detach().flatten() for weight in model.parameters()])
        assert np.array_equal(got[node], flat.numpy() - first)


@pytest.mark.parametrize("model", ["mlp", "dropout", "batch norm", "half", "cnn", "frozen", "tied"])
def test_a_row_of_the_loop_depends_on_its_node_alone(model: str) -> None:
    made = bench(model, momentum=0.5)
    first, engine = sent(made), Loop(made)
    whole = trained(engine, made, [0, 1, 2, 3, 4, 5, 6, 7], first)
    assert np.isfinite(whole).all()
    assert np.abs(whole).max() > 1e-3
    assert np.array_equal(trained(engine, made, [7, 5, 3, 1], first), whole[[7, 5, 3, 1]])
    for node in range(8):
        assert np.array_equal(trained(Loop(made), made, [node], first)[0], whole[node])


TRAININGS: list[dict[str, object]] = [
    {},
    {"momentum": 0.9, "local_epochs": 3},
    {"optimizer": "adam", "learning_rate": 0.01, "local_epochs": 2},
    {"algorithm": "fedprox", "proximal_mu": 0.5, "local_epochs": 2, "momentum": 0.5},
    {"local_steps": 5},
    {"batch_size": 5},
]


@pytest.mark.parametrize("training", TRAININGS, ids=str)
@pytest.mark.parametrize("model", ["mlp", "deep", "norm", "cnn", "lenet", "pooled"])
def test_vmap_agrees_with_the_loop(training: dict[str, object], model: str) -> None:
    made = bench(model, **training)
    assert unsupported(made) == ""
    first, nodes = sent(made), [5, 0, 1, 7, 2, 3, 4]
    slow, fast = Loop(made), Vmap(made, chunk=3)
    losses = slow.train(Job(1, first, nodes), slow.rows(7))
    other = fast.train(Job(1, first, nodes), fast.rows(7))
    np.testing.assert_allclose(fast.rows(7), slow.rows(7), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other, losses, rtol=1e-5)


@pytest.mark.parametrize("model", ["mlp", "deep", "lenet"])
@pytest.mark.parametrize("training", [{}, {"momentum": 0.9, "local_epochs": 2, "batch_size": 7}])
def test_a_row_that_is_written_out_has_the_same_bits_in_any_chunk_and_order(
    training: dict[str, object], model: str
) -> None:
    made = bench(model, **training)
    first = sent(made)
    whole = trained(Vmap(made), made, [0, 1, 2, 3, 4, 5, 6, 7], first)
    for chunk in (1, 2, 3, 5):
        assert np.array_equal(trained(Vmap(made, chunk), made, list(range(8)), first), whole)
    assert np.array_equal(trained(Vmap(made), made, [6, 2, 4], first), whole[[6, 2, 4]])


@pytest.mark.parametrize("kind", [Loop, Vmap])
@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bits(kind: type, workers: int) -> None:
    made = bench(momentum=0.9)
    first, nodes = sent(made), [0, 1, 2, 3, 4, 5, 6, 7]
    alone = kind(made)
    losses = alone.train(Job(1, first, nodes), alone.rows(8)).copy()
    shared = Workers(kind(made), workers=workers, size=len(first), nodes=8, step=2)
    try:
        for _ in range(2):
            assert np.array_equal(shared.train(Job(1, first, nodes), shared.rows(8)), losses)
            assert np.array_equal(shared.rows(8), alone.rows(8))
    finally:
        shared.close()


def test_chunks_stay_whole_where_bits_depend_on_them() -> None:
    made = bench("norm", momentum=0.9)
    first, nodes = sent(made), [0, 1, 2, 3, 4, 5, 6, 7]
    alone = choose(made, first, kind="vmap", workers=1, cohort=8).engine
    assert not alone.independent
    assert choose(made, first, kind="vmap", workers=4, cohort=8).engine.name == "vmap"  # one chunk
    shared = Workers(Vmap(made, chunk=3), workers=2, size=len(first), nodes=8, step=3)
    try:
        assert np.array_equal(
            trained(shared, made, nodes, first), trained(Vmap(made, 3), made, nodes, first)
        )
    finally:
        shared.close()


class Failing(Loop):
    """Fails for one node, in whichever process trains it."""

    def train(self, job: Job, out: np.ndarray) -> np.ndarray:
        if 5 in job.nodes:
            raise ConfigError("no such thing")
        return super().train(job, out)


def test_what_fails_in_a_worker_fails_the_round() -> None:
    made = bench()
    shared = Workers(Failing(made), workers=2, size=len(sent(made)), nodes=8, step=1)
    try:
        with pytest.raises((StateError, ConfigError), match="no such thing"):
            shared.train(Job(1, sent(made), list(range(8))), shared.rows(8))
    finally:
        shared.close()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("padded", "such convolutions are faster in the loop"),
        ("dropout", "random numbers"),
        ("batch norm", "buffers"),
        ("half", "float32"),
        ("frozen", "float32"),
        ("tied", "share weights"),
        ("branching", "vmap cannot run the model"),
    ],
)
def test_auto_takes_the_loop_and_says_why(model: str, why: str) -> None:
    made = bench(model)
    chosen = choose(made, sent(made), kind="auto", workers=1, cohort=8)
    assert chosen.engine.name == "loop"
    assert why in chosen.reason
    with pytest.raises(ConfigError, match=why):
        choose(made, sent(made), kind="vmap", workers=1, cohort=8)


def test_what_a_diverged_node_left_is_gone_in_the_next_round() -> None:
    made = bench("deep", learning_rate=1e3)
    first, engine = sent(made), Vmap(made)
    assert not np.isfinite(trained(engine, made, [3, 5], first * 1e30)).all()
    assert np.array_equal(trained(engine, made, [0], first), trained(Vmap(made), made, [0], first))


def test_auto_takes_vmap_where_it_is_right() -> None:
    made = bench()
    assert choose(made, sent(made), kind="auto", workers=1, cohort=8).engine.name == "vmap"
    assert choose(made, sent(made), kind="loop", workers=1, cohort=8).engine.name == "loop"


class Summed(Made):
    """A loss that is no mean over the batch, against what a task promises."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, reduction="sum") / 4


def test_the_probe_finds_what_vmap_gets_wrong() -> None:
    made = Bench.of(plan(), Summed(), population())
    chosen = choose(made, sent(made), kind="auto", workers=1, cohort=8)
    assert chosen.engine.name == "loop"
    assert "vmap differs from the loop by" in chosen.reason


def test_workers_must_be_positive() -> None:
    made = bench()
    with pytest.raises(ConfigError, match="workers must be >= 1, got 0"):
        choose(made, sent(made), kind="loop", workers=0, cohort=8)


def test_what_a_task_raises_names_node_and_round() -> None:
    made = bench("batch norm", batch_size=13)  # leaves a batch of one, which it does not take
    with pytest.raises(StateError, match=r"node 100, round 1: ValueError: Expected more than 1"):
        trained(Loop(made), made, [0], sent(made))
