"""The task `pulling`, of which each node keeps what it is sent: `GATE/PARTITION-COUNT.npy`."""

import numpy as np
from pulling import Pulling
from torch import Tensor


class Watching(Pulling):
    """See the module's docstring; `watching:TASK` in a plan."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.gate is not None:
            seen = len(list(self.gate.glob(f"{self.partition}-*.npy")))
            np.save(self.gate / f"{self.partition}-{seen}.npy", outputs[0].detach().numpy())
        return super().loss(outputs, targets)


TASK = Watching()
