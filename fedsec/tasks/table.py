"""The built-in tasks by name, and one's own by ``module:attribute``."""

import importlib
from collections.abc import Callable
from types import MappingProxyType

from fedsec.errors import ConfigError
from fedsec.plan.data import Data
from fedsec.tasks.digits import Digits
from fedsec.tasks.task import Task

# What a task stands on is imported when it is wanted: a worker of one pays for no other.


def _digits(_data: Data | None) -> Task:
    return Digits()


def _table(data: Data | None) -> Task:
    from fedsec.tasks.tabular import Tabular  # noqa: PLC0415

    return Tabular(_given("table", data))


def _images(data: Data | None) -> Task:
    from fedsec.tasks.images import Images  # noqa: PLC0415

    return Images(_given("images", data))


def _breast_cancer(_data: Data | None) -> Task:
    from fedsec.tasks.tabular import breast_cancer  # noqa: PLC0415

    return breast_cancer()


TASKS: MappingProxyType[str, Callable[[Data | None], Task]] = MappingProxyType(
    {"digits": _digits, "table": _table, "images": _images, "breast-cancer": _breast_cancer}
)
"""By name, what makes the task from the plan's table ``[data]``."""

MEMBERS = ("name", "make_model", "load", "central_test", "loss", "metrics")


def load_task(reference: str, data: Data | None = None) -> Task:
    """Returns the task that `reference` names.

    Args:
        reference: A name of `TASKS`, or ``"module:attribute"`` of an object or class of one's own
            that Python can import here. Whoever calls decides whether it may be imported.
        data: The plan's table ``[data]``.

    Raises:
        ConfigError: Nothing is there, or it lacks a task's members.
    """
    if ":" not in reference:
        if reference not in TASKS:
            known = ", ".join(f'"{name}"' for name in TASKS)
            raise ConfigError(
                f'task "{reference}" is not built in; built in: {known}; your own: '
                '"module:attribute"'
            )
        return TASKS[reference](data)
    module_name, _, attribute = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ConfigError(f'task "{reference}": cannot import {module_name}: {error}') from error
    except AttributeError as error:
        raise ConfigError(f'task "{reference}": {module_name} has no {attribute}') from error
    task = found() if isinstance(found, type) else found
    if not isinstance(task, Task):
        lacking = [name for name in MEMBERS if not hasattr(task, name)]
        raise ConfigError(f'task "{reference}" lacks {", ".join(lacking)}')
    return task


def _given(task: str, data: Data | None) -> Data:
    if data is None:
        raise ConfigError(f'task "{task}" needs a [data] table in the plan')
    return data
