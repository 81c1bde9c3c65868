"""How long to wait before the next attempt: longer each time, never the same for two nodes."""

import random
from dataclasses import dataclass

from fedsec.errors import ConfigError

_JITTER = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with jitter, so that a restarted coordinator is not met by all at once.

    Args:
        first: Longest delay before the second attempt, seconds, > 0.
        cap: Longest delay of all, seconds, >= `first`.

    >>> [round(Backoff().longest(attempt), 2) for attempt in (0, 1, 2, 10)]
    [0.25, 0.5, 1.0, 30.0]
    """

    first: float = 0.25
    cap: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.cap:
            raise ConfigError(f"need 0 < first <= cap, got first={self.first}, cap={self.cap}")

    def longest(self, attempt: int) -> float:
        """Returns the upper end of the delay after failed attempt number `attempt`, from 0."""
        return min(self.cap, self.first * 2.0 ** min(attempt, 60))

    def delay(self, attempt: int, rng: random.Random = _JITTER) -> float:
        """Returns seconds to wait, drawn evenly from the upper half of `longest`."""
        high = self.longest(attempt)
        return rng.uniform(high / 2, high)
