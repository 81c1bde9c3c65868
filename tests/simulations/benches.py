"""Models, tasks and nodes on which engines are compared."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedsec.plan import FederationPlan
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.task import Examples, NodeData, Options
from fedsec_sim.engines.engine import Bench, Job
from fedsec_sim.population import Parts, Population

SIZES = [14, 3, 16, 34, 2, 40, 16, 7]


def plan(**training: object) -> FederationPlan:
    words = {"rounds": 2, "batch_size": 16, "learning_rate": 0.1, **training}
    lines = "\n".join(f"{k} = {v!r}".replace("'", '"') for k, v in words.items())
    return FederationPlan.parse(
        f'schema = 1\nname = "engines"\n[task]\nname = "digits"\n[training]\n{lines}\n'
        "[nodes]\nmin_available = 8\n"
    )


@dataclass(frozen=True)
class Made:
    """A task whose model is whatever a test wants; 8 x 8 images, 10 classes."""

    model: str = "mlp"
    name: str = "made"

    def make_model(self, options: Options, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return MODELS[self.model]()

    def load(self, settings: Mapping[str, object]) -> NodeData:
        raise NotImplementedError

    def central_test(self) -> Examples | None:
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        return {}


class Smoothed(Made):
    """Near cross entropy, and not it."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.01)


def _frozen() -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Linear(9, 10))
    made[1].weight.requires_grad_(requires_grad=False)
    return made


def _tied() -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10))
    made[2].weight = made[1].weight
    return made


def _shared() -> nn.Module:
    bend = nn.Tanh()  # which stands in two places
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 9), bend, nn.Linear(9, 7), bend, nn.Linear(7, 10)
    )


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.flatten(1))
        return out if out.sum() > 0 else out * 2


MODELS = {
    # 4,810 entries: rows of a packed matrix would begin anywhere within 64 bytes
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
    "deep": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 9, bias=False),
        nn.Tanh(),
        nn.Linear(9, 7),
        nn.ReLU(),
        nn.Linear(7, 10),
    ),
    "shared": _shared,
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    "norm": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 9), nn.LayerNorm(9), nn.Linear(9, 10)
    ),
    "cnn": lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10)),
    "lenet": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(20, 9),
        nn.ReLU(),
        nn.Linear(9, 10),
    ),
    "pooled": lambda: nn.Sequential(
        nn.Conv2d(1, 3, (3, 2)),
        nn.Tanh(),
        nn.MaxPool2d(3, 2),  # windows overlap
        nn.Flatten(),
        nn.Linear(18, 10),
    ),
    "padded": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(128, 10)
    ),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)),
    "batch norm": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)),
    "half": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double(),
    "frozen": _frozen,
    "tied": _tied,
    "branching": Branching,
}


def population(dtype: torch.dtype = torch.float32) -> Population:
    generator = torch.Generator().manual_seed(3)
    nodes = [
        Examples(
            torch.rand(size, 1, 8, 8, generator=generator).to(dtype),
            torch.randint(0, 10, (size,), generator=generator),
        )
        for size in SIZES
    ]
    return Population(Parts.joined(nodes))


def bench(model: str = "mlp", **training: object) -> Bench:
    dtype = torch.float64 if model == "half" else torch.float32
    return Bench.of(plan(**training), Made(model), population(dtype))


def sent(made: Bench) -> np.ndarray:
    return made.layout.flatten(get_arrays(made.model))


def trained(engine: object, made: Bench, nodes: list[int], first: np.ndarray) -> np.ndarray:
    rows = engine.rows(len(nodes))
    engine.train(Job(1, first, nodes), rows)
    return rows.copy()
