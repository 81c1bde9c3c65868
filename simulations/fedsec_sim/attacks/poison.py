"""Attacks through an adversary's own data: wrong labels, and triggers that open a backdoor.

Sources: Tolpegin, Truex, Gursoy, Liu, "Data Poisoning Attacks Against Federated Learning Systems",
ESORICS 2020, section 3 (pairwise label flip). Fang et al., USENIX Security 2020, section 5.1
(static label flip). Gu, Dolan-Gavitt, Garg, "BadNets", arXiv:1708.06733, 2017, section 3. Xie,
Huang, Chen, Li, "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020, section
3 (one trigger, divided among the adversaries).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedsec.errors import ConfigError
from fedsec.tasks.task import Examples

PIECES = 4  # of DBA's trigger


class Poison(Protocol):
    """What an adversary does to its training data. A frozen value; nothing given is changed."""

    def __call__(self, data: Examples, member: int, rng: np.random.Generator) -> Examples:
        """Returns what the adversary trains on instead.

        Args:
            data: Its honest examples.
            member: Which of the adversaries it is, 0..f-1.
            rng: Source of chance.

        Raises:
            ConfigError: The data are not of the kind that the attack is for.
        """
        ...


@dataclass(frozen=True, slots=True)
class LabelFlip:
    """Each label l becomes ``classes - 1 - l``.

    Args:
        classes: >= 2.
    """

    classes: int = 10

    def __post_init__(self) -> None:
        if self.classes < 2:  # noqa: PLR2004 - one class cannot be flipped
            raise ConfigError(f"classes must be >= 2, got {self.classes}")

    def __call__(self, data: Examples, member: int, rng: np.random.Generator) -> Examples:
        """See `Poison`."""
        del member, rng
        largest = int(_labels(data).max()) if len(data) else 0
        if largest >= self.classes:
            raise ConfigError(f"a label is {largest}, but classes = {self.classes}")
        return Examples(data.inputs, self.classes - 1 - data.targets)


@dataclass(frozen=True, slots=True)
class PairFlip:
    """Examples of the class `source` are labelled `target`; the others stay.

    Args:
        source: Class to hide.
        target: What it is called instead.
    """

    source: int
    target: int

    def __post_init__(self) -> None:
        if self.source == self.target or min(self.source, self.target) < 0:
            raise ConfigError(
                f"source and target must be two classes >= 0, got {self.source} and {self.target}"
            )

    def __call__(self, data: Examples, member: int, rng: np.random.Generator) -> Examples:
        """See `Poison`."""
        del member, rng
        labels = _labels(data)
        return Examples(data.inputs, torch.where(labels == self.source, self.target, labels))


@dataclass(frozen=True, slots=True)
class BadNets:
    """A bright square in the lower right corner means the class `target`.

    Args:
        target: Class that marked images are to be taken for.
        size: Side of the square in pixels, >= 1.
        share: Of an adversary's examples that are marked and relabelled, in (0, 1].
        value: Brightness of the square, in the data's unit.
        pieces: 1: every adversary marks with the whole square. 4 (DBA): adversary i marks with
            quarter ``i mod 4`` of it only, and the attack is measured with the whole one.
    """

    target: int = 0
    size: int = 2
    share: float = 0.5
    value: float = 1.0
    pieces: int = 1

    def __post_init__(self) -> None:
        if self.target < 0 or self.size < 1 or not 0 < self.share <= 1:
            raise ConfigError(
                "target must be >= 0, size >= 1 and share in (0, 1], got "
                f"{self.target}, {self.size} and {self.share}"
            )
        if self.pieces not in {1, PIECES} or (self.pieces == PIECES and self.size < 2):  # noqa: PLR2004
            raise ConfigError(
                f"pieces must be 1, or 4 with size >= 2, got {self.pieces} with size {self.size}"
            )

    def __call__(self, data: Examples, member: int, rng: np.random.Generator) -> Examples:
        """See `Poison`."""
        count = max(1, round(self.share * len(data))) if len(data) else 0
        rows = torch.from_numpy(rng.permutation(len(data))[:count].copy())
        inputs, targets = data.inputs.clone(), _labels(data).clone()
        piece = None if self.pieces == 1 else member % PIECES
        inputs[rows] = self._marked(data.inputs[rows], piece)
        targets[rows] = self.target
        return Examples(inputs, targets)

    def mark(self, inputs: Tensor) -> Tensor:
        """Returns `inputs` (n, ..., height, width) with the whole trigger; `inputs` stays.

        Raises:
            ConfigError: These are no images of at least the trigger's size.
        """
        return self._marked(inputs, None)

    def _marked(self, inputs: Tensor, piece: int | None) -> Tensor:
        if inputs.dim() < 3 or min(inputs.shape[-2:]) < self.size:  # noqa: PLR2004 - n, h, w
            raise ConfigError(
                f"a trigger of {self.size} x {self.size} pixels needs images (n, ..., height, "
                f"width), got {tuple(inputs.shape)}"
            )
        high, wide = inputs.shape[-2:]
        top, left, bottom, right = high - self.size, wide - self.size, high, wide
        if piece is not None:
            half = self.size // 2
            top, bottom = (top, top + half) if piece < 2 else (top + half, bottom)  # noqa: PLR2004
            left, right = (left, left + half) if piece % 2 == 0 else (left + half, right)
        marked = inputs.clone()
        marked[..., top:bottom, left:right] = self.value
        return marked


def success_rate(model: torch.nn.Module, data: Examples, backdoor: BadNets) -> float:
    """Returns the share of marked examples of other classes that `model` takes for the target.

    Args:
        model: Gives one score per class (n, classes); left as it is.
        data: Clean test examples.
        backdoor: Whose trigger is tried.

    Raises:
        ConfigError: There is no example of another class.
    """
    others = data.take(torch.nonzero(_labels(data) != backdoor.target).flatten())
    if len(others) == 0:
        raise ConfigError(f"all examples are of class {backdoor.target}, the backdoor's target")
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            found = model(backdoor.mark(others.inputs)).argmax(dim=1)
    finally:
        model.train(was_training)
    return float((found == backdoor.target).double().mean())


def _labels(data: Examples) -> Tensor:
    targets = data.targets
    if targets.dim() != 1 or targets.is_floating_point():
        raise ConfigError(
            f"labels must be integers (n,), got {targets.dtype} {tuple(targets.shape)}"
        )
    return targets
