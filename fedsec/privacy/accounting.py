"""What releases come to together: the epsilon at a delta, never below the truth.

Every event here is a pair of distributions that differ by one unit's largest change, the change
divided by the sensitivity: N(0, z^2) and N(1, z^2). So whichever adjacency a sensitivity was
computed for, the pair is dp-accounting's add-or-remove one; its replace-one doubles the change
again and is never asked for.

    Gaussians on the whole input    one Gaussian, exactly (Balle, Wang, ICML 2018)
    with Poisson samples            privacy loss distributions; Renyi where that is tighter
    with Skellam                    Renyi

Importing this module takes seconds (dp-accounting brings scipy's optimisers): import it late.

Sources: Koskela, Jalko, Honkela, AISTATS 2020, and Doroshenko, Ghazi, Kamath, Kumar, Manurangsi,
PETS 2022 (privacy loss distributions). Mironov, CSF 2017 (Renyi). Agarwal, Kairouz, Liu, NeurIPS
2021, theorem 3.5 (Skellam).
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version

import dp_accounting
import numpy as np
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant, compute_epsilon
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.privacy.events import Event, Gaussian, Price, Skellam

ACCOUNTANT = f"dp-accounting {version('dp-accounting')}"
"""Name and version of what does the arithmetic, for statements."""

ORDERS = (*range(2, 65), *range(68, 129, 4), *range(144, 257, 16), 384, 512, 1024)
"""Whole Renyi orders: those for which the curve of Skellam is known."""

MAX_COMPOSED = 1e4  # epsilon above which nobody needs the fourth digit
FINE, COARSE = 1e-4, 1e-3
_WIDE = 30.0  # epsilon from which the coarse grid is used

Curve = NDArray[np.float64]
Counts = Mapping[Event, int]


def spent(prices: Iterable[Price], delta: float, *, interval: float | None = None) -> float:
    """Returns the epsilon of all releases together at `delta`; infinite if there is none.

    Adaptive composition, in any order: what is released may depend on what was before.

    Args:
        prices: Of the releases; none cost nothing.
        delta: Of the guarantee, in (0, 1). What samplers lack is taken off it.
        interval: Grid of privacy losses; a coarse one is faster, and only ever pessimistic.

    Raises:
        ConfigError: `delta` is out of range.
    """
    counts, lost = _total(prices)
    left = _check(delta) - lost
    if not counts:
        return 0.0
    if left <= 0:
        return math.inf
    if not any(isinstance(event, Skellam) or event.sampling < 1 for event in counts):
        return max(0.0, float(dp_accounting.get_epsilon_gaussian(_merged(counts), left)))
    by_renyi = _renyi(counts, left)
    if any(isinstance(event, Skellam) for event in counts) or by_renyi > MAX_COMPOSED:
        return by_renyi
    chosen = interval or (FINE if by_renyi < _WIDE else COARSE)
    return min(by_renyi, _by_losses(counts, left, chosen))


def method(prices: Iterable[Price]) -> str:
    """Returns by which accountant `spent` composes such releases, in words for statements."""
    counts, _ = _total(prices)
    if any(isinstance(event, Skellam) for event in counts):
        return "Renyi differential privacy"
    if any(event.sampling < 1 for event in counts if isinstance(event, Gaussian)):
        return "privacy loss distribution"
    return "analytic Gaussian"


def renyi(prices: Iterable[Price], delta: float) -> float:
    """Returns the epsilon by Renyi differential privacy alone: a looser bound, to cross-check."""
    counts, lost = _total(prices)
    left = _check(delta) - lost
    if not counts:
        return 0.0
    return _renyi(counts, left) if left > 0 else math.inf


def skellam_curve(event: Skellam, orders: Sequence[int]) -> Curve:
    """Returns the Renyi divergence at most, at each of `orders`, whole numbers >= 2.

    >>> skellam_curve(Skellam(l1=1, l2=1, variance=100), [8]).round(6).tolist()
    [0.040525]
    """
    alpha = np.asarray(orders, np.float64)
    gaussian = alpha * event.l2**2 / (2 * event.variance)
    fine = ((2 * alpha - 1) * event.l2**2 + 6 * event.l1) / (4 * event.variance**2)
    return gaussian + np.minimum(fine, 3 * event.l1 / (2 * event.variance))


def _renyi(counts: Counts, delta: float) -> float:
    discrete = any(isinstance(event, Skellam) for event in counts)
    accountant = RdpAccountant(ORDERS if discrete else None)
    accountant.compose(_composed(counts))
    curve = np.array(accountant.rdp, np.float64)
    for event, count in counts.items():
        if isinstance(event, Skellam):
            curve += count * skellam_curve(event, ORDERS)
    epsilon, _ = compute_epsilon(accountant.orders, curve, delta)
    return max(0.0, float(epsilon))


def _by_losses(counts: Counts, delta: float, interval: float) -> float:
    accountant = PLDAccountant(value_discretization_interval=interval)
    accountant.compose(_composed(counts))
    return max(0.0, float(accountant.get_epsilon(delta)))


def _composed(counts: Counts) -> dp_accounting.DpEvent:
    """Returns the Gaussians among `counts` for dp-accounting; all unsampled ones as one."""
    gaussians = [(e, count) for e, count in counts.items() if isinstance(e, Gaussian)]
    whole: Counts = {event: count for event, count in gaussians if event.sampling == 1}
    events = [dp_accounting.GaussianDpEvent(_merged(whole))] if whole else []
    for event, count in gaussians:
        if event.sampling < 1:
            noise = dp_accounting.GaussianDpEvent(event.noise_multiplier)
            sampled = dp_accounting.PoissonSampledDpEvent(event.sampling, noise)
            events.append(dp_accounting.SelfComposedDpEvent(sampled, count))
    return dp_accounting.ComposedDpEvent(events)


def _merged(counts: Counts) -> float:
    """Returns the multiplier of the one Gaussian that Gaussians come to together."""
    total = math.fsum(
        count / event.noise_multiplier**2
        for event, count in counts.items()
        if isinstance(event, Gaussian)
    )
    return 1 / math.sqrt(total)


def _total(prices: Iterable[Price]) -> tuple[Counts, float]:
    counts: dict[Event, int] = defaultdict(int)
    lost = 0.0
    for price in prices:
        counts[price.event] += price.count
        lost += price.delta
    return counts, lost


def _check(delta: float) -> float:
    if not 0 < delta < 1:
        raise ConfigError(f"delta must be in (0, 1), got {delta}")
    return delta


def _worth_saying(record: logging.LogRecord) -> bool:
    """Returns False for a Renyi order that was left out: the others still bound."""
    return "Excluding this order" not in str(record.msg)


logging.getLogger("absl").addFilter(_worth_saying)
