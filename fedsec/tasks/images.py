"""The task ``"images"``: one class per image, by a CNN of the size of LeNet or an MLP.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE, 1998; Wu, He, "Group Normalization", ECCV 2018, in place of normalising by
batch, which would mix a site's records into the model's buffers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsec.data.reading import read
from fedsec.data.records import Records
from fedsec.errors import ConfigError
from fedsec.plan.data import MODELS, Data
from fedsec.tasks.scores import of_classes
from fedsec.tasks.seeds import seeded
from fedsec.tasks.settings import Settings
from fedsec.tasks.site import node_data
from fedsec.tasks.task import Examples, NodeData, Options

SMALLEST = 4  # sides that two poolings halve


@dataclass(frozen=True, slots=True)
class Images:
    """Learns the class of an image.

    Options: ``model``: ``"cnn"`` (default) or ``"mlp"``.

    Args:
        data: The plan's table ``[data]``.
        name: In a model's metadata.
    """

    data: Data
    name: str = "images"

    def make_model(self, options: Options, seed: int) -> nn.Module:
        """Returns the CNN (63,882 parameters for 28 x 28 grey values) or the MLP."""
        settings = Settings(options, "task.options.")
        kind = settings.choice("model", MODELS[self.name], default=MODELS[self.name][0])
        settings.end()
        channels, height, width = self.data.shape or (1, 1, 1)
        if kind == "cnn" and min(height, width) < SMALLEST:
            raise ConfigError(
                f"data.shape = {height} x {width}: the CNN needs sides >= {SMALLEST}; "
                'task.options.model = "mlp" does not'
            )
        classes = self.data.classes or 1
        with seeded(seed):
            if kind == "cnn":
                return _cnn(channels, height, width, classes)
            return _mlp(channels * height * width, classes)

    def load(self, settings: Mapping[str, object]) -> NodeData:
        """Returns the images that `settings` name."""
        connector, records = read(settings)
        return node_data(connector, records, self.data, choose=self._choose)

    def central_test(self) -> Examples | None:
        """Returns None: the images stay at the sites."""
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross entropy."""
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Returns accuracy, F1 and area under the curve."""
        return of_classes(outputs, targets)

    def _choose(self, records: Records) -> NDArray[np.float32]:
        """Returns the images (n, channels, height, width), if they are the plan's."""
        shape = records.inputs.shape[1:]
        if shape != self.data.shape:
            ours, theirs = (" x ".join(map(str, each or ())) for each in (shape, self.data.shape))
            raise ConfigError(f"has records of {ours}, the plan's data.shape is {theirs}")
        return records.inputs


def _cnn(channels: int, height: int, width: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=5, padding=2),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, kernel_size=5, padding=2),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 32),
        nn.ReLU(),
        nn.Linear(32, classes),
    )


def _mlp(size: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, classes))
