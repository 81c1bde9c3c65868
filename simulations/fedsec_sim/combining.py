"""The plan's own combination, with chance that follows from the plan's seed."""

import numpy as np

from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.combination import Combination, Combined, Weighted
from fedsec.flower.publishing import Trial
from fedsec.flower.robust import RootUpdate
from fedsec.flower.strategy import Matrix, Mean
from fedsec.flower.table import combination
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.vectors import Arrays, Vector
from fedsec_sim.chance import NOISE, RULE, generator
from fedsec_sim.collecting import Turn, rows_of
from fedsec_sim.defences import keystream


class Seeded:
    """See `fedsec.flower.combination.Combination`.

    Args:
        plan: Says what is made of the rows.
        instead: What is made of them instead; None: what the plan says.
        root: Makes the update that a rule trusts, where the plan's trusts one.
    """

    def __init__(
        self,
        plan: FederationPlan,
        instead: Combination | None = None,
        root: RootUpdate | None = None,
    ) -> None:
        self._seed = plan.learning[1].seed
        self._turn = (0, 0)
        self._memory: Arrays = {}
        private = plan.privacy is not None and plan.privacy.model == "central"
        self._inner = instead or combination(
            plan,
            self._chance,
            Trial(terms(plan)) if private else None,
            keystream(self._seed, NOISE) if private else None,
            root,
        )
        self._private = private

    @property
    def is_mean(self) -> bool:
        """Whether nothing but the weighted mean is made of the rows."""
        return self._inner == Weighted(Mean())

    def __call__(self, attempt: Attempt, collected: Collected, memory: Arrays) -> Combined:
        """See `Combination`."""
        self._turn = (attempt.round, attempt.number)
        made = self._inner(attempt, collected, memory)
        self._memory = made.memory
        return made

    def trial(self, rows: Matrix, turn: Turn) -> Vector:
        """Returns what would be made of `rows` in this turn, for whoever tries the rule out.

        Raises:
            ConfigError: A trial would be a release: noise cannot be tried out.
        """
        if self._private:
            raise ConfigError(
                "adversaries cannot try a rule out under central privacy; take an attack that "
                "needs no rule"
            )
        self._turn = (turn.round, turn.attempt)
        attempt, collected = rows_of(rows, turn)
        return self._inner(attempt, collected, self._memory).vector

    def _chance(self) -> np.random.Generator:
        return generator(self._seed, RULE, *self._turn)
