"""The model that a site would have had by itself: what a partner asks for first.

It begins as the federation's first model and trains on the site's own records for as long as the
federation does, round by round with the same batches. Nothing of it leaves the node but, after the
last round, its figures on the site's own tests.
"""

import threading
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from fedsec.flower.figures import ALONE
from fedsec.flower.table import local_training
from fedsec.plan import FederationPlan, Training
from fedsec.tasks.seeds import training_seed
from fedsec.tasks.table import load_task
from fedsec.tasks.task import NodeData, Task, evaluate

KEPT = 64  # runs and nodes whose lone model a process keeps; a node's worker needs one


@dataclass
class Alone:
    """A model in training on one site's records.

    Args:
        task: Of the plan.
        model: As the federation's begins.
        training: Of the plan.
        node_id: Of the site; batches follow from it.
    """

    task: Task
    model: torch.nn.Module
    training: Training
    node_id: int
    round: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, to: int, data: NodeData) -> None:
        """Trains up to round `to`, whatever rounds were missed; never twice the same."""
        local = replace(local_training(self.training), proximal_mu=0.0)  # there is nobody to near
        with self.lock:
            while self.round < to:
                seed = training_seed(self.training.seed, self.round + 1, self.node_id)
                local(self.task, self.model, data.train, seed)
                self.round += 1

    def figures(self, data: NodeData) -> dict[str, float]:
        """Returns loss and metrics on the site's tests, each name beginning with ``alone-``."""
        with self.lock:
            found = evaluate(self.task, self.model, data.test)
        return {f"{ALONE}{name}": value for name, value in found.items()}


@lru_cache(maxsize=KEPT)
def alone_of(plan_text: str, run_id: int, node_id: int) -> Alone:
    """Returns the lone model of a node in a run; the same one at every call."""
    del run_id
    plan = FederationPlan.parse(plan_text)
    wanted, training = plan.learning
    task = load_task(wanted.name, plan.data)
    return Alone(task, task.make_model(wanted.options, training.seed), training, node_id)
