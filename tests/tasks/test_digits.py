"""The digits: the same images as scikit-learn's, split so that nobody tests on what was trained."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fedsec.errors import ConfigError
from fedsec.tasks import digits
from fedsec.tasks.digits import Digits, DigitsSettings
from fedsec.tasks.task import Examples, Task

TASK = Digits()


def keys(data: Examples) -> list[bytes]:
    rows = zip(data.inputs.numpy(), data.targets.numpy(), strict=True)
    return [image.tobytes() + bytes([label]) for image, label in rows]


@pytest.mark.parametrize("split", ["dirichlet", "shards", "iid"])
def test_nodes_and_the_central_test_share_no_image_and_leave_none_out(split: str) -> None:
    test = TASK.central_test()
    assert test is not None
    found = keys(test)
    assert len(found) == round(0.2 * 1797)
    for part in range(7):
        data = TASK.load({"partition": part, "partitions": 7, "split": split})
        assert len(data.train) >= 1
        assert len(data.test) >= 1
        found += keys(data.train) + keys(data.test)
    expected = load_digits()
    everything = Examples(
        torch.tensor(expected.images[:, None] / 16, dtype=torch.float32),
        torch.tensor(expected.target),
    )
    assert sorted(found) == sorted(keys(everything))


def test_every_node_of_the_largest_federation_has_something_to_do() -> None:
    for part in (0, 350, 718):
        data = TASK.load({"partition": part, "partitions": 719, "alpha": 0.05})
        assert len(data.train) >= 1
        assert len(data.test) >= 1


def test_loading_is_repeatable_and_follows_the_seed() -> None:
    settings = {"connector": "digits", "partition": 3, "partitions": 10}
    one, two = TASK.load(settings), TASK.load(settings)
    assert torch.equal(one.train.inputs, two.train.inputs)
    assert torch.equal(one.test.targets, two.test.targets)
    other = TASK.load({**settings, "seed": 2})
    assert keys(other.train) != keys(one.train)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"partition": 10, "partitions": 10}, "partition = 10: allowed: an integer in 0..9"),
        ({"partition": True, "partitions": 10}, "partition = True: allowed: an integer in 0..9"),
        ({"partitions": 720}, "partitions = 720: allowed: an integer in 1..719"),
        ({"partitions": 10}, "partition: missing"),
        ({"connector": "mnist"}, 'connector = "mnist": allowed: "digits"'),
        (
            {"split": "shard"},
            'split = "shard": allowed: "dirichlet", "shards", "iid"; did you mean',
        ),
        ({"alpha": 0}, "alpha = 0: allowed: a number > 0 and <= 1e+06"),
        ({"alpha": float("nan")}, "alpha = nan: allowed: a number > 0"),
        ({"alhpa": 0.5}, "alhpa: unknown key; did you mean alpha?"),
        (
            {"partition": 0, "partitions": 700, "shards_per_node": 2},
            "shards_per_node = 2: allowed: an integer in 1",
        ),
        ({"seed": -1}, "seed = -1: allowed: an integer in 0.."),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TASK.load(settings)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("kind", "parameters"), [("cnn", 10_026), ("mlp", 4_810), ("logistic", 650)]
)
def test_models_follow_the_seed_alone(kind: str, parameters: int) -> None:
    torch.manual_seed(1)
    one = TASK.make_model({"model": kind}, 5)
    before = torch.random.get_rng_state()
    two = TASK.make_model({"model": kind}, 5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sum(weight.numel() for weight in one.parameters()) == parameters
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    other = TASK.make_model({"model": kind}, 6)
    drawn = kind != "logistic"  # which starts at zero
    assert torch.equal(next(other.parameters()), next(one.parameters())) is not drawn
    assert one(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"model": "cn"},
            'task.options.model = "cn": allowed: "cnn", "mlp", "logistic"; did you mean "cnn"?',
        ),
        ({"modle": "cnn"}, "task.options.modle: unknown key; did you mean task.options.model?"),
    ],
)
def test_wrong_options_are_named(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TASK.make_model(options, 1)
    assert str(caught.value) == sentence


def test_accuracy_and_loss() -> None:
    outputs = torch.eye(10)[:4] * 5
    targets = torch.tensor([0, 1, 2, 9])
    assert TASK.metrics(outputs, targets) == {"accuracy": 0.75}
    shares = np.exp(outputs.double().numpy())
    shares /= shares.sum(axis=1, keepdims=True)
    wanted = -np.log(shares[np.arange(4), targets.numpy()]).mean()
    assert float(TASK.loss(outputs, targets)) == pytest.approx(wanted, rel=1e-6)


def test_it_is_a_task_and_its_settings_print() -> None:
    assert isinstance(TASK, Task)
    assert "partition=2" in repr(DigitsSettings.read({"partition": 2, "partitions": 3}))


def test_scikit_learn_itself_is_not_imported() -> None:
    """It takes longer than a round, in every worker."""
    script = (
        "import sys; from fedsec.tasks.digits import Digits; Digits().load({}); "
        "print('sklearn' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


def test_missing_images_are_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="needs scikit-learn: pip install scikit-learn"):
        digits._read()
    elsewhere = ModuleSpec("sklearn", None, is_package=True)
    elsewhere.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(digits, "find_spec", lambda _name: elsewhere)
    with pytest.raises(ConfigError, match="scikit-learn's digits cannot be read"):
        digits._read()
