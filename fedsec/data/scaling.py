"""Inputs moved and stretched: by constants that the plan gives, or by the site's own figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scaling:
    """``(x - center) / scale``, column by column (of images: channel by channel).

    Args:
        center: Taken away (c,).
        scale: Divided by (c,), > 0.

    >>> Scaling((1.0,), (2.0,))(np.array([[1.0], [5.0]], np.float32))
    array([[0.],
           [2.]], dtype=float32)
    """

    center: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, inputs: NDArray[np.float32]) -> "Scaling":
        """Returns what gives `inputs` (n, c, ...) mean 0 and deviation 1; a constant becomes 0."""
        axes = (0, *range(2, inputs.ndim))
        deviation = inputs.std(axis=axes, dtype=np.float64)
        center = inputs.mean(axis=axes, dtype=np.float64)
        return cls(_floats(center), _floats(np.where(deviation > 0, deviation, 1.0)))

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns `inputs` (n, c, ...), scaled."""
        shape = (1, -1, *(1 for _ in inputs.shape[2:]))
        center = np.asarray(self.center, np.float32).reshape(shape)
        scale = np.asarray(self.scale, np.float32).reshape(shape)
        return (inputs - center) / scale


def _floats(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
