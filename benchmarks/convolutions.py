"""A step of LeNet on 20 images, one thread: written out, and what else there is.

Written out is the backward pass of `fedsec_sim.engines.convolved`. The peers are torch's autograd
as the loop of simulations has it, and what is said to make it faster: channels last, one flat
vector of weights, torch.compile (needs a C++ compiler). Processor time, in turn; each step takes
images of its own.
"""

import sys
import time
from collections.abc import Callable
from typing import TypeAlias

import common
import torch
from torch import Tensor, nn

from fedsec.tasks.optimizers import Sgd
from fedsec_sim.engines.stacked import Batch, gradients_of
from fedsec_sim.workloads.images import lenet, made_images, made_task

IMAGES, RATE = 20, 0.05
POOL = made_images(0, 50 * IMAGES)
Step: TypeAlias = Callable[[Tensor], None]


def written_out() -> Step:
    """Returns the step that simulations take."""
    model = lenet()
    gradients = gradients_of(model, made_task, POOL)
    weights = [torch.zeros(1, *shape) for shape in gradients.shapes]
    for whole, weight in zip(weights, model.parameters(), strict=True):
        whole[(0, *map(slice, weight.shape))] = weight.detach()
    optimizer, counts = Sgd(weights, RATE, 0.0), torch.tensor([IMAGES])

    def step(rows: Tensor) -> None:
        _, found = gradients(weights, Batch(rows[None], counts, full=True))
        optimizer.step(found)

    return step


def autograd(model: nn.Module, inputs: Tensor, call: nn.Module | None = None) -> Step:
    """Returns the step of the loop; `call` stands in for the model's forward pass."""
    weights = list(model.parameters())
    optimizer = Sgd(weights, RATE, 0.0)
    forward = call or model

    def step(rows: Tensor) -> None:
        loss = made_task.loss(forward(inputs[rows]), POOL.targets[rows])
        optimizer.step(torch.autograd.grad(loss, weights))

    return step


def channels_last() -> Step:
    """Returns the loop's step with images and weights in the order that vector units like."""
    model = lenet().to(memory_format=torch.channels_last)
    return autograd(model, POOL.inputs.to(memory_format=torch.channels_last))


def flat() -> Step:
    """Returns the loop's step with all weights moved at once."""
    model = lenet()
    whole = nn.utils.parameters_to_vector(model.parameters()).detach()
    nn.utils.vector_to_parameters(whole, model.parameters())  # views of it from here on
    weights = list(model.parameters())

    def step(rows: Tensor) -> None:
        loss = made_task.loss(model(POOL.inputs[rows]), POOL.targets[rows])
        found = torch.autograd.grad(loss, weights)
        whole.sub_(torch.cat([each.flatten() for each in found]), alpha=RATE)

    return step


def compiled() -> Step:
    """Returns the loop's step with a compiled model."""
    model = lenet()
    return autograd(model, POOL.inputs, torch.compile(model))


def measure(steps: dict[str, Step], runs: int) -> dict[str, list[float]]:
    """Returns seconds of each step, taken in turn."""
    batches = torch.randperm(len(POOL), generator=torch.Generator().manual_seed(1)).split(IMAGES)
    found: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, step in steps.items():
            begun = time.process_time()
            for batch in batches:  # so many that what others left in the caches does not count
                step(batch)
            if run:  # the first one warms up
                found[name].append((time.process_time() - begun) / len(batches))
    return found


def main() -> None:
    """Measures, prints and writes."""
    asked = common.arguments(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    steps = {
        "written out": written_out(),
        "autograd": autograd(lenet(), POOL.inputs),
        "autograd, channels last": channels_last(),
        "autograd, one flat vector": flat(),
        "torch.compile": compiled(),
    }
    try:
        steps["torch.compile"](torch.arange(IMAGES))
    except Exception as error:  # noqa: BLE001 - without a compiler it says so in many ways
        print(f"torch.compile does not work here: {type(error).__name__}", file=sys.stderr)
        del steps["torch.compile"]
    found = measure(steps, 5 if asked.quick else 25)
    ours = found.pop("written out")
    case = f"a step of LeNet on {IMAGES} images"
    common.publish(
        [
            common.compare(case, "cpu_time", "s", ours=ours, peer=theirs, peer_name=name)
            for name, theirs in found.items()
        ],
        asked.json,
    )


if __name__ == "__main__":
    main()
