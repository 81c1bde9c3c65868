"""DP-SGD: what one example can do is bounded, and the noise is as large as it is said to be."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from fedsec.errors import ConfigError
from fedsec.privacy.events import Gaussian
from fedsec.privacy.keystream import Keystream
from fedsec.tasks.private_training import PrivateTraining, check, largest_batch
from fedsec.tasks.task import Examples
from fedsec.tasks.training import LocalTraining

CLIP, BATCH, SIZE = 0.5, 8, 20_000
NOISE_FREE = 1e-9
GRID = 2e-2  # of the clip: rounding, and the little noise that the grid itself needs


@dataclass(frozen=True)
class Lines:
    """A linear model whose gradient for an example is its input."""

    name: str = "lines"
    coupled: bool = False

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.coupled:
            return (outputs - outputs.mean()).square().mean()
        return (outputs[:, 0] * targets).mean()


def linear(size: int = SIZE) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(size, 1, bias=False))


def examples(count: int, size: int = SIZE, scale: float = 1.0) -> Examples:
    drawn = torch.randn(count, size, generator=torch.Generator().manual_seed(2))
    return Examples(scale * drawn, torch.ones(count))


def training(multiplier: float, *, steps: int = 1, batch: int = BATCH) -> PrivateTraining:
    plain = LocalTraining(epochs=None, steps=steps, batch_size=batch, learning_rate=1.0)
    return PrivateTraining(plain, CLIP, multiplier)


def update(
    made: PrivateTraining, data: Examples, key: int = 0, model: nn.Module | None = None
) -> Tensor:
    """Returns minus what the weights moved: the noised mean gradient, at rate 1."""
    model = model or linear(data.inputs.shape[1])
    before = copy.deepcopy(model.state_dict())
    made(Lines(), model, data, 0, Keystream(key.to_bytes(32, "big")))
    after = model.state_dict()
    return torch.cat([(before[name] - after[name]).flatten() for name in before])


def p_value(noise: Tensor, std: float) -> float:
    """Returns how likely a sample variance so small or so large is, under `std`."""
    statistic = float(noise.double().square().sum()) / std**2
    return 2 * min(stats.chi2.cdf(statistic, len(noise)), stats.chi2.sf(statistic, len(noise)))


@pytest.mark.slow
def test_the_noise_has_the_multiplier_times_the_clip_over_the_batch() -> None:
    multiplier = 1.3
    noise = update(training(multiplier), examples(4, scale=0.0))
    errors = 1e-4 + 2 * 35 * largest_batch(BATCH) * 2.0**-24
    sensitivity = CLIP * (1 + errors + 1 / 1000)  # what rounding adds
    std = multiplier * sensitivity / BATCH
    assert p_value(noise, std) > 1e-6
    # The same test rejects noise that is 10 % too small.
    assert p_value(0.9 * noise, std) < 1e-6
    assert stats.kstest(noise.numpy() / std, "norm").pvalue > 1e-6


def test_the_sum_is_that_of_clipped_gradients() -> None:
    data = examples(BATCH)  # all are in a batch of the expected size
    gradients = data.inputs.double()
    norms = gradients.norm(dim=1, keepdim=True)
    wanted = (gradients * (CLIP / norms).clamp(max=1)).sum(0) / BATCH
    found = update(training(NOISE_FREE), data)
    assert float((found - wanted).norm()) < GRID * CLIP / BATCH


def test_short_gradients_are_not_stretched() -> None:
    data = examples(BATCH, scale=1e-4)
    found = update(training(NOISE_FREE), data)
    assert float((found - data.inputs.mean(0)).norm()) < GRID * CLIP / BATCH


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e30, math.nan, math.inf])
def test_whatever_an_example_holds_it_adds_no_more_than_the_clip(scale: float) -> None:
    """All others are zero, so that what remains is one example's doing."""
    data = examples(BATCH, scale=0.0)
    data.inputs[3] = scale * torch.randn(SIZE, generator=torch.Generator().manual_seed(3))
    found = update(training(NOISE_FREE), data)
    assert torch.isfinite(found).all()
    assert float(found.norm()) * BATCH <= CLIP * (1 + GRID)


def plain_mean(task: Lines, model: nn.Module, data: Examples) -> list[Tensor]:
    """Returns the mean of clipped gradients, each by a backward pass of its own, in double."""
    model = copy.deepcopy(model).double()
    total = [torch.zeros_like(weight) for weight in model.parameters()]
    for row, target in zip(data.inputs.double(), data.targets.double(), strict=True):
        model.zero_grad()
        task.loss(model(row[None]), target[None]).backward()
        found = [torch.zeros_like(w) if w.grad is None else w.grad for w in model.parameters()]
        length = float(torch.cat([each.flatten() for each in found]).norm())
        share = min(1.0, CLIP / length) / BATCH
        total = [whole + share * each for whole, each in zip(total, found, strict=True)]
    return total


class Tied(nn.Module):
    """One layer twice: its gradient is no outer product."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(12, 12), nn.Linear(12, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.last(torch.tanh(self.layer(torch.tanh(self.layer(inputs)))))
        return result


class Words(nn.Module):
    """A layer that is given several vectors of each example."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(3, 5), nn.Linear(5, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        several = torch.tanh(self.layer(inputs.unflatten(1, (4, 3))))
        result: Tensor = self.last(several.mean(dim=1))
        return result


def models() -> Iterator[nn.Module]:
    torch.manual_seed(5)
    yield nn.Sequential(nn.Linear(12, 40), nn.Tanh(), nn.Linear(40, 1))
    yield nn.Sequential(nn.Linear(12, 8, bias=False), nn.Tanh(), nn.Linear(8, 1))
    yield Tied()
    yield Words()
    frozen = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1))
    frozen[0].weight.requires_grad_(False)
    yield frozen


@pytest.mark.parametrize(
    "model", list(models()), ids=["dense", "no bias", "tied", "words", "frozen"]
)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_sum_is_right_for_every_kind_of_layer(model: nn.Module, scale: float) -> None:
    """Dense layers are never given their examples' gradients; the sum must not show it."""
    data, trained = examples(BATCH, size=12, scale=scale), copy.deepcopy(model)
    wanted = plain_mean(Lines(), model, data)
    training(NOISE_FREE)(Lines(), trained, data, 0, Keystream(bytes(32)))
    pairs = zip(model.parameters(), trained.parameters(), wanted, strict=True)
    with torch.no_grad():
        apart = [
            (old - new - want).double().norm() for old, new, want in pairs if old.requires_grad
        ]
    assert float(torch.stack(apart).norm()) < GRID * CLIP / BATCH


def test_the_norm_of_a_long_gradient_is_not_underestimated() -> None:
    """Equal entries are the worst case of a sum of squares in float32."""
    size = 1 << 23
    found = update(training(NOISE_FREE), Examples(torch.full((1, size), 0.31), torch.ones(1)))
    along = float(found.double().sum()) / math.sqrt(size)
    assert along * BATCH <= CLIP * (1 + 2e-3)


def test_the_denominator_is_public_whatever_the_batch_holds() -> None:
    """With few examples all are in every batch, and the sum is still divided by the same number."""
    one = examples(1)
    found = update(training(NOISE_FREE), one)
    assert float(found.norm()) == pytest.approx(CLIP / BATCH, rel=GRID)


def test_an_empty_batch_is_noise_all_the_same() -> None:
    rare = replace(
        training(1.0), training=LocalTraining(epochs=None, steps=1, batch_size=1, learning_rate=1.0)
    )
    data = examples(2000, size=200, scale=1e6)
    for key in range(50):  # a third of the batches is empty
        found = update(rare, data, key)
        assert float(found.norm()) > 0.5 * CLIP * math.sqrt(200)


@pytest.mark.slow
def test_each_example_is_in_a_batch_by_its_own_coin() -> None:
    """The number in a batch is binomial; read off gradients of equal length in one direction."""
    count, batch, trials = 400, 20, 300
    data = Examples(torch.full((count, 1), 1e3), torch.ones(count))
    made = replace(training(NOISE_FREE, batch=batch))
    sizes = [round(float(update(made, data, key)) * batch / CLIP) for key in range(trials)]
    mean, std = count * 0.05, math.sqrt(count * 0.05 * 0.95)
    assert abs(np.mean(sizes) - mean) < 5 * std / math.sqrt(trials)
    assert 0.75 < np.var(sizes, ddof=1) / std**2 < 1.3
    assert np.var([batch] * trials) / std**2 < 0.75  # batches of fixed size fail


def test_the_price_is_of_the_steps_and_the_rate_that_are_taken() -> None:
    made = training(1.1, steps=7)
    assert made.price(BATCH * 4).event == Gaussian(1.1, sampling=0.25)
    assert made.price(BATCH * 4).count == 7
    assert made.price(3).event == Gaussian(1.1, sampling=1.0)
    third = made.price(BATCH * 3).event
    assert isinstance(third, Gaussian)
    assert 1 / 3 <= third.sampling < 1 / 3 + 2**-31  # never less than the coin's
    passes = replace(made, training=LocalTraining(epochs=2, batch_size=8))
    assert passes.price(20).count == 6


def test_parts_of_a_batch_make_the_same_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    data = examples(40, size=500)
    made = training(0.1, steps=3, batch=32)
    whole = update(made, data)
    monkeypatch.setattr("fedsec.tasks.private_training._GRADIENTS", 500 * 5)
    parts = update(made, data)
    assert float((whole - parts).norm()) < 1e-5 * float(whole.norm())


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_rounds_follow_one_another_on_one_model(name: str) -> None:
    """Hooks are not added twice, and nothing of Opacus stays in the model."""
    plain = LocalTraining(batch_size=4, optimizer=name, learning_rate=0.01)  # type: ignore[arg-type]
    model, data = linear(50), examples(12, size=50)
    made = PrivateTraining(plain, CLIP, 1.0)
    attributes = {key for weight in model.parameters() for key in vars(weight)}
    for round_number in range(3):
        made(Lines(), model, data, round_number, Keystream())
    assert {key for weight in model.parameters() for key in vars(weight)} == attributes
    assert not model[0]._forward_hooks  # type: ignore[index]
    assert not model[0]._backward_hooks  # type: ignore[index]
    assert all(weight.grad is None for weight in model.parameters())
    copy.deepcopy(model)


def test_what_the_loss_does_not_reach_gets_noise_and_no_error() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(30, 1, bias=False), nn.Linear(30, 30)

        def forward(self, inputs: Tensor) -> Tensor:
            result: Tensor = self.used(inputs)
            return result

    model = Partly()
    before = copy.deepcopy(model.state_dict())
    training(1.0)(Lines(), model, examples(5, size=30), 0, Keystream())
    assert all(not torch.equal(before[name], entry) for name, entry in model.state_dict().items())


def test_the_proximal_term_pulls_and_is_not_noised_away() -> None:
    plain = LocalTraining(epochs=None, steps=30, batch_size=4, learning_rate=0.1, proximal_mu=5.0)
    data = examples(4, size=40)
    free = update(PrivateTraining(replace(plain, proximal_mu=0.0), CLIP, NOISE_FREE), data)
    held = update(PrivateTraining(plain, CLIP, NOISE_FREE), data)
    assert float(held.norm()) < 0.2 * float(free.norm())


def test_no_examples_are_an_error() -> None:
    with pytest.raises(ConfigError, match="0 examples"):
        update(training(1.0), examples(0, size=5))


@pytest.mark.parametrize("name", ["clip", "noise_multiplier"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_parameters_are_checked(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be > 0"):
        replace(training(1.0), **{name: value})


def models_that_mix() -> Iterator[tuple[nn.Module, str]]:
    yield nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), "GroupNorm"
    buffered = nn.Sequential(nn.Linear(4, 1))
    buffered.register_buffer("counter", torch.zeros(1))
    yield buffered, "buffers"


@pytest.mark.parametrize(("model", "remedy"), list(models_that_mix()))
def test_a_model_that_mixes_examples_is_refused_with_the_remedy(
    model: nn.Module, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=remedy):
        check(Lines(), model, examples(4, size=4))


def test_a_loss_that_couples_examples_is_refused() -> None:
    model = nn.Linear(4, 1)
    check(Lines(), model, examples(4, size=4))
    with pytest.raises(ConfigError, match="mean of a loss of each example"):
        check(Lines(coupled=True), model, examples(4, size=4))


def test_dropout_is_no_coupling() -> None:
    check(Lines(), nn.Sequential(nn.Dropout(), nn.Linear(4, 1)), examples(4, size=4))


def test_a_node_with_one_example_can_be_checked() -> None:
    check(Lines(), nn.Linear(4, 1), examples(1, size=4))


def test_a_batch_has_a_largest_size_that_chance_does_not_reach() -> None:
    """Bernstein's bound, for a batch of any expected size: less than 1e-55 beyond it."""
    for expected in (1, 8, 32, 256, 4096, 10**6):
        beyond = largest_batch(expected) - expected
        assert math.exp(-(beyond**2) / (2 * (expected + beyond / 3))) < 1e-55
