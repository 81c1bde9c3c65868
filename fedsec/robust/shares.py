"""How much each row counts, and no more than a cap."""

import numpy as np

from fedsec.errors import ConfigError
from fedsec.robust.aggregate import Doubles


def cap_shares(weights: Doubles, cap: float) -> Doubles:
    """Returns shares (n,) that sum to 1, in proportion to `weights` but none above ``cap / n``.

    What a capped row loses goes to the others, in proportion.

    Args:
        weights: Claimed weights (n,), finite and > 0.
        cap: How many times 1/n a row may count, >= 1.

    Raises:
        ConfigError: A weight or the cap is out of range.

    >>> cap_shares(np.array([1.0, 1.0, 1.0, 97.0]), cap=2.0).round(3)
    array([0.167, 0.167, 0.167, 0.5  ])
    """
    if not cap >= 1:
        raise ConfigError(f"weight_cap must be >= 1, got {cap}")
    if weights.ndim != 1 or not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ConfigError("weights must be one finite number > 0 for each row")
    limit = cap / len(weights)
    shares: Doubles = np.maximum(weights / weights.max(), 1e-300)  # none may vanish
    shares /= shares.sum()
    capped = np.zeros(len(weights), np.bool_)
    while (over := (shares > limit * (1 + 1e-12)) & ~capped).any():
        capped |= over
        free = shares[~capped].sum()
        shares[~capped] *= (1 - limit * capped.sum()) / free
        shares[capped] = limit
    shares /= shares.sum()
    return shares
