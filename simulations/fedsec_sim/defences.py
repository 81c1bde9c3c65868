"""A plan's privacy and secure sum in a simulation: the deployed arithmetic, with counted chance.

    rows --> local noise --> attack --> secure sum --> rule --> central noise

Whoever knows the seed can take every noise off again: this protects nobody, and is not meant to.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fedsec.encoding import word_type
from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt, Collected, Collection, Post
from fedsec.flower.draws import Draw, Poisson
from fedsec.flower.messages import Metrics, read_heading
from fedsec.flower.perturb import Perturb
from fedsec.flower.reporting import Json
from fedsec.flower.strategy import Matrix
from fedsec.flower.sums import sum_form
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.keystream import Keystream
from fedsec_sim.chance import CODE, COHORT, NOISE, generator
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


class SecretSum:
    """Rows to the one sum that a secure aggregation lets out, without its messages.

    The words that nodes would send are made as they make them, added up as the protocol does, and
    read as the coordinator reads them; what a mask hides, nobody sees here either.

    Args:
        plan: With secure aggregation.
        size: d.
        inner: Collects the rows.
    """

    def __init__(self, plan: FederationPlan, size: int, inner: Collection) -> None:
        self._plan = plan
        self._size = size
        self._inner = inner
        self._seed = plan.learning[1].seed

    def __call__(self, post: Post, attempt: Attempt) -> Collected:
        """See `Collection`."""
        found = self._inner(post, attempt)
        if not len(found.rows):
            return found
        form = sum_form(self._plan, self._size, read_heading(attempt.content))
        total = np.zeros(form.length, word_type(form.encoding.bits))
        for row, (node,), metrics in zip(found.rows, found.groups, found.metrics, strict=True):
            source = keystream(self._seed, CODE, attempt.round, attempt.number, node)
            total += form.encode(row, metrics, source)
        summed = form.decode(total, len(found.rows))
        told: tuple[Metrics, ...] = ()
        if summed.figures:
            told = (Metrics(summed.total or len(found.rows), summed.figures),)
        return replace(
            found,
            rows=summed.mean[np.newaxis],
            groups=(found.nodes,),
            weights=np.array([summed.weight]),
            metrics=told,
        )


def epsilon(plan: FederationPlan) -> Callable[[int], Mapping[str, Json]]:
    """Returns what a round's report says of the privacy that is spent by then, if there is any."""
    if plan.privacy is None:
        return lambda _rounds: {}
    from fedsec.privacy.accounting import spent  # noqa: PLC0415 - takes seconds to import

    price, delta = terms(plan).price, plan.privacy.delta

    def figures(rounds: int) -> Mapping[str, Json]:
        return {"epsilon": round(spent([price.times(rounds)], delta, interval=COARSE), 4)}

    return figures
