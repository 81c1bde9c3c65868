"""A plan's privacy in a simulation: the deployed arithmetic, with counted chance.

    rows --> local noise or figures --> attack --> secure sums --> rule --> central noise

Secure sums: `fedsec_sim.secret_sums`.

Whoever knows the seed can take every noise off again: this protects nobody, and is not meant to.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fedsec.errors import ConfigError
from fedsec.flower.draws import Draw, Poisson
from fedsec.flower.perturb import Perturb
from fedsec.flower.reporting import Json
from fedsec.flower.strategy import Matrix
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.joined import Joined
from fedsec.privacy.keystream import Keystream
from fedsec_sim.chance import COHORT, NOISE, generator
from fedsec_sim.collecting import Turn

KEY_BYTES = 32
COARSE = 1e-3  # grid of privacy losses: fast, and only ever pessimistic


def keystream(seed: int, purpose: int, *numbers: int) -> Keystream:
    """Returns a stream that follows from its numbers."""
    return Keystream(generator(seed, purpose, *numbers).bytes(KEY_BYTES))


def drawn_openly(draw: Draw, seed: int) -> Draw:
    """Returns a draw that follows from the seed, where a deployed one is secret."""
    if isinstance(draw, Poisson):
        return replace(draw, key=generator(seed, COHORT).bytes(KEY_BYTES))
    return draw


class LocalNoise:
    """What nodes do to their updates under local privacy; see `fedsec_sim.collecting.Meddler`.

    Args:
        plan: With ``privacy.model = "local"``.
    """

    def __init__(self, plan: FederationPlan) -> None:
        if plan.privacy is None or plan.privacy.model != "local":
            raise ConfigError('the plan has no privacy.model = "local"')
        self._perturb = Perturb.of(plan.privacy)
        self._seed = plan.learning[1].seed

    def __call__(self, rows: Matrix, turn: Turn) -> None:
        """Clips and noises every finite row."""
        for place, node in enumerate(turn.nodes):
            if np.isfinite(rows[place]).all():
                source = keystream(self._seed, NOISE, turn.round, node)
                rows[place] = self._perturb(rows[place], source)


class Joining:
    """How figures stand behind updates in sums that nodes noise; see `LocalNoise` of the others.

    Args:
        joined: Of the plan.
    """

    def __init__(self, joined: Joined) -> None:
        self._joined = joined

    def __call__(self, rows: Matrix, turn: Turn) -> None:
        """Clips and weights every row."""
        del turn
        for row in rows:
            row[:] = self._joined(row)


def epsilon(plan: FederationPlan) -> Callable[[int], Mapping[str, Json]]:
    """Returns what a round's report says of the privacy that is spent by then, if there is any."""
    if plan.privacy is None:
        return lambda _rounds: {}
    from fedsec.privacy.accounting import spent  # noqa: PLC0415 - takes seconds to import

    price, delta = terms(plan).price, plan.privacy.delta

    def figures(rounds: int) -> Mapping[str, Json]:
        return {"epsilon": round(spent([price.times(rounds)], delta, interval=COARSE), 4)}

    return figures
