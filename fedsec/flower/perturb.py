"""Local privacy: what a node does to its update before anything leaves it.

Source: Kasiviswanathan, Lee, Nissim, Raskhodnikova, Smith, "What Can We Learn Privately?", SIAM J.
Comput. 2011 (the model). Balle, Wang, ICML 2018 (the calibration of the noise: analytic).
"""

from dataclasses import dataclass

import numpy as np

from fedsec.errors import ConfigError
from fedsec.plan import Privacy
from fedsec.privacy.clipping import clip_factors
from fedsec.privacy.gaussian import GaussianMechanism
from fedsec.privacy.keystream import Keystream
from fedsec.vectors import Vector, norm


@dataclass(frozen=True)
class Perturb:
    """Clips an update in the L2 norm and adds noise that hides which update it was.

    Any two updates are neighbours, so they are at most ``2 clip`` apart. Each call is a release:
    whoever repeats a round sends the same bytes again.

    Args:
        clip: Largest L2 norm of an update, > 0.
        noise_multiplier: Standard deviation of the noise over ``2 clip``, > 0.
    """

    clip: float
    noise_multiplier: float

    @classmethod
    def of(cls, privacy: Privacy) -> "Perturb":
        """Returns what a plan with ``privacy.model = "local"`` asks for."""
        return cls(privacy.clip, privacy.noise_multiplier)

    @property
    def mechanism(self) -> GaussianMechanism:
        """The noise, and its price."""
        return GaussianMechanism(2 * self.clip, self.noise_multiplier)

    def __call__(self, update: Vector, source: Keystream) -> Vector:
        """Returns `update` (d,), clipped and noised.

        Args:
            update: Of this node, in one round.
            source: Of the noise: a new `Keystream()`, except in simulations.

        Raises:
            ConfigError: The update is not finite: nothing may be sent.
        """
        length = norm(update)
        factor = clip_factors(np.array([length]), self.clip)[0]
        if factor == 0:
            raise ConfigError("the update is not finite; nothing is sent")
        return self.mechanism.release(update.astype(np.float64) * factor, source)
