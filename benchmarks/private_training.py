"""A step of DP-SGD with exact noise on a grid beside Opacus' own optimiser, on one node.

The same model, batch and clip. Opacus' optimiser is given the gradient of each example; ours too,
but of a dense layer its factors, from which ghost clipping starts, too. Theirs adds floating-point
noise from torch's generator, which is neither exact nor unpredictable.

    python benchmarks/private_training.py [--quick] [--json FILE]
"""

import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

import torch
from common import Result, arguments, compare, publish
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from fedsec.privacy.keystream import Keystream
from fedsec.tasks.digits import Digits
from fedsec.tasks.example_gradients import ExampleGradients, backward
from fedsec.tasks.private_training import GridOptimizer

CLIP, MULTIPLIER, RATE = 1.0, 1.0, 0.1
PEER = f"opacus {version('opacus')} DPOptimizer"


def stepping(
    model: nn.Module, inputs: Tensor, targets: Tensor, optimizer: DPOptimizer
) -> Callable[[], None]:
    """Returns a step on one batch."""

    def step() -> None:
        optimizer.zero_grad()
        optimizer.examples = len(inputs)
        backward(nn.functional.cross_entropy(model(inputs), targets))
        optimizer.step()

    return step


def ours(model: nn.Module, batch: int) -> DPOptimizer:
    inner = torch.optim.SGD(model.parameters(), RATE)
    return GridOptimizer(
        inner, noise_multiplier=MULTIPLIER, clip=CLIP, batch_size=batch, source=Keystream()
    )


def theirs(model: nn.Module, batch: int) -> DPOptimizer:
    inner = torch.optim.SGD(model.parameters(), RATE)
    return DPOptimizer(
        inner, noise_multiplier=MULTIPLIER, max_grad_norm=CLIP, expected_batch_size=batch
    )


def seconds(step: Callable[[], None], count: int) -> float:
    """Returns processor seconds of one step."""
    started = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - started) / count


def wide(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def results(*, quick: bool) -> Iterator[Result]:
    """Yields every case."""
    runs, count = (3, 3) if quick else (9, 10)
    cases: dict[str, Callable[[], nn.Module]] = {
        "digits cnn d=10026": lambda: Digits().make_model({"model": "cnn"}, 1),
        "mlp d=75010": lambda: wide(1000),
        "mlp d=750010": lambda: wide(10_000),
    }
    for name, make in cases.items():
        for batch in (32, 128):
            inputs, targets = torch.randn(batch, 1, 8, 8), torch.randint(0, 10, (batch,))
            steps = []
            for view, optimizer in ((ExampleGradients, ours), (GradSampleModule, theirs)):
                model = view(make())
                steps.append(stepping(model, inputs, targets, optimizer(model, batch)))
            for step in steps:
                step()
            pairs = [[seconds(step, count) for step in steps] for _ in range(runs)]
            yield compare(
                f"DP-SGD step {name} batch={batch}",
                "cpu_time",
                "s",
                ours=[pair[0] for pair in pairs],
                peer=[pair[1] for pair in pairs],
                peer_name=PEER,
            )


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    publish(results(quick=options.quick), options.json)


if __name__ == "__main__":
    main()
