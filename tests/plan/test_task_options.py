"""Options of a built-in task are known before a worker reads them: `fedsec plan check` says so."""

import pytest

from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan
from fedsec.plan.data import MODELS, MOST_HIDDEN
from fedsec.tasks.table import load_task

PLAN = """
schema = 1
name = "options"
[task]
name = "{task}"
data = "mine"
options = {{ {options} }}
[training]
rounds = 1
[nodes]
min_available = 2
"""


def plan(task: str, options: str) -> FederationPlan:
    return FederationPlan.parse(PLAN.format(task=task, options=options))


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        (
            "digits",
            'modle = "cnn"',
            "task.options.modle: unknown key; did you mean task.options.mo",
        ),
        ("digits", "hidden = 3", "task.options.hidden: unknown key; known: model"),
        (
            "digits",
            'model = "tree"',
            'task.options.model: "tree": allowed: "cnn", "mlp", "logistic"',
        ),
        (
            "breast-cancer",
            "hidden = 3",
            "task.options.hidden: unknown key",
        ),  # its default is linear
        ("breast-cancer", 'model = "mlp", hiden = 3', "did you mean task.options.hidden?"),
        (
            "breast-cancer",
            'model = "mlp", hidden = 0',
            "task.options.hidden: 0: allowed: an integer",
        ),
        ("breast-cancer", 'model = "mlp", hidden = true', "task.options.hidden: True: allowed"),
        ("breast-cancer", f'model = "mlp", hidden = {MOST_HIDDEN + 1}', "in 1..100000"),
    ],
)
def test_what_the_task_would_refuse_is_refused_here(task: str, options: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(task, options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("task", "options"),
    [
        *[(task, f'model = "{MODELS[task][-1]}"') for task in ("digits", "breast-cancer")],
        ("digits", ""),
        ("breast-cancer", f'model = "mlp", hidden = {MOST_HIDDEN}'),
        ("breast-cancer", 'model = "mlp", hidden = 1'),
    ],
)
def test_what_is_let_through_the_task_itself_takes(task: str, options: str) -> None:
    """The plan's list and what the task reads are the same."""
    sound = plan(task, options)
    assert sound.task is not None
    assert load_task(task, sound.data).make_model(sound.task.options, seed=1)


def test_options_of_one_s_own_task_are_its_own_business() -> None:
    assert plan("module:TASK", 'modle = "cnn"').task is not None
