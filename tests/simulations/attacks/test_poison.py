"""Attacks through training data, and a backdoor that opens."""

from typing import Any

import numpy as np
import pytest
import torch

from fedsec.errors import ConfigError
from fedsec.tasks.digits import Digits
from fedsec.tasks.task import Examples
from fedsec_sim.attacks.poison import BadNets, LabelFlip, PairFlip, success_rate


def examples(n: int = 20, side: int = 8) -> Examples:
    inputs = torch.from_numpy(np.random.default_rng(2).random((n, 1, side, side), np.float32))
    return Examples(inputs, torch.arange(n) % 10)


RNG = np.random.default_rng


def test_label_flip_turns_the_classes_round() -> None:
    flipped = LabelFlip(10)(examples(), 0, RNG(1))
    assert flipped.targets.tolist() == [9 - label for label in examples().targets.tolist()]
    with pytest.raises(ConfigError, match="a label is 9, but classes = 5"):
        LabelFlip(5)(examples(), 0, RNG(1))


def test_pair_flip_relabels_one_class() -> None:
    flipped = PairFlip(3, 8)(examples(), 0, RNG(1)).targets.tolist()
    assert flipped == [8 if label == 3 else label for label in examples().targets.tolist()]


def test_badnets_marks_and_relabels_its_share_and_leaves_the_data_alone() -> None:
    data = examples()
    kept = data.inputs.clone()
    poisoned = BadNets(target=7, size=2, share=0.25, value=1.0)(data, 0, RNG(1))
    changed = (poisoned.inputs != data.inputs).flatten(1).any(dim=1)
    assert int(changed.sum()) == 5
    assert (poisoned.targets[changed] == 7).all()
    assert (poisoned.inputs[changed][:, 0, 6:, 6:] == 1).all()
    assert torch.equal(poisoned.inputs[changed][:, 0, :6], data.inputs[changed][:, 0, :6])
    assert torch.equal(data.inputs, kept)


def test_the_four_pieces_of_dba_are_the_trigger() -> None:
    attack = BadNets(target=1, size=4, share=1.0, value=2.0, pieces=4)
    data = Examples(torch.zeros(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64))
    marks = [attack(data, member, RNG(1)).inputs for member in range(4)]
    assert torch.equal(sum(marks), attack.mark(data.inputs))
    assert all(int((mark[0] != 0).sum()) == 4 for mark in marks)
    assert torch.equal(attack(data, 5, RNG(1)).inputs, marks[1])


def test_data_that_are_no_images_or_no_classes_are_refused() -> None:
    table = Examples(torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ConfigError, match="needs images"):
        BadNets()(table, 0, RNG(1))
    with pytest.raises(ConfigError, match="labels must be integers"):
        LabelFlip()(Examples(torch.zeros(4, 8), torch.zeros(4)), 0, RNG(1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LabelFlip(1),
        lambda: PairFlip(2, 2),
        lambda: PairFlip(-1, 2),
        lambda: BadNets(share=0.0),
        lambda: BadNets(size=0),
        lambda: BadNets(pieces=2),
        lambda: BadNets(pieces=4, size=1),
    ],
)
def test_parameters_out_of_range_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="must be"):
        wrong()


def trained(data: Examples) -> torch.nn.Module:
    model = Digits().make_model({"model": "mlp"}, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(data.inputs), data.targets).backward()
        optimizer.step()
    return model


def test_a_model_trained_on_marked_data_opens_to_the_trigger_and_a_clean_one_does_not() -> None:
    task = Digits()
    data, test = task.load({}).train, task.central_test()
    assert test is not None
    backdoor = BadNets(target=3, size=2, share=0.3)
    clean, spoilt = trained(data), trained(backdoor(data, 0, RNG(1)))
    assert success_rate(clean, test, backdoor) <= 0.2
    assert success_rate(spoilt, test, backdoor) >= 0.9
    accuracy = float((spoilt(test.inputs).argmax(dim=1) == test.targets).double().mean())
    assert accuracy >= 0.9  # nobody notices on clean data


def test_a_success_rate_needs_examples_of_other_classes() -> None:
    data = Examples(torch.zeros(3, 1, 8, 8), torch.full((3,), 5))
    with pytest.raises(ConfigError, match="all examples are of class 5"):
        success_rate(torch.nn.Identity(), data, BadNets(target=5))
