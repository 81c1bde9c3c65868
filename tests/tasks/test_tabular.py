"""The task on tables: the plan's inputs in the plan's order, honest figures, refusals in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from fedsec.errors import ConfigError, DataError
from fedsec.plan import Data, FederationPlan
from fedsec.tasks.scores import of_classes, of_numbers
from fedsec.tasks.table import load_task
from fedsec.tasks.tabular import Tabular, breast_cancer
from fedsec.tasks.task import NodeData, evaluate
from fedsec.tasks.training import LocalTraining

PLAN = """
schema = 1
name = "a table"
[task]
name = "table"
data = "study"
[data]
inputs = ["b", "a"]
classes = 2
scaling = "site"
[training]
rounds = 3
"""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(200, 3)).round(4)
    labels = (rows[:, 0] - rows[:, 1] > 0).astype(int)
    lines = [f"{a},{b},{c},{y}" for (a, b, c), y in zip(rows, labels, strict=True)]
    (tmp_path / "s.csv").write_text("a,b,c,y\n" + "\n".join(lines), encoding="utf-8")
    return {"connector": "csv", "files": "s.csv", "directory": str(tmp_path), "label": "y"}


def data(**keys: Any) -> Data:
    return Data(**{"inputs": ["b", "a"], "classes": 2, "scaling": "none", **keys})


def raw(settings: dict[str, Any]) -> np.typing.NDArray[np.float64]:
    return np.loadtxt(Path(settings["directory"], "s.csv"), delimiter=",", skiprows=1)


def everything(data: NodeData) -> list[tuple[float, ...]]:
    parts = (data.train, data.test)
    return sorted(tuple(row) for part in parts for row in part.inputs.double().tolist())


def test_inputs_stand_in_the_plans_order(settings: dict[str, Any]) -> None:
    loaded = Tabular(data()).load(settings)
    assert (len(loaded.train), len(loaded.test)) == (160, 40)
    expected = raw(settings)[:, [1, 0]].astype(np.float32).astype(float)
    assert everything(loaded) == sorted(map(tuple, expected.tolist()))
    assert loaded.train.targets.dtype == torch.int64


def test_a_site_scales_by_what_it_trains_on(settings: dict[str, Any]) -> None:
    plain = Tabular(data()).load(settings)
    scaled = Tabular(data(scaling="site")).load(settings)
    mean, deviation = plain.train.inputs.mean(0), plain.train.inputs.std(0, unbiased=False)
    expected = (plain.test.inputs - mean) / deviation
    torch.testing.assert_close(scaled.test.inputs, expected)


def test_the_plans_constants(settings: dict[str, Any]) -> None:
    plain = Tabular(data()).load(settings)
    scaled = Tabular(data(scaling="plan", center=[1, 2], scale=[4, 0.5])).load(settings)
    expected = (plain.train.inputs - torch.tensor([1.0, 2.0])) / torch.tensor([4.0, 0.5])
    torch.testing.assert_close(scaled.train.inputs, expected)


@pytest.mark.parametrize("split", ["iid", "dirichlet", "shards"])
def test_parts_are_disjoint_and_leave_no_record_out(settings: dict[str, Any], split: str) -> None:
    task = Tabular(data())
    found: list[tuple[float, ...]] = []
    for part in range(4):
        keys = {"partition": part, "partitions": 4, "split": split}
        found += everything(task.load({**settings, **keys}))
    assert sorted(found) == everything(task.load(settings))


def test_it_learns_what_is_in_the_records(settings: dict[str, Any]) -> None:
    task = load_task("table", FederationPlan.parse(PLAN).data)
    loaded = task.load(settings)
    for options in ({"model": "logistic"}, {"model": "mlp", "hidden": 8}):
        model = task.make_model(options, 1)
        LocalTraining(epochs=20, learning_rate=0.5)(task, model, loaded.train, 1)
        figures = evaluate(task, model, loaded.test)
        assert figures["accuracy"] >= 0.9
        assert figures["auc"] >= 0.95


def test_a_number_is_learned(settings: dict[str, Any]) -> None:
    task = Tabular(data(inputs=["a", "b", "y"], classes=None))
    loaded = task.load({**settings, "label": "c", "test": {"fraction": 0.5}})
    assert loaded.train.targets.dtype == torch.float32
    model = task.make_model({"model": "linear"}, 1)
    figures = evaluate(task, model, loaded.test)
    with torch.inference_mode():
        answers = model(loaded.test.inputs)[:, 0]
    mae = (answers - loaded.test.targets).abs().mean()
    assert figures["mae"] == pytest.approx(float(mae))
    assert figures["loss"] == pytest.approx(float((answers - loaded.test.targets).square().mean()))


def test_the_models_are_those_of_the_seed() -> None:
    task = Tabular(data())
    one, two = task.make_model({}, 4), task.make_model({}, 4)
    assert torch.equal(one[0].weight, two[0].weight)
    assert (
        sum(p.numel() for p in task.make_model({"model": "mlp", "hidden": 8}, 1).parameters()) == 42
    )
    with pytest.raises(ConfigError, match=r"task.options.hidden: unknown key"):
        task.make_model({"hidden": 8}, 1)


@pytest.mark.parametrize(
    ("keys", "changes", "error", "sentence"),
    [
        ({"inputs": ["a", "z"]}, {}, ConfigError, 'lacks the plan\'s data.inputs "z"'),
        ({}, {"label": "c", "keep": ["a", "b"]}, DataError, "none of the plan's classes 0..1"),
        ({}, {"partition": 0, "partitions": 200}, DataError, "of 1 records none is left"),
        ({}, {"files": "t.csv"}, DataError, "did you mean s.csv?"),
    ],
)
def test_what_does_not_fit(
    settings: dict[str, Any], keys: Any, changes: Any, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        Tabular(data(**keys)).load({**settings, **changes})
    assert type(caught.value) is error
    assert sentence in str(caught.value)


def test_the_biopsies_are_scikit_learns() -> None:
    found = load_breast_cancer()
    task = breast_cancer()
    assert task.data.inputs == tuple(found.feature_names)
    loaded = task.load({"connector": "breast-cancer"})
    assert len(loaded.train) + len(loaded.test) == 569
    model = task.make_model({}, 1)
    LocalTraining(epochs=30, learning_rate=0.1)(task, model, loaded.train, 1)
    assert evaluate(task, model, loaded.test)["accuracy"] > 0.93


def test_figures_are_their_definitions() -> None:
    rng = np.random.default_rng(1)
    outputs = torch.from_numpy(rng.normal(size=(60, 2)).round(1))
    targets = torch.from_numpy(rng.integers(0, 2, 60))
    score, truth = (outputs[:, 1] - outputs[:, 0]).numpy(), targets.numpy()
    pairs = [(p, q) for p in score[truth == 1] for q in score[truth == 0]]
    area = np.mean([1.0 if p > q else 0.5 if p == q else 0.0 for p, q in pairs])
    guess = outputs.argmax(dim=1).numpy()
    hits = ((guess == 1) & (truth == 1)).sum()
    figures = of_classes(outputs, targets)
    assert figures["auc"] == pytest.approx(area, abs=1e-9)
    assert figures["f1"] == pytest.approx(2 * hits / ((guess == 1).sum() + (truth == 1).sum()))
    assert figures["accuracy"] == pytest.approx((guess == truth).mean())


def test_an_area_that_is_not_defined_is_left_out() -> None:
    assert "auc" not in of_classes(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    three = of_classes(torch.eye(3).repeat(2, 1), torch.arange(3).repeat(2))
    assert three == {"accuracy": 1.0, "f1": 1.0, "auc": 1.0}
    assert of_numbers(torch.ones(1), torch.zeros(1)) == {"mae": 1.0}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "table"', 'name = "digits"', 'data: only the tasks "table", "images" read it'),
        (
            "[data]\n",
            "[data]\nshape = [1, 2, 3]\n",
            'data.shape: task.name = "table" reads data.in',
        ),
        ('inputs = ["b", "a"]\n', "", 'data.inputs: missing: task.name = "table" needs it'),
        ('["b", "a"]', '["b", "b"]', 'data.inputs: names "b" twice'),
        ("classes = 2\n", "", 'data.classes: missing: model = "logistic" needs it'),
        ('"site"', '"sites"', 'data.scaling = "sites": allowed: "site", "plan", "none"; did you'),
        ('scaling = "site"\n', "", "data.scaling: missing; allowed"),
        (
            '"site"',
            '"plan"\ncenter = [1.0]',
            "data.center: holds 1 numbers, one is needed for each of 2",
        ),
        ('"site"', '"plan"\nscale = [1.0, 0.0]', "data.scale: 0 is not > 0"),
        ('"site"', '"none"\nscale = [1.0, 1.0]', 'data.scale: is read with scaling = "plan" only'),
        (
            'data = "study"',
            'data = "study"\noptions = { model = "linear" }',
            'data.classes: 2: model = "linear" predicts a number',
        ),
        (
            'data = "study"',
            'data = "study"\noptions = { model = "forest" }',
            'task.options.model: "forest": allowed: "logistic", "linear", "mlp"',
        ),
    ],
)
def test_a_plan_whose_data_do_not_fit_is_refused(old: str, new: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FederationPlan.parse(PLAN.replace(old, new))
    assert sentence in str(caught.value)


def test_a_plan_without_its_data_is_refused() -> None:
    start, end = PLAN.index("[data]"), PLAN.index("[training]")
    with pytest.raises(ConfigError, match=r'data: missing: task.name = "table" needs a \[data\]'):
        FederationPlan.parse(PLAN[:start] + PLAN[end:])
    with pytest.raises(ConfigError, match=r'task "table" needs a \[data\] table'):
        load_task("table")
