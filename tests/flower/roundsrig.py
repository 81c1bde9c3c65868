"""A run loop over nodes that live in the test, and the model it begins with."""

import numpy as np

from fedsec.flower.rounds import Evaluation, Rounds
from fedsec.flower.strategy import FedAvg, ServerState
from fedsec.plan import FederationPlan
from tests.flower.fakes import (
    FakeGrid,
    Waiting,
)

START = {"w": np.array([10.0, 20.0, 30.0], np.float32)}
UPDATES = [[1.0, 0.0, 2.0], [3.0, 0.5, 0.0], [-1.0, 1.0, 1.0], [0.0, 4.0, 8.0]]


def rounds(
    grid: FakeGrid,
    of: FederationPlan,
    *,
    evaluation: Evaluation | None = lambda _state: {"loss": 0.25, "accuracy": 0.5},
    waiting: Waiting | None = None,
) -> Rounds:
    return Rounds(of, grid, grid, size=3, evaluation=evaluation, clock=(waiting or Waiting()).clock)


def begin() -> ServerState:
    return ServerState.begin(START, FedAvg())
