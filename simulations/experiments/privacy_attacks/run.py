"""What each defence buys against a curious coordinator: one picture, and its numbers.

    python simulations/experiments/privacy_attacks/run.py [--quick] [--out DIRECTORY]

Twenty nodes hold scikit-learn's digits. The coordinator sees one vector: a node's update, or the
sum of several. It attacks the first node in two ways:

inversion    each node took one step of gradient descent on four images; the coordinator looks for
             images with that gradient. Measured: peak signal-to-noise ratio of the victim's images.
membership   each node trained for fifty epochs on its 57 images; the coordinator adds what it saw
             to the model and looks at losses. Measured: area under the curve, victim's training
             images against others that nobody trained on.

Clipping alone, noise for one release at epsilon (delta 1e-5, zero-out adjacency), sums of 5 and 20
nodes, and a sum with noise are compared. Noise is drawn from a seed: this is a simulation.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from fedsec import __version__
from fedsec.privacy.calibration import calibrate
from fedsec.privacy.events import Gaussian, Price
from fedsec.tasks.digits import Digits
from fedsec.tasks.task import Examples
from fedsec.tasks.training import LocalTraining
from fedsec_sim.attacks.inversion import GradientInversion, likeness
from fedsec_sim.attacks.membership import infer, losses

NODES, IMAGES, EPOCHS, DELTA = 20, 4, 50, 1e-5
SHAPE = (1, 8, 8)
LABEL = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
TASK = Digits()


@dataclass(frozen=True)
class Defence:
    """What stands between the nodes and the coordinator.

    Attributes:
        name: For people.
        members: How many updates are added before the coordinator sees anything.
        epsilon: Of the noise on that sum; None: no noise.
        clip: Whether updates are clipped to the median norm; noise needs it.
    """

    name: str
    members: int = 1
    epsilon: float | None = None
    clip: bool = False

    def seen(self, updates: Tensor, seed: int) -> Tensor:
        """Returns the mean of what is added up, as the coordinator sees it (d,)."""
        norms = updates.norm(dim=1)
        bound = float(norms.median())
        rows = updates * (bound / norms).clamp(max=1)[:, None] if self.clip else updates
        total = rows[: self.members].sum(dim=0)
        if self.epsilon is not None:
            std = bound * multiplier(self.epsilon)
            total = total + std * torch.randn(
                len(total), generator=torch.Generator().manual_seed(seed)
            )
        return total / self.members


def multiplier(epsilon: float) -> float:
    """Returns the noise multiplier of one release at `epsilon`."""
    return calibrate(lambda z: Price(Gaussian(z)), epsilon=epsilon, delta=DELTA)


DEFENCES = (
    Defence("none: one update"),
    Defence("clipping", clip=True),
    Defence("noise, epsilon 50", epsilon=50, clip=True),
    Defence("noise, epsilon 8", epsilon=8, clip=True),
    Defence("sum of a group of 5", members=5, clip=True),
    Defence("sum of 20", members=NODES, clip=True),
    Defence("sum of 20, epsilon 8", members=NODES, epsilon=8, clip=True),
)


@dataclass(frozen=True)
class Outcome:
    """Of one defence: medians over seeds."""

    defence: str
    psnr_db: float
    distance: float
    auc: float
    advantage: float


def model_of(seed: int) -> torch.nn.Module:
    """Returns the model that is sent."""
    return TASK.make_model({"model": "mlp"}, seed)


def flat(values: Sequence[Tensor]) -> Tensor:
    """Returns tensors as one vector."""
    return torch.cat([value.detach().reshape(-1) for value in values])


def parts() -> list[Examples]:
    """Returns each node's training examples."""
    settings = {"partitions": NODES, "split": "iid"}
    return [TASK.load({**settings, "partition": node}).train for node in range(NODES)]


def one_step(model: torch.nn.Module, data: Examples) -> Tensor:
    """Returns minus the gradient on `data` (d,)."""
    loss = TASK.loss(model(data.inputs), data.targets)
    return -flat(torch.autograd.grad(loss, list(model.parameters())))


def many_epochs(seed: int, data: Examples) -> Tensor:
    """Returns what `EPOCHS` of training change (d,)."""
    model = model_of(seed)
    before = flat(list(model.parameters()))
    LocalTraining(epochs=EPOCHS, batch_size=16, learning_rate=0.1, momentum=0.9)(
        TASK, model, data, seed
    )
    return flat(list(model.parameters())) - before


def invert(
    defence: Defence, shares: Sequence[Examples], seed: int, steps: int
) -> tuple[float, float, Tensor]:
    """Returns likeness of the victim's images, the distance, and the reconstructed images."""
    model = model_of(seed)
    used = [share.take(torch.arange(IMAGES)) for share in shares]
    seen = defence.seen(torch.stack([one_step(model, data) for data in used]), seed)
    labels = torch.cat([data.targets for data in used[: defence.members]])
    truth = torch.cat([data.inputs for data in used[: defence.members]])
    search = GradientInversion(steps=steps, restarts=1)
    made = search(TASK, model, seen, labels, SHAPE, seed=seed)
    every = likeness(made.images, truth)
    return float(np.median(every[:IMAGES])), made.distance, made.images[:IMAGES]


def membership(defence: Defence, updates: Tensor, shares: Sequence[Examples], seed: int) -> object:
    """Returns how well the victim's training examples are told from others."""
    model = model_of(seed)
    moved = flat(list(model.parameters())) + defence.seen(updates, seed)
    torch.nn.utils.vector_to_parameters(moved, model.parameters())
    others = TASK.central_test()
    if others is None:
        raise RuntimeError("digits have a central test set")
    return infer(losses(TASK, model, shares[0]), losses(TASK, model, others))


def measure(seeds: Sequence[int], steps: int, show: Callable[[str], None]) -> list[Outcome]:
    """Returns an outcome for each defence."""
    shares = parts()
    trained = {s: torch.stack([many_epochs(s, share) for share in shares]) for s in seeds}
    outcomes = []
    for defence in DEFENCES:
        inverted = [invert(defence, shares, seed, steps)[:2] for seed in seeds]
        inferred = [membership(defence, trained[seed], shares, seed) for seed in seeds]
        psnr, distance = np.median(np.array(inverted), axis=0)
        auc, advantage = np.median([[i.auc, i.advantage] for i in inferred], axis=0)
        outcomes.append(
            Outcome(
                defence.name, round(psnr, 2), round(distance, 4), round(auc, 3), round(advantage, 3)
            )
        )
        show(f"{defence.name:24}  {psnr:5.1f} dB   AUC {auc:.3f}   advantage {advantage:.3f}")
    return outcomes


def guess() -> float:
    """Returns the likeness of the mean image to the victim's images: what needs no attack."""
    shares = parts()
    mean = torch.cat([share.inputs for share in shares]).mean(dim=0, keepdim=True)
    truth = shares[0].take(torch.arange(IMAGES)).inputs
    return float(np.median(likeness(mean.expand_as(truth), truth)))


def picture(outcomes: Sequence[Outcome], pictures: Sequence[Tensor], baseline: float) -> Figure:
    """Returns bars for both attacks, and the reconstructed images under each defence."""
    figure = Figure(figsize=(10.5, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1), height_ratios=(1.25, 1))
    names = [outcome.defence for outcome in outcomes]
    bars = (
        ("inversion: likeness in dB (60 = exact)", [o.psnr_db for o in outcomes], baseline, 0.0),
        ("membership: area under the curve", [o.auc for o in outcomes], 0.5, 0.4),
    )
    for place, (title, values, guessing, left) in enumerate(bars):
        axes = figure.add_subplot(grid[0, place])
        axes.barh(
            range(len(values)), [v - left for v in values], left=left, color="0.75", edgecolor="0"
        )
        axes.axvline(guessing, color="0", linestyle="--", linewidth=1, label="guessing")
        for y, value in enumerate(values):
            axes.text(value, y, f" {value:.3g}", va="center", fontsize=8, bbox=LABEL)
        axes.set_yticks(range(len(values)), names if place == 0 else [""] * len(values), fontsize=9)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10)
        axes.margins(x=0.15)
        axes.legend(fontsize=8, loc="lower right")
    strip = grid[1, :].subgridspec(IMAGES, len(pictures))
    for column, images in enumerate(pictures):
        for row in range(IMAGES):
            axes = figure.add_subplot(strip[row, column])
            axes.imshow(images[row, 0].numpy(), cmap="gray_r", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                title = "the victim's" if column == 0 else names[column - 1].replace(", ", ",\n")
                axes.set_title(title, fontsize=7)
    return figure


def main() -> None:
    """Runs the experiment, prints its table and writes `results.json` and `picture.png`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, fewer steps")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, steps = ([1], 300) if options.quick else ([1, 2, 3], 1000)
    outcomes = measure(seeds, steps, print)
    shares, baseline = parts(), guess()
    truth = shares[0].take(torch.arange(IMAGES)).inputs
    shown = [truth, *(invert(defence, shares, seeds[0], steps)[2] for defence in DEFENCES)]
    options.out.mkdir(parents=True, exist_ok=True)
    picture(outcomes, shown, baseline).savefig(options.out / "picture.png", dpi=110)
    written = {
        "command": "python simulations/experiments/privacy_attacks/run.py"
        + (" --quick" if options.quick else ""),
        "software": f"fedsec {__version__}, torch {torch.__version__}",
        "commit": _commit(),
        "seeds": seeds,
        "steps": steps,
        "guessing_db": round(baseline, 2),
        "noise_multipliers": {str(d.epsilon): multiplier(d.epsilon) for d in DEFENCES if d.epsilon},
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
    (options.out / "results.json").write_text(json.dumps(written, indent=1) + "\n")
    print(f"guessing the mean image: {baseline:.1f} dB; written to {options.out}")


def _commit() -> str:
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


if __name__ == "__main__":
    main()
