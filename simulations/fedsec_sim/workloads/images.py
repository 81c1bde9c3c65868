"""Images of 28 x 28 pixels and LeNet: the ten thousand test digits of MNIST, or made from a seed.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE, 1998 (LeNet-5, with the widths that are usual today; the digits).
"""

import gzip
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from fedsec.errors import ConfigError
from fedsec.tasks.digits import logistic
from fedsec.tasks.seeds import seeded
from fedsec.tasks.settings import Settings
from fedsec.tasks.task import Examples, NodeData, Options
from fedsec_sim.workloads.files import data_file
from fedsec_sim.workloads.pool import Pool

CLASSES = 10
IMAGES, LABELS = "mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz"
TRAIN = 8_000  # of the 10,000; the others are the central test set
_MADE = 60  # images of a node, where they are made


@dataclass(frozen=True, slots=True)
class Images:
    """A task on images.

    Option ``model``: ``"lenet"`` (44,426 parameters), ``"mlp"`` (50,890), ``"logistic"`` (7,850).

    Args:
        name: Of the task.
        made: From a seed instead of MNIST: noise around a prototype of its class.
    """

    name: str
    made: bool

    def make_model(self, options: Options, seed: int) -> nn.Module:
        """Returns the model."""
        settings = Settings(options, "task.options.")
        kind = settings.choice("model", ("lenet", "mlp", "logistic"), default="lenet")
        settings.end()
        if kind == "logistic":
            return logistic(784, mean=0.13, scale=1.0)
        with seeded(seed):
            if kind == "lenet":
                return lenet()
            return nn.Sequential(
                nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, CLASSES)
            )

    def load(self, settings: Mapping[str, object]) -> NodeData:
        """Returns a node's images; only those that are made have nodes of their own."""
        if not self.made:
            raise ConfigError(f"{self.name} is divided by a split, e.g. --split gamma:gamma=0.5")
        read = Settings(settings)
        partitions = read.integer("partitions", low=1, high=1_000_000)
        part = read.integer("partition", low=0, high=partitions - 1)
        read.end()
        return NodeData(made_images(part, _MADE), made_images(part, 0))

    def pool(self) -> Pool:
        """Returns the first 8,000 of the ten thousand, or ten nodes' worth of made ones."""
        if self.made:
            return Pool(made_images(0, 10 * _MADE))
        images = mnist()
        return Pool(images.take(torch.arange(TRAIN)))

    def central_test(self) -> Examples | None:
        """Returns the other 2,000, or 500 made ones."""
        if self.made:
            return made_images(-1, 500)
        images = mnist()
        return images.take(torch.arange(TRAIN, len(images)))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross entropy."""
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Returns the share of images whose most likely class is the right one."""
        return {"accuracy": float((outputs.argmax(dim=1) == targets).double().mean())}


def lenet() -> nn.Module:
    """Returns LeNet-5 with ReLU and max pooling: 44,426 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, CLASSES),
    )


@cache
def mnist() -> Examples:
    """Returns the ten thousand test digits of MNIST, pixels scaled to mean 0 and deviation 1.

    Raises:
        ConfigError: The files are not there, or are others.
    """
    images = _idx(IMAGES, (10_000, 28, 28))
    labels = _idx(LABELS, (10_000,))
    pixels = (torch.from_numpy(images).float() / 255 - 0.1307) / 0.3081
    return Examples(pixels[:, None], torch.from_numpy(labels).long())


def made_images(node: int, count: int) -> Examples:
    """Returns images of a node that follow from its number: noise around one prototype a class."""
    rng = np.random.default_rng(np.random.SeedSequence((28, node + 1)))
    prototypes = np.random.default_rng(28).normal(size=(CLASSES, 1, 28, 28))
    targets = rng.integers(0, CLASSES, count)
    inputs = 0.5 * prototypes[targets] + rng.normal(size=(count, 1, 28, 28))
    return Examples(torch.from_numpy(inputs).float(), torch.from_numpy(targets))


def _idx(name: str, shape: tuple[int, ...]) -> np.typing.NDArray[np.uint8]:
    """Returns an array from a file in IDX form, of the shape that it must have."""
    path = data_file(name)
    header, size = 4 + 4 * len(shape), math.prod(shape)
    try:
        with gzip.open(path) as file:
            data = file.read(header + size + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    stated = np.frombuffer(data[:header], ">u4")[1:].tolist() if len(data) >= header else []
    if stated != list(shape) or len(data) != header + size:
        raise ConfigError(f"{path} does not hold {shape}, but {tuple(stated)}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()


mnist_task = Images("mnist", made=False)
made_task = Images("made-images", made=True)
