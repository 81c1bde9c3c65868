"""The task ``"table"``: records in columns; a class or a number is learned from the others.

The plan's ``[data]`` says which inputs, in which order and on which scale, and how many classes; a
site's ``[data.NAME]`` says how its files become those.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsec.data.biopsies import INPUTS
from fedsec.data.reading import read
from fedsec.data.records import Records
from fedsec.errors import ConfigError
from fedsec.plan.data import MODELS, MOST_HIDDEN, Data
from fedsec.tasks.scores import of_classes, of_numbers
from fedsec.tasks.seeds import seeded
from fedsec.tasks.settings import Settings
from fedsec.tasks.site import node_data
from fedsec.tasks.task import Examples, NodeData, Options

MAX_NAMED = 20  # inputs in one sentence


@dataclass(frozen=True, slots=True)
class Tabular:
    """Learns a target from columns.

    Options: ``model``: ``"logistic"`` (classes), ``"linear"`` (a number) or ``"mlp"``; ``hidden``:
    units of the MLP's hidden layer, 32.

    Args:
        data: The plan's table ``[data]``.
        name: In a model's metadata.
    """

    data: Data
    name: str = "table"

    def make_model(self, options: Options, seed: int) -> nn.Module:
        """Returns a linear map or an MLP with one hidden layer."""
        settings = Settings(options, "task.options.")
        kind = settings.choice("model", MODELS[self.name], default=MODELS[self.name][0])
        hidden = 0
        if kind == "mlp":
            hidden = settings.integer("hidden", low=1, high=MOST_HIDDEN, default=32)
        settings.end()
        width = len(self.data.inputs or ())
        outputs = self.data.classes or 1
        with seeded(seed):
            if not hidden:
                return nn.Sequential(nn.Linear(width, outputs))
            return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def load(self, settings: Mapping[str, object]) -> NodeData:
        """Returns the records that `settings` name."""
        connector, records = read(settings)
        return node_data(connector, records, self.data, choose=self._choose)

    def central_test(self) -> Examples | None:
        """Returns None: the records stay at the sites."""
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross entropy, or the mean squared error of a number."""
        if self.data.classes is not None:
            return nn.functional.cross_entropy(outputs, targets)
        return nn.functional.mse_loss(outputs[:, 0], targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Returns accuracy, F1 and area under the curve; of a number its mean absolute error."""
        if self.data.classes is not None:
            return of_classes(outputs, targets)
        return of_numbers(outputs[:, 0], targets)

    def _choose(self, records: Records) -> NDArray[np.float32]:
        """Returns the plan's inputs (n, d) in the plan's order."""
        at = {name: index for index, name in enumerate(records.names)}
        lacking = [name for name in self.data.inputs or () if name not in at]
        if lacking or not records.names:
            named = ", ".join(f'"{name}"' for name in lacking[:MAX_NAMED])
            more = f" and {len(lacking) - MAX_NAMED} more" if len(lacking) > MAX_NAMED else ""
            raise ConfigError(f"lacks the plan's data.inputs {named}{more}")
        chosen = [at[name] for name in self.data.inputs or ()]
        return np.ascontiguousarray(records.inputs[:, chosen])


def breast_cancer() -> Tabular:
    """Returns the task ``"breast-cancer"``: see `fedsec.data.biopsies`."""
    return Tabular(Data(inputs=INPUTS, classes=2, scaling="site"), "breast-cancer")
