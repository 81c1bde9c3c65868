"""Finding tasks: built in by name, one's own by module and attribute, and what else is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fedsec.errors import ConfigError
from fedsec.plan import Data
from fedsec.plan.figures import MEASURED, OF_NUMBERS
from fedsec.tasks.arrays import get_arrays, set_arrays
from fedsec.tasks.digits import Digits
from fedsec.tasks.names import BUILT_IN
from fedsec.tasks.seeds import derive
from fedsec.tasks.settings import Settings
from fedsec.tasks.table import MEMBERS, TASKS, load_task
from fedsec.tasks.task import Examples, Task


def test_the_names_are_those_of_the_table() -> None:
    assert tuple(TASKS) == BUILT_IN
    data = Data(inputs=("age",), shape=(1, 8, 8), classes=2, scaling="site")
    made = {name: make(data) for name, make in TASKS.items()}
    assert all(task.name == name for name, task in made.items())
    assert all(isinstance(task, Task) for task in made.values())


def test_an_object_or_a_class_of_ones_own() -> None:
    assert load_task("digits") == Digits()
    assert load_task("fedsec.tasks.digits:Digits") == Digits()


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("digit", 'task "digit" is not built in; built in: "digits", "table"'),
        ("no_such_module:task", 'task "no_such_module:task": cannot import no_such_module: No mod'),
        (
            "fedsec.tasks.digits:Digit",
            'task "fedsec.tasks.digits:Digit": fedsec.tasks.digits has n',
        ),
        (
            "fedsec.tasks.digits:CLASSES",
            "lacks name, make_model, load, central_test, loss, metrics",
        ),
    ],
)
def test_what_is_no_task_is_refused(reference: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_task(reference)
    assert sentence in str(caught.value)


def test_a_module_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_task.py").write_text("import no_such_thing_at_all\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot import broken_task: No module named 'no_such_th"):
        load_task("broken_task:task")


def test_the_list_of_members_is_the_protocols() -> None:
    for member in MEMBERS:
        lacking = {name: len for name in MEMBERS if name != member}
        assert not isinstance(type("Half", (), lacking)(), Task)
    assert isinstance(type("Whole", (), dict.fromkeys(MEMBERS, len))(), Task)


# --- settings ------------------------------------------------------------------------------------


def test_settings_read_what_is_there() -> None:
    given = Settings({"a": 1, "b": 0.5, "c": "x"})
    assert given.integer("a", low=0, high=1) == 1
    assert given.number("b", above=0) == 0.5
    assert given.number("missing", above=0, default=2) == 2.0
    assert given.choice("c", ("x", "y")) == "x"
    given.end()


@pytest.mark.parametrize(
    ("read", "sentence"),
    [
        (lambda s: s.integer("none", low=0, high=1), "t.none: missing"),
        (lambda s: s.integer("half", low=0, high=1), "t.half = 0.5: allowed: an integer in 0..1"),
        (lambda s: s.number("half", above=0.5), "t.half = 0.5: allowed: a number > 0.5"),
        (lambda s: s.number("inf", above=0), "t.inf = inf: allowed: a number > 0"),
        (lambda s: s.number("huge", above=0), "t.huge = 1000"),
        (lambda s: s.number("text", above=0), 't.text = "x": allowed: a number > 0'),
        (
            lambda s: s.number("yes", above=0, most=2),
            "t.yes = True: allowed: a number > 0 and <= 2",
        ),
        (lambda s: s.choice("half", ("x",)), 't.half = 0.5: allowed: "x"'),
        (lambda s: s.end(), "t.half: unknown key; known: none"),
    ],
)
def test_settings_refuse_with_key_value_and_range(
    read: Callable[[Settings], object], sentence: str
) -> None:
    given = Settings(
        {"half": 0.5, "inf": float("inf"), "text": "x", "yes": True, "huge": 10**400}, "t."
    )
    with pytest.raises(ConfigError) as caught:
        read(given)
    assert str(caught.value).startswith(sentence)


# --- arrays and seeds ----------------------------------------------------------------------------


def test_a_models_arrays_there_and_back() -> None:
    one, two = (torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3))
    one(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    set_arrays(two, {name: array.copy() for name, array in get_arrays(one).items()})
    assert get_arrays(two)["num_batches_tracked"] == 1
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_read_only_arrays_can_be_set() -> None:
    model = torch.nn.Linear(2, 1)
    arrays = {name: array * 0 + 3 for name, array in get_arrays(model).items()}
    for array in arrays.values():
        array.flags.writeable = False
    set_arrays(model, arrays)
    assert model.weight.tolist() == [[3, 3]]


def test_another_models_arrays_are_refused() -> None:
    with pytest.raises(ConfigError, match="not the arrays of this model: array 'weight' has shape"):
        set_arrays(torch.nn.Linear(2, 1), get_arrays(torch.nn.Linear(3, 1)))


def test_a_dtype_without_numpy_is_refused() -> None:
    with pytest.raises(ConfigError, match="'weight' cannot be trained here"):
        get_arrays(torch.nn.Linear(2, 1).bfloat16())


def test_seeds_differ_by_purpose() -> None:
    seeds = {derive(a, b, c) for a in range(3) for b in range(3) for c in (0, 1, 2**64 - 1)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(1, 2, 3) == derive(1, 2, 3)


def test_examples_must_match() -> None:
    with pytest.raises(ConfigError, match="3 inputs but 2 targets"):
        Examples(torch.zeros(3), torch.zeros(2))


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_plan_may_ask_for_exactly_what_a_task_measures(name: str) -> None:
    task = TASKS[name](Data(inputs=("age",), shape=(1, 8, 8), classes=2, scaling="site"))
    outputs, targets = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1])
    assert set(task.metrics(outputs, targets)) == set(MEASURED[name])


def test_and_where_the_target_is_a_number() -> None:
    task = TASKS["table"](Data(inputs=("age",), scaling="site"))
    outputs, targets = torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 1.5])
    assert set(task.metrics(outputs, targets)) == set(OF_NUMBERS)
