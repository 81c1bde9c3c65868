"""Membership inference and gradient inversion: right on paper, and at work on real digits."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from fedsec.errors import ConfigError
from fedsec.tasks.digits import Digits
from fedsec_sim.attacks.inversion import GradientInversion, likeness
from fedsec_sim.attacks.membership import infer, losses

TASK = Digits()


@pytest.mark.parametrize("seed", range(4))
def test_the_figures_are_those_of_the_receiver_operating_curve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    members = np.round(rng.gamma(2, 1, 300), 1 if seed % 2 else 6)  # with and without ties
    others = np.round(rng.gamma(2, 1.5, 400), 1 if seed % 2 else 6)
    truth = np.r_[np.ones(300), np.zeros(400)]
    scores = -np.r_[members, others]
    found = infer(members, others)
    alarms, hits, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert found.auc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found.advantage == pytest.approx((hits - alarms).max(), abs=1e-12)
    assert found.at_low == pytest.approx(hits[alarms <= 0.01].max(), abs=1e-12)


def test_what_cannot_be_told_apart_is_guessing() -> None:
    same = np.arange(10.0)
    assert infer(same, same).auc == 0.5
    assert infer(same, same).advantage == 0.0
    assert infer(np.zeros(5), np.ones(5)).advantage == 1.0


def test_no_losses_and_broken_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match="got 0 and 1"):
        infer(np.array([]), np.array([1.0]))
    with pytest.raises(ConfigError, match="a loss is NaN"):
        infer(np.array([np.nan]), np.array([1.0]))


def test_losses_are_those_of_single_examples() -> None:
    model, data = TASK.make_model({"model": "mlp"}, 1), TASK.load({}).train.take(torch.arange(7))
    found = losses(TASK, model, data)
    for i in range(7):
        one = data.take(torch.tensor([i]))
        assert found[i] == pytest.approx(TASK.loss(model(one.inputs), one.targets).item(), rel=1e-5)
    assert model.training


def seen_from(
    model: torch.nn.Module, rows: range
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    data = TASK.load({}).train.take(torch.tensor(rows))
    loss = TASK.loss(model(data.inputs), data.targets)
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    return -torch.cat([slope.reshape(-1) for slope in slopes]), data.targets, data.inputs


def test_an_image_is_read_from_its_gradient_whatever_the_gradients_length() -> None:
    model = TASK.make_model({"model": "mlp"}, 1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for factor in (1.0, 1e-4):  # as after clipping: only the direction is used
        seen, labels, truth = seen_from(model, range(3, 4))
        made = GradientInversion(steps=200, restarts=1)(
            TASK, model, factor * seen, labels, (1, 8, 8), seed=1
        )
        assert made.distance < 1e-3
        assert likeness(made.images, truth)[0] > 40  # the mean image comes to about 12
    assert all(map(torch.equal, before, model.parameters()))


def test_noise_as_long_as_the_gradient_leaves_nothing_to_see() -> None:
    model = TASK.make_model({"model": "mlp"}, 1)
    seen, labels, truth = seen_from(model, range(3, 4))
    noise = torch.randn(len(seen), generator=torch.Generator().manual_seed(1))
    made = GradientInversion(steps=200, restarts=1)(
        TASK, model, seen + seen.norm() * noise, labels, (1, 8, 8), seed=1
    )
    assert likeness(made.images, truth)[0] < 12


def test_likeness_assigns_images_and_is_the_peak_signal_to_noise_ratio() -> None:
    truth = torch.rand((3, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    shifted = (truth + 0.1)[[2, 0, 1]]
    np.testing.assert_allclose(likeness(shifted, truth), 20.0, atol=1e-4)  # 10 log10(1 / 0.01)
    np.testing.assert_allclose(likeness(truth, truth), 60.0)
    with pytest.raises(ConfigError, match="shapes differ"):
        likeness(truth, truth[:2])


def test_what_cannot_be_inverted_is_refused() -> None:
    model = TASK.make_model({"model": "mlp"}, 1)
    labels = torch.tensor([1])
    for seen in (torch.zeros(4810), torch.ones(7), torch.full((4810,), torch.nan)):
        with pytest.raises(ConfigError, match=r"finite vector \(4810,\)"):
            GradientInversion()(TASK, model, seen, labels, (1, 8, 8), seed=1)
    with pytest.raises(ConfigError, match="steps and restarts"):
        GradientInversion(steps=0)
    with pytest.raises(ConfigError, match="low must be less"):
        GradientInversion(low=1.0)


@pytest.fixture(scope="module")
def experiment() -> Any:
    return SimpleNamespace(**runpy.run_path("simulations/experiments/privacy_attacks/run.py"))


def test_clipping_hides_no_image_and_a_noised_sum_hides_it(experiment: Any) -> None:
    named = {defence.name: defence for defence in experiment.DEFENCES}
    shares, baseline = experiment.parts(), experiment.guess()

    def found(name: str) -> float:
        return float(experiment.invert(named[name], shares, 1, 150)[0])

    assert found("none: one update") > baseline + 10
    assert found("clipping") > baseline + 10
    assert found("noise, epsilon 8") < baseline


def test_members_are_told_from_one_update_and_not_from_a_sum(experiment: Any) -> None:
    named = {defence.name: defence for defence in experiment.DEFENCES}
    shares = experiment.parts()
    updates = torch.stack([experiment.many_epochs(1, share) for share in shares])
    found = {
        name: experiment.membership(named[name], updates, shares, 1).auc
        for name in ("none: one update", "clipping", "sum of 20", "sum of 20, epsilon 8")
    }
    assert min(found["none: one update"], found["clipping"]) > 0.65
    assert max(found["sum of 20"], found["sum of 20, epsilon 8"]) < 0.6


def test_the_experiment_draws_and_writes(experiment: Any, tmp_path: Path) -> None:
    outcomes = [experiment.Outcome(d.name, 20.0, 0.1, 0.7, 0.3) for d in experiment.DEFENCES]
    images = [torch.zeros(4, 1, 8, 8)] * (1 + len(outcomes))
    experiment.picture(outcomes, images, 11.0).savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
