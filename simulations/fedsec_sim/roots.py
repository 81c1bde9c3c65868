"""The clean data of a simulated coordinator, for the rules that trust it: FLTrust and MoNNA.

Source: Cao, Fang, Liu, Gong, "FLTrust: Byzantine-robust Federated Learning via Trust
Bootstrapping", NDSS 2021, section V-A: 100 examples, drawn from all the nodes' clean ones.
"""

from collections.abc import Mapping

import torch

from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt
from fedsec.flower.root import RootTraining
from fedsec.plan import FederationPlan
from fedsec.tasks.task import Examples, Task
from fedsec.vectors import Vector
from fedsec_sim.chance import ROOT, generator
from fedsec_sim.population import Population

DRAWN = 100  # examples, where nobody says which


def root_examples(
    task: Task, clean: Population, settings: Mapping[str, object], seed: int
) -> Examples:
    """Returns the root data.

    Args:
        task: Reads them.
        clean: The nodes before any is poisoned.
        settings: As `[data.NAME]` in a coordinator's `server.toml`; none: some of the nodes'
            examples are drawn.
        seed: Of that draw.

    Raises:
        ConfigError: The settings are wrong.
    """
    if settings:
        try:
            return task.load(settings).train
        except ConfigError as error:
            raise ConfigError(f"the root data: {error}") from error
    held = clean.train.rows
    count = min(DRAWN, len(held))
    rows = held[generator(seed, ROOT).choice(len(held), count, replace=False)]
    return clean.train.pool.take(torch.from_numpy(rows))


class RootOnce:
    """Trains on the root data once for each attempt, however often adversaries try the rule out.

    Args:
        plan: Says how nodes train.
        task: Of the plan.
        examples: The clean ones.
    """

    def __init__(self, plan: FederationPlan, task: Task, examples: Examples) -> None:
        self._train = RootTraining(plan, task, examples)
        self._kept: tuple[tuple[int, int], Vector] | None = None

    def __call__(self, attempt: Attempt) -> Vector:
        """See `fedsec.flower.robust.RootUpdate`."""
        turn = (attempt.round, attempt.number)
        if self._kept is None or self._kept[0] != turn:
            self._kept = (turn, self._train(attempt))
        return self._kept[1]
