"""What releases cost, as values: they go into the ledger and come back equal.

An event is one use of a mechanism, its noise measured against its sensitivity, so that it means
the same for every model and clip. Accountants turn events into epsilon; this module knows none, so
that reading a ledger is cheap.

Sources: Dwork, Roth, "The Algorithmic Foundations of Differential Privacy", 2014, appendix A
(Gaussian). Agarwal, Kairouz, Liu, "The Skellam Mechanism for Differentially Private Federated
Learning", NeurIPS 2021 (Skellam).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from fedsec.errors import ConfigError

MAX_COUNT = 10**12


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Gaussian noise, continuous or discrete, on the whole input or on a Poisson sample of it.

    Args:
        noise_multiplier: Standard deviation of the noise over the L2 sensitivity, > 0.
        sampling: Probability with which each unit takes part, on its own, in (0, 1]. Less than 1
            is a claim of amplification: nobody who sees the release may learn who took part.

    Raises:
        ConfigError: A parameter is out of range.
    """

    noise_multiplier: float
    sampling: float = 1.0

    def __post_init__(self) -> None:
        _positive("noise_multiplier", self.noise_multiplier)
        if not 0 < self.sampling <= 1:
            raise ConfigError(f"sampling must be in (0, 1], got {self.sampling}")


@dataclass(frozen=True, slots=True)
class Skellam:
    """Symmetric Skellam noise on a vector of integers.

    Args:
        l1: Largest L1 norm of what one unit adds, in grid steps, > 0.
        l2: Largest L2 norm of it, in grid steps, > 0.
        variance: Of the noise per coordinate in the sum, in grid steps squared, > 0; of the
            fewest noise shares that the sum may hold.

    Raises:
        ConfigError: A parameter is out of range.
    """

    l1: float
    l2: float
    variance: float

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "variance"):
            _positive(name, getattr(self, name))


Event: TypeAlias = Gaussian | Skellam

EVENTS: Mapping[str, type[Gaussian] | type[Skellam]] = {"gaussian": Gaussian, "skellam": Skellam}


@dataclass(frozen=True, slots=True)
class Price:
    """What one release costs: an event, so many times, and what is lost to exactness.

    Args:
        event: Of one use of the mechanism.
        count: Uses in one release, >= 1; e.g. steps of DP-SGD.
        delta: Added to delta for the release: distance of the sampler from the distribution that
            the accountant reckons with, in [0, 1).

    Raises:
        ConfigError: A parameter is out of range.

    >>> Price(Gaussian(1.1, sampling=0.01), count=20)
    Price(event=Gaussian(noise_multiplier=1.1, sampling=0.01), count=20, delta=0.0)
    """

    event: Event
    count: int = 1
    delta: float = 0.0

    def __post_init__(self) -> None:
        if type(self.count) is not int or not 1 <= self.count <= MAX_COUNT:
            raise ConfigError(f"count must be an integer in 1..{MAX_COUNT}, got {self.count!r}")
        if not 0 <= self.delta < 1:
            raise ConfigError(f"delta must be in [0, 1), got {self.delta}")

    def times(self, count: int) -> "Price":
        """Returns the price of `count` such releases, >= 1."""
        return Price(self.event, self.count * count, min(self.delta * count, math.nextafter(1, 0)))


def event_to_json(event: Event) -> dict[str, str | float]:
    """Returns an event for the ledger."""
    kind = next(kind for kind, made in EVENTS.items() if isinstance(event, made))
    return {"kind": kind, **asdict(event)}


def event_from_json(given: Mapping[str, Any]) -> Event:
    """Returns the event that `event_to_json` wrote.

    Raises:
        ConfigError: It is none: an unknown kind, key or type, or a value out of range.
    """
    fields = dict(given)
    kind = fields.pop("kind", None)
    made = EVENTS.get(kind) if isinstance(kind, str) else None
    if made is None:
        raise ConfigError(f"an event of kind {kind!r}; known: {', '.join(EVENTS)}")
    if any(type(value) not in {int, float} for value in fields.values()):
        raise ConfigError(f"an event of kind {kind!r} holds something else than numbers")
    try:
        return made(**{name: float(value) for name, value in fields.items()})
    except (TypeError, OverflowError) as error:
        raise ConfigError(f"an event of kind {kind!r} is malformed: {error}") from error


def _positive(name: str, value: float) -> None:
    if not (0 < value < math.inf):  # not so for NaN
        raise ConfigError(f"{name} must be > 0 and finite, got {value}")
