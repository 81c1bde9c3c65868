"""A task whose every update numpy can foretell: each node pulls the model towards its own target.

loss = sum((w - target)^2) / 2, so one step of learning rate r moves w by r * (target - w).
"""

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fedsec.tasks.task import Examples, NodeData, Options


class Pulled(torch.nn.Module):
    """The model is one vector; inputs only say how many rows are wanted."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(size))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.weights.expand(len(inputs), len(self.weights))


class Pulling:
    """See the module's docstring; `pulling:TASK` in a plan.

    A node whose data settings name a directory as `gate` waits in training while the file
    `hold-PARTITION` is there, and shows by `held-PARTITION` that it does.
    """

    name = "pulling"

    def __init__(self) -> None:
        self.gate: Path | None = None
        self.partition = 0

    def make_model(self, options: Options, seed: int) -> torch.nn.Module:
        return Pulled(int(options["size"]))

    def load(self, settings: Mapping[str, object]) -> NodeData:
        self.partition = int(str(settings["partition"]))
        self.gate = Path(str(settings["gate"]))
        targets = torch.full((2, 1), float(self.partition + 1))
        rows = Examples(torch.zeros(2, 1), targets)
        return NodeData(rows, rows)

    def central_test(self) -> Examples | None:
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.pass_gate()
        pulls = outputs - targets * torch.linspace(0, 1, outputs.shape[1])
        return pulls.square().sum(dim=1).mean() / 2

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        return {}

    def pass_gate(self) -> None:
        if self.gate is None:
            return
        hold, held = (self.gate / f"{word}-{self.partition}" for word in ("hold", "held"))
        while hold.exists():
            held.touch()
            time.sleep(0.01)
        held.unlink(missing_ok=True)


TASK = Pulling()
