"""Local privacy: what a node does to its update before anything leaves it.

Source: Kasiviswanathan, Lee, Nissim, Raskhodnikova, Smith, "What Can We Learn Privately?", SIAM J.
Comput. 2011 (the model). Balle, Wang, ICML 2018 (the calibration of the noise: analytic).
"""

from dataclasses import dataclass

import numpy as np

from fedsec.errors import ConfigError
from fedsec.flower.noised_figures import cut
from fedsec.plan import Privacy
from fedsec.plan.figures import figures_of
from fedsec.privacy.clipping import clip_factor
from fedsec.privacy.figures import Figures
from fedsec.privacy.gaussian import GaussianMechanism, remaining
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
        figures: That stand behind the update, and are released with noise of their own; None where
            they are withheld.
    """

    clip: float
    noise_multiplier: float
    figures: Figures | None = None

    @classmethod
    def of(cls, privacy: Privacy) -> "Perturb":
        """Returns what a plan with ``privacy.model = "local"`` asks for."""
        figures, whole = figures_of(privacy), privacy.noise_multiplier
        left = whole if figures is None else remaining(whole, figures.noise_multiplier)
        return cls(privacy.clip, left, figures)

    @property
    def mechanism(self) -> GaussianMechanism:
        """The noise, and its price."""
        return GaussianMechanism(2 * self.clip, self.noise_multiplier)

    def __call__(self, update: Vector, source: Keystream) -> Vector:
        """Returns `update`, clipped and noised.

        Args:
            update: Of this node, in one round (d,); with encoded figures behind it (d + k,).
            source: Of the noise: a new `Keystream()`, except in simulations.

        Raises:
            ConfigError: The update is not finite: nothing may be sent.
        """
        update, shares = cut(update, self.figures)
        factor = clip_factor(norm(update), self.clip)
        if factor == 0:
            raise ConfigError("the update is not finite; nothing is sent")
        noised = self.mechanism.release(update.astype(np.float64) * factor, source)
        if self.figures is None:
            return noised
        return np.append(noised, self.figures.release(shares, 1, source, replaces=True))
