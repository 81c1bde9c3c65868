"""Update and figures of a node as one vector, so that one noise covers both.

    [ update, clipped to c | weight * figures ]        weight = 2 u c / (m sqrt(k))

u and m are the noise multipliers of the updates and of the k figures, whose encoded L2 norm is
``sqrt(k) / 2`` at most. Noise of standard deviation ``u c`` in every entry is u times what an
update can change, and m times what the figures can. Both together have an L2 norm of at most
``c sqrt(1 + (u/m)^2)``, over which the noise has the multiplier ``(u^-2 + m^-2)^(-1/2)``: that of
the round (`fedsec.privacy.gaussian.remaining`). So a sum that carries one noise for all of its
words tells figures at the round's own price; rotation and rounding see one vector.
"""

import math
from dataclasses import dataclass

import numpy as np

from fedsec.privacy.clipping import clip_factor
from fedsec.privacy.figures import Figures
from fedsec.vectors import Vector, norm


@dataclass(frozen=True)
class Joined:
    """Makes the vector.

    Args:
        figures: That stand behind the update.
        clip: c, largest L2 norm of an update, > 0.
        multiplier: u, of the noise on updates.

    >>> joined = Joined(Figures((("accuracy", 0.0, 1.0),), 3.0), clip=1.0, multiplier=1.5)
    >>> joined(np.array([3.0, 4.0, 0.5], np.float32))  # far too long, and the best accuracy
    array([0.6, 0.8, 0.5], dtype=float32)
    >>> round(joined.norm, 3)
    1.118
    """

    figures: Figures
    clip: float
    multiplier: float

    @property
    def weight(self) -> float:
        """What encoded figures are multiplied by."""
        noise = self.multiplier * self.clip
        return 2 * noise / (self.figures.noise_multiplier * math.sqrt(self.figures.count))

    @property
    def norm(self) -> float:
        """The largest L2 norm of the whole vector."""
        return self.clip * math.hypot(1, self.multiplier / self.figures.noise_multiplier)

    def __call__(self, vector: Vector) -> Vector:
        """Returns an update (d,) and the encoded figures (k,) behind it, clipped and weighted.

        What is not finite stays so, and is refused where the vector becomes integers.
        """
        size = vector.size - self.figures.count
        update, shares = vector[:size], vector[size:]
        factor = clip_factor(norm(update), self.clip)
        weighted = self.figures.clamp(shares) * self.weight
        return np.append(update * np.float32(factor), weighted.astype(np.float32))
