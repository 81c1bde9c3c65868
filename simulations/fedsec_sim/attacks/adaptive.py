"""Attacks that try themselves out on the coordinator's own rule before they answer.

Source of the idea: Shejwalkar, Houmansadr, NDSS 2021, algorithm 1; for ALIE and IPM as in Allouah,
Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Fixing by Mixing", AISTATS 2023, section 6: the
factor that moves the aggregate furthest from the honest mean, found by line search.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedsec.errors import ConfigError
from fedsec_sim.attacks.colluding import Alie, Ipm
from fedsec_sim.attacks.view import View

EVALUATIONS = 16


@dataclass(frozen=True, slots=True)
class Optimised:
    """IPM or ALIE with the factor that hurts most.

    Maximises ``|| rule(rows) - mean of the honest rows ||`` over the factor, by `maximise`. Knows
    everyone's updates and the rule; costs as many calls of the rule as `evaluations` says.

    Args:
        base: ``Ipm()`` or ``Alie()``; its own factor is the first that is tried.
        evaluations: How often the rule may be tried, >= 1.
    """

    base: Ipm | Alie
    evaluations: int = EVALUATIONS

    def __post_init__(self) -> None:
        if self.evaluations < 1:
            raise ConfigError(f"evaluations must be >= 1, got {self.evaluations}")

    def __call__(self, view: View) -> None:
        """See `Attack`.

        Raises:
            ConfigError: The view has no rule to try.
        """
        rule = view.rule
        if rule is None:
            raise ConfigError("an optimised attack needs the coordinator's rule in its view")
        mean = view.honest.mean(axis=0)
        low, high = self.base.row(view, 0.0), self.base.row(view, 1.0)
        slope = high - low  # both bases are affine in the factor

        def moved(factor: float) -> float:
            view.write(low + np.float32(factor) * slope)
            return float(np.linalg.norm(rule(view.rows) - mean))

        first = self.base.epsilon if isinstance(self.base, Ipm) else self.base.z or 1.0
        best = maximise(moved, start=first, evaluations=self.evaluations)
        view.write(low + np.float32(best) * slope)


def maximise(objective: Callable[[float], float], *, start: float, evaluations: int) -> float:
    """Returns the best of `evaluations` numbers >= 0: doubles while it helps, then halves its step.

    Finds the largest value of a function that rises and then falls; of another, some large one.

    Args:
        objective: What is to be large.
        start: The first number tried, > 0.
        evaluations: How many are tried, >= 1.

    >>> round(maximise(lambda x: -(x - 5.0) ** 2, start=1.0, evaluations=24), 2)
    5.0
    """
    best, largest, step, left = start, objective(start), start, evaluations - 1
    while left > 0:
        left -= 1
        value = objective(best + step)
        if not value > largest:
            break
        best, largest, step = best + step, value, 2 * step
    while left > 0:
        step /= 2
        for tried in (best + step, max(best - step, 0.0)):
            if left == 0:
                break
            left -= 1
            value = objective(tried)
            if value > largest:
                best, largest = tried, value
                break
    return best
