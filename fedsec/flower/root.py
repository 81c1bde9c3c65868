"""The coordinator's own update on clean data, which FLTrust and MoNNA trust.

The paper of FLTrust trains it as the nodes train theirs, from the same model, in each round. It is
no row: it moves the model only as far as the rule says.
"""

import numpy as np

from fedsec.errors import StateError
from fedsec.flower.collection import Attempt
from fedsec.flower.messages import read_instruction
from fedsec.flower.table import local_training
from fedsec.plan import FederationPlan
from fedsec.tasks.arrays import get_arrays, set_arrays
from fedsec.tasks.seeds import training_seed
from fedsec.tasks.task import Examples, Task
from fedsec.vectors import Layout, Vector, is_finite

NODE = 0
"""Stands for the coordinator where seeds are made from a node's id; no node has it."""


class RootTraining:
    """Trains on the root data once for each attempt.

    Args:
        plan: Says how nodes train.
        task: Of the plan.
        examples: The clean ones; at least one.
    """

    def __init__(self, plan: FederationPlan, task: Task, examples: Examples) -> None:
        wanted, self._training = plan.learning
        self._fit = local_training(self._training)
        self._task = task
        self._model = task.make_model(wanted.options, self._training.seed)
        self._examples = examples

    def __call__(self, attempt: Attempt) -> Vector:
        """Returns trained minus sent (d,); see `fedsec.flower.robust.RootUpdate`.

        Raises:
            StateError: Training diverged.
        """
        sent = read_instruction(attempt.content).arrays
        set_arrays(self._model, sent)
        seed = training_seed(self._training.seed, attempt.round, NODE)
        self._fit(self._task, self._model, self._examples, seed)
        update = Layout.of(sent).change(sent, get_arrays(self._model))
        if not is_finite(update):
            bad = int(np.count_nonzero(~np.isfinite(update)))
            raise StateError(
                f"training on the root data diverged in round {attempt.round}: {bad} of "
                f"{update.size} entries are not finite; training.learning_rate = "
                f"{self._training.learning_rate:g} may be too high"
            )
        return update
