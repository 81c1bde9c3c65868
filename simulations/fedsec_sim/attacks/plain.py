"""Attacks that need no knowledge of others: each adversary changes its own update.

Sources: Li, Xu, Chen, Giannakis, Ling, "RSA: Byzantine-Robust Stochastic Aggregation Methods",
AAAI 2019, section 5 (sign flip, same value). Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine
Learning with Adversaries", NeurIPS 2017, section 5 (Gaussian). Bagdasaryan, Veit, Hua, Estrin,
Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020, equation 3 (model replacement).
Fraboni, Vidal, Lorenzi, "Free-rider Attacks on Model Aggregation in Federated Learning", AISTATS
2021, section 3 (disguised free-riding).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedsec_sim.attacks.checks import at_least, finite, positive
from fedsec_sim.attacks.view import Vector, View


@dataclass(frozen=True, slots=True)
class SignFlip:
    """``-scale`` times the own update.

    Args:
        scale: > 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        positive("scale", self.scale)

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        view.write(np.float32(-self.scale) * view.own)


@dataclass(frozen=True, slots=True)
class Scaling:
    """``factor`` times the own update.

    Args:
        factor: Any finite number.
    """

    factor: float = 10.0

    def __post_init__(self) -> None:
        finite("factor", self.factor)

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        view.write(np.float32(self.factor) * view.own)


@dataclass(frozen=True, slots=True)
class Reverse:
    """The own update, turned round and made `length` long, however long it was.

    Args:
        length: L2 norm of what is sent, > 0.
    """

    length: float = 10.0

    def __post_init__(self) -> None:
        positive("length", self.length)

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        view.write(np.stack([self.turned(update) for update in view.own]))

    def turned(self, update: Vector) -> Vector:
        """Returns what is sent in place of `update` (d,)."""
        norm = float(np.linalg.norm(update))
        return update * np.float32(-self.length / norm if norm else 0.0)


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """Noise in place of an update, independent of it and from one adversary to the next.

    Args:
        std: Standard deviation of each entry, > 0; 200 in the paper.
    """

    std: float = 200.0

    def __post_init__(self) -> None:
        positive("std", self.std)

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        drawn = view.rng.standard_normal((view.f, view.rows.shape[1]), np.float32)
        view.write(np.float32(self.std) * drawn)


@dataclass(frozen=True, slots=True)
class Constant:
    """The same number in each entry.

    Args:
        value: Any finite number; 0 is the zero update.
    """

    value: float = 100.0

    def __post_init__(self) -> None:
        finite("value", self.value)

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        view.write(np.full(view.rows.shape[1], self.value, np.float32))


@dataclass(frozen=True, slots=True)
class Zero:
    """Nothing: the model that was sent comes back."""

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        view.write(np.zeros(view.rows.shape[1], np.float32))


@dataclass(frozen=True, slots=True)
class NanBomb:
    """Entries that are no numbers. One of them in a mean makes the whole model NaN.

    Args:
        value: ``"nan"``, ``"inf"`` or ``"-inf"``.
    """

    value: Literal["nan", "inf", "-inf"] = "nan"

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        view.write(np.full(view.rows.shape[1], float(self.value), np.float32))


@dataclass(frozen=True, slots=True)
class ModelReplacement:
    """The own update, made so large that the mean becomes it. Use it with a backdoor in the data.

    Each of f adversaries sends ``n / (f learning_rate)`` times its update: where honest updates
    have settled down, the mean of all, applied with `learning_rate`, is the adversaries' mean.

    Args:
        learning_rate: Of the coordinator, > 0.
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        positive("learning_rate", self.learning_rate)

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        view.write(np.float32(view.n / (view.f * self.learning_rate)) * view.own)


@dataclass(frozen=True, slots=True)
class FreeRider:
    """Noise that fades like a training node's update, without any training.

    Each entry has the standard deviation ``std * round ** -decay``. 0 is plain free-riding.

    Args:
        std: Of the first round, >= 0.
        decay: >= 0.
    """

    std: float = 1e-3
    decay: float = 1.0

    def __post_init__(self) -> None:
        at_least("std", self.std, 0)
        at_least("decay", self.decay, 0)

    def __call__(self, view: View) -> None:
        """See `Attack`."""
        drawn = view.rng.standard_normal((view.f, view.rows.shape[1]), np.float32)
        view.write(np.float32(self.std * view.round**-self.decay) * drawn)
