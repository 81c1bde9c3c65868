"""How many entries a plan's model has."""

from typing import Annotated

import typer

from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan

Size = Annotated[
    int | None,
    typer.Option(help="Entries of the model, where the plan's task is not installed here."),
]


def size_of(plan: FederationPlan, given: int | None) -> int:
    """Returns d: as told, or of the task's model, which is made for it.

    Raises:
        ConfigError: `given` is no size, or the task is not installed here.
    """
    if given is not None:
        if given < 1:
            raise ConfigError(f"--size must be >= 1, got {given}")
        return given
    from fedsec.tasks.arrays import get_arrays  # noqa: PLC0415 - torch takes seconds
    from fedsec.tasks.table import load_task  # noqa: PLC0415
    from fedsec.vectors import Layout  # noqa: PLC0415

    task, training = plan.learning
    try:
        model = load_task(task.name, plan.data).make_model(task.options, training.seed)
    except ConfigError as error:
        raise ConfigError(f"{error}; --size tells how many entries the model has") from error
    return Layout.of(get_arrays(model)).size
