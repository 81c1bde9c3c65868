"""How much noise a budget asks for: the inverse of accounting."""

import math
from collections.abc import Callable

from fedsec.errors import ConfigError
from fedsec.privacy.accounting import COARSE, renyi, spent
from fedsec.privacy.events import Price

SMALLEST, LARGEST = 0.05, 1000.0
DIGITS = 4


def calibrate(
    price: Callable[[float], Price],
    *,
    epsilon: float,
    delta: float,
    tried: Callable[[float], object] = lambda _multiplier: None,
) -> float:
    """Returns the smallest noise multiplier whose price is within the budget, to four digits.

    Args:
        price: Of everything, for a noise multiplier; falls as that rises.
        epsilon: Of the budget, > 0.
        delta: Of the budget.
        tried: Is told each multiplier before its price is reckoned, which may take a second.

    Raises:
        ConfigError: Even a multiplier of 1000 costs more.

    >>> from fedsec.privacy.events import Gaussian
    >>> calibrate(lambda z: Price(Gaussian(z), 50), epsilon=6.573, delta=1e-5)
    5.001
    """
    if not 0 < epsilon < math.inf:
        raise ConfigError(f"epsilon must be > 0 and finite, got {epsilon}")

    def bound(multiplier: float) -> bool:
        tried(multiplier)
        return renyi([price(multiplier)], delta) <= epsilon

    def enough(multiplier: float) -> bool:
        tried(multiplier)
        return spent([price(multiplier)], delta, interval=COARSE) <= epsilon

    if not bound(LARGEST) and not enough(LARGEST):
        raise ConfigError(
            f"no noise multiplier up to {LARGEST:g} keeps epsilon within {epsilon:g} at delta "
            f"{delta:g}; allow more, or release less often"
        )
    # The looser, cheaper bound narrows the search: it asks for more noise than is needed.
    high = _search(bound, SMALLEST, LARGEST, 0.02) if bound(LARGEST) else LARGEST
    low = max(SMALLEST, high / 4)
    if enough(low):
        low = SMALLEST
    return _round_up(_search(enough, low, high, 10.0**-DIGITS / 2))


def _search(enough: Callable[[float], bool], low: float, high: float, precision: float) -> float:
    """Returns the smallest multiplier in low..high that is enough, to a relative `precision`.

    `high` is known to be enough; `low` is returned if it is, too.
    """
    if enough(low):
        return low
    while high / low - 1 > precision:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _round_up(multiplier: float) -> float:
    step = 10.0 ** (math.floor(math.log10(multiplier)) + 1 - DIGITS)
    return round(math.ceil(multiplier / step - 1e-9) * step, 10)
