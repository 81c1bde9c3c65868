"""The built-in tasks by name, and one's own by ``module:attribute``."""

import importlib
from types import MappingProxyType

from fedsec.errors import ConfigError
from fedsec.tasks.digits import Digits
from fedsec.tasks.task import Task

TASKS: MappingProxyType[str, Task] = MappingProxyType({"digits": Digits()})

MEMBERS = ("name", "make_model", "load", "central_test", "loss", "metrics")


def load_task(reference: str) -> Task:
    """Returns the task that `reference` names.

    Args:
        reference: A name of `TASKS`, or ``"module:attribute"`` of an object or class of one's own
            that Python can import here. Whoever calls decides whether it may be imported.

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
        return TASKS[reference]
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
