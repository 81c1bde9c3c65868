"""Engines against each other and against a loop written plainly: bits where bits are promised."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsec.errors import ConfigError, StateError
from fedsec.plan import FederationPlan
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.seeds import training_seed
from fedsec.tasks.task import Examples, NodeData, Options
from fedsec_sim.engines.choose import choose
from fedsec_sim.engines.engine import Bench, Job
from fedsec_sim.engines.loop import Loop
from fedsec_sim.engines.stacked import (
    Batch,
    ByHand,
    ByStages,
    ByVmap,
    Gradients,
    gradients_of,
)
from fedsec_sim.engines.vmap import Vmap, unsupported
from fedsec_sim.engines.workers import Workers
from fedsec_sim.population import Parts, Population

SIZES = [14, 3, 16, 34, 2, 40, 16, 7]


def plan(**training: object) -> FederationPlan:
    words = {"rounds": 2, "batch_size": 16, "learning_rate": 0.1, **training}
    lines = "\n".join(f"{k} = {v!r}".replace("'", '"') for k, v in words.items())
    return FederationPlan.parse(
        f'schema = 1\nname = "engines"\n[task]\nname = "digits"\n[training]\n{lines}\n'
        "[nodes]\nmin_available = 8\n"
    )


@dataclass(frozen=True)
class Made:
    """A task whose model is whatever a test wants; 8 x 8 images, 10 classes."""

    model: str = "mlp"
    name: str = "made"

    def make_model(self, options: Options, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return MODELS[self.model]()

    def load(self, settings: Mapping[str, object]) -> NodeData:
        raise NotImplementedError

    def central_test(self) -> Examples | None:
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        return {}


class Smoothed(Made):
    """Near cross entropy, and not it."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.01)


def _frozen() -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Linear(9, 10))
    made[1].weight.requires_grad_(requires_grad=False)
    return made


def _tied() -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10))
    made[2].weight = made[1].weight
    return made


def _shared() -> nn.Module:
    bend = nn.Tanh()  # which stands in two places
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 9), bend, nn.Linear(9, 7), bend, nn.Linear(7, 10)
    )


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.flatten(1))
        return out if out.sum() > 0 else out * 2


MODELS = {
    # 4,810 entries: rows of a packed matrix would begin anywhere within 64 bytes
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
    "deep": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 9, bias=False),
        nn.Tanh(),
        nn.Linear(9, 7),
        nn.ReLU(),
        nn.Linear(7, 10),
    ),
    "shared": _shared,
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    "norm": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 9), nn.LayerNorm(9), nn.Linear(9, 10)
    ),
    "cnn": lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10)),
    "lenet": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(20, 9),
        nn.ReLU(),
        nn.Linear(9, 10),
    ),
    "pooled": lambda: nn.Sequential(
        nn.Conv2d(1, 3, (3, 2)),
        nn.Tanh(),
        nn.MaxPool2d(3, 2),  # windows overlap
        nn.Flatten(),
        nn.Linear(18, 10),
    ),
    "padded": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(128, 10)
    ),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)),
    "batch norm": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)),
    "half": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double(),
    "frozen": _frozen,
    "tied": _tied,
    "branching": Branching,
}


def population(dtype: torch.dtype = torch.float32) -> Population:
    generator = torch.Generator().manual_seed(3)
    nodes = [
        Examples(
            torch.rand(size, 1, 8, 8, generator=generator).to(dtype),
            torch.randint(0, 10, (size,), generator=generator),
        )
        for size in SIZES
    ]
    return Population(Parts.joined(nodes))


def bench(model: str = "mlp", **training: object) -> Bench:
    dtype = torch.float64 if model == "half" else torch.float32
    return Bench.of(plan(**training), Made(model), population(dtype))


def sent(made: Bench) -> np.ndarray:
    return made.layout.flatten(get_arrays(made.model))


def trained(engine: object, made: Bench, nodes: list[int], first: np.ndarray) -> np.ndarray:
    rows = engine.rows(len(nodes))
    engine.train(Job(1, first, nodes), rows)
    return rows.copy()


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


@pytest.mark.parametrize(
    ("model", "task", "way"),
    [
        ("mlp", Made, ByHand),
        ("deep", Made, ByHand),
        ("linear", Made, ByHand),
        ("cnn", Made, ByStages),
        ("lenet", Made, ByStages),
        ("pooled", Made, ByStages),
        ("padded", Made, ByVmap),
        ("lenet", Smoothed, ByVmap),
        ("norm", Made, ByVmap),  # a layer that is not written out
        ("mlp", Smoothed, ByVmap),  # another loss
    ],
)
def test_what_is_written_out_is_taken_under_cross_entropy_alone(
    model: str, task: type[Made], way: type
) -> None:
    made = task(model)
    pool = population().train.pool
    assert type(gradients_of(made.make_model({}, 1), made, pool)) is way


def stacked(way: Gradients, model: str, factors: list[float]) -> list[Tensor]:
    """Returns weights of several models, as wide as `way` wants them, each a multiple."""
    made = []
    for weight, shape in zip(Made(model).make_model({}, 1).parameters(), way.shapes, strict=True):
        made.append(torch.zeros(len(factors), *shape))
        for node, factor in enumerate(factors):
            made[-1][(node, *map(slice, weight.shape))] = weight.detach() * factor
    return made


def own(weight: Tensor, like: Tensor) -> Tensor:
    return weight[tuple(map(slice, like.shape))]


WRITTEN_OUT = ["mlp", "deep", "shared", "linear", "cnn", "lenet", "pooled"]


def by_hand_of(model: str) -> Gradients:
    made = Made(model)
    way = gradients_of(made.make_model({}, 1), made, population().train.pool)
    assert way.independent
    return way


@pytest.mark.parametrize("model", WRITTEN_OUT)
@pytest.mark.parametrize("counts", [(5, 5, 5), (5, 1, 3)])
def test_gradients_by_hand_are_those_of_autograd(model: str, counts: tuple[int, ...]) -> None:
    made, pool, rows = Made(model), population().train.pool, torch.arange(15).view(3, 5)
    by_hand = by_hand_of(model)
    weights = stacked(by_hand, model, [1.0, 2.0, 3.0])
    means, found = by_hand(weights, Batch(rows, torch.tensor(counts), full=counts == (5, 5, 5)))
    for node, count in enumerate(counts):
        alone = made.make_model({}, 1)
        for weight, whole in zip(alone.parameters(), weights, strict=True):
            weight.data.copy_(own(whole[node], weight))
        seen = rows[node, :count]
        loss = made.loss(alone(pool.inputs[seen]), pool.targets[seen])
        torch.testing.assert_close(means[node], loss.detach(), rtol=1e-5, atol=1e-6)
        wanted = torch.autograd.grad(loss, [*alone.parameters()])
        for got, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(own(got[node], want), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", WRITTEN_OUT)
@pytest.mark.parametrize("batch", [1, 5, 7, 16])
def test_bits_by_hand_do_not_depend_on_neighbours(model: str, batch: int) -> None:
    nodes, generator = 33, torch.Generator().manual_seed(batch)
    by_hand = by_hand_of(model)
    weights = stacked(by_hand, model, [1 + 0.1 * node for node in range(nodes)])
    rows = torch.randint(0, sum(SIZES), (nodes, batch), generator=generator)
    counts = torch.randint(1, batch + 1, (nodes,), generator=generator)
    means, found = by_hand(weights, Batch(rows, counts, full=False))
    for part in (slice(0, 1), slice(7, 8), slice(3, 5), slice(16, 33)):
        some = Batch(rows[part], counts[part], full=bool((counts[part] == batch).all()))
        again, others = by_hand([weight[part].clone() for weight in weights], some)
        assert torch.equal(again, means[part])
        assert all(torch.equal(a, b[part]) for a, b in zip(others, found, strict=True))


@pytest.mark.parametrize("model", ["deep", "lenet"])
def test_a_node_that_diverges_spoils_no_other(model: str) -> None:
    by_hand = by_hand_of(model)
    rows, counts = torch.arange(10).view(2, 5), torch.tensor([3, 2])
    means, found = by_hand(stacked(by_hand, model, [1.0, 1e30]), Batch(rows, counts, full=False))
    assert not torch.isfinite(means[1])
    assert torch.isfinite(means[0])
    assert all(torch.isfinite(each[0]).all() for each in found)


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
