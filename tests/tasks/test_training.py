"""Local training against the same thing written plainly: one loop, no torch.optim."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from fedsec.errors import ConfigError
from fedsec.tasks.digits import Digits
from fedsec.tasks.optimizers import Adam, Optimizer, Sgd
from fedsec.tasks.task import Examples, NodeData, Options, evaluate
from fedsec.tasks.training import LocalTraining


@dataclass(frozen=True)
class Line:
    """Least squares on five numbers."""

    name: str = "line"

    def make_model(self, options: Options, seed: int) -> nn.Module:
        del options
        torch.manual_seed(seed)
        return nn.Linear(5, 1).double()

    def load(self, settings: Mapping[str, object]) -> NodeData:
        raise NotImplementedError

    def central_test(self) -> Examples | None:
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] - targets).square().mean()

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        return {"worst": float((outputs[:, 0] - targets).abs().max())}


LINE = Line()


def examples(count: int = 23) -> Examples:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return Examples(inputs, inputs.sum(dim=1))


def plain(training: LocalTraining, data: Examples, seed: int) -> tuple[Tensor, list[float], int]:
    """Gradient by hand, optimisers from their papers; returns (w, b), losses and examples seen."""
    model = LINE.make_model({}, 1)
    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    start, velocity, first, second = w.clone(), torch.zeros(6), torch.zeros(6), torch.zeros(6)
    velocity, first, second = velocity.double(), first.double(), second.double()
    losses, seen, step = [], 0, 0
    torch.manual_seed(seed)
    while training.steps is None or step < training.steps:
        order = torch.randperm(len(data))
        for at in range(0, len(data), training.batch_size):
            if training.steps is not None and step >= training.steps:
                break
            rows = order[at : at + training.batch_size]
            x = torch.cat([data.inputs[rows], torch.ones(len(rows), 1).double()], dim=1)
            error = x @ w - data.targets[rows]
            gradient = 2 * (x.T @ error) / len(rows) + training.proximal_mu * (w - start)
            step += 1
            if training.optimizer == "adam":
                first = 0.9 * first + 0.1 * gradient
                second = 0.999 * second + 0.001 * gradient**2
                hat = (second / (1 - 0.999**step)).sqrt() + 1e-8
                w = w - training.learning_rate * first / (1 - 0.9**step) / hat
            else:
                velocity = training.momentum * velocity + gradient
                w = w - training.learning_rate * velocity
            losses += [float(error.square().mean())] * len(rows)
            seen += len(rows)
        if training.epochs is not None and seen >= training.epochs * len(data):
            break
    return w, losses, seen


@pytest.mark.parametrize(
    "training",
    [
        LocalTraining(epochs=1, batch_size=4, learning_rate=0.05),
        LocalTraining(epochs=3, batch_size=8, learning_rate=0.01, momentum=0.9),
        LocalTraining(epochs=None, steps=1, batch_size=5),
        LocalTraining(epochs=None, steps=13, batch_size=5, momentum=0.5),
        LocalTraining(epochs=2, batch_size=100, learning_rate=0.1, proximal_mu=0.5),
        LocalTraining(epochs=2, batch_size=4, learning_rate=0.05, momentum=0.9, proximal_mu=1.0),
        LocalTraining(epochs=2, batch_size=4, optimizer="adam", learning_rate=0.01),
        LocalTraining(
            epochs=2, batch_size=4, optimizer="adam", learning_rate=0.01, proximal_mu=0.3
        ),
    ],
    ids=str,
)
def test_it_is_the_plain_loop(training: LocalTraining) -> None:
    data, model = examples(), LINE.make_model({}, 1)
    loss = training(LINE, model, data, seed=9)
    w, losses, seen = plain(training, data, seed=9)
    trained = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(trained, w, rtol=1e-9, atol=1e-11)
    assert loss == pytest.approx(sum(losses) / seen, rel=1e-9)


def test_the_proximal_term_keeps_the_model_near() -> None:
    def distance(mu: float) -> float:
        model = LINE.make_model({}, 1)
        start = [p.detach().clone() for p in model.parameters()]
        LocalTraining(epochs=5, batch_size=4, learning_rate=0.02, proximal_mu=mu)(
            LINE, model, examples(), seed=9
        )
        pairs = zip(model.parameters(), start, strict=True)
        return float(sum((p.detach() - s).square().sum() for p, s in pairs))

    assert distance(0.0) > 2 * distance(10.0) > 0


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone() -> None:
    task = Digits()
    data = task.load({"partition": 1, "partitions": 10}).train
    training = LocalTraining(epochs=1, momentum=0.9)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    results = []
    for seed in (7, 7, 8):
        model = task.make_model({}, 1)
        training(task, model, data, seed=seed)
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_frozen_parameters_stay_and_unused_ones_do_no_harm() -> None:
    model = LINE.make_model({}, 1)
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    model.get_parameter("bias").requires_grad_(False)
    bias = model.get_parameter("bias").clone()
    LocalTraining(epochs=1, proximal_mu=0.1)(LINE, model, examples(), seed=1)
    assert torch.equal(model.get_parameter("bias"), bias)
    assert torch.equal(model.get_parameter("unused"), torch.ones(2))


def test_a_gradient_whose_entries_share_memory_does_no_harm() -> None:
    """The gradient of a plain sum is one number, seen as many."""

    class Sum(Line):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return self.weight.sum() + 0 * outputs.sum()

        weight = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    task = Sum()
    model = LINE.make_model({}, 1)
    model.register_parameter("more", task.weight)
    for optimizer in ("sgd", "adam"):
        LocalTraining(steps=2, epochs=None, optimizer=optimizer, proximal_mu=0.5)(
            task, model, examples(), seed=1
        )
    assert len(set(task.weight.tolist())) == 1
    assert task.weight.tolist()[0] < 0


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        LocalTraining()(LINE, LINE.make_model({}, 1), examples().take(torch.arange(0)), seed=1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"epochs": 1, "steps": 1}, "give epochs or steps, got 1 and 1"),
        ({"epochs": None}, "give epochs or steps, got None and None"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
    ],
)
def test_parameters_out_of_range(wrong: dict[str, int | None], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        LocalTraining(**wrong)  # type: ignore[arg-type]


def test_evaluation_is_the_mean_over_all_batches_and_changes_nothing() -> None:
    data, model = examples(), LINE.make_model({}, 1)
    model.train()
    whole, parts = (evaluate(LINE, model, data, batch_size=size) for size in (100, 4))
    assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-12)
    with torch.no_grad():
        assert whole["loss"] == pytest.approx(float(LINE.loss(model(data.inputs), data.targets)))
    assert model.training
    with pytest.raises(ConfigError, match="nothing to evaluate on"):
        evaluate(LINE, model, data.take(torch.arange(0)))


@pytest.mark.parametrize("momentum", [0.0, 0.9, None])
def test_the_optimisers_are_torchs(momentum: float | None) -> None:
    generator = torch.Generator().manual_seed(4)
    start = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)]
    ours = [weight.clone() for weight in start]
    theirs = [weight.clone() for weight in start]
    mine: Optimizer
    reference: torch.optim.Optimizer
    if momentum is None:
        mine, reference = Adam(ours, 0.1), torch.optim.Adam(theirs, lr=0.1)
    else:
        mine = Sgd(ours, 0.1, momentum)
        reference = torch.optim.SGD(theirs, lr=0.1, momentum=momentum)
    for _ in range(20):
        gradients = [torch.randn(weight.shape, generator=generator) for weight in start]
        mine.step(gradients)
        for weight, gradient in zip(theirs, gradients, strict=True):
            weight.grad = gradient
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_training_does_not_load_torchs_compiler() -> None:
    """It takes a second or more at the first use of `torch.optim`, in every worker."""
    script = (
        "import sys\n"
        "from fedsec.tasks.digits import Digits\n"
        "from fedsec.tasks.training import LocalTraining\n"
        "task = Digits()\n"
        "data = task.load({'partition': 0, 'partitions': 50}).train\n"
        "for name in ('sgd', 'adam'):\n"
        "    LocalTraining(optimizer=name)(task, task.make_model({}, 1), data, 1)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
