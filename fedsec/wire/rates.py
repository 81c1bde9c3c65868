"""Token buckets: how many calls a peer may make, without letting many peers eat the memory."""

import time
from collections import OrderedDict
from collections.abc import Callable

from fedsec.errors import ConfigError, ProtocolError


class RateLimiter:
    """One token bucket per key. Time O(1) per call, memory O(min(keys, max_keys)).

    Args:
        rate: Tokens that come back per second, > 0.
        burst: Size of a bucket, >= 1; a new key starts with a full one.
        clock: Monotonic seconds.
        max_keys: Buckets kept, >= 1. Beyond it, the one not used for longest is forgotten, which
            is fair as long as it had the time to fill again.

    Raises:
        ConfigError: A parameter is out of range.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_keys: int = 10_000,
    ) -> None:
        if not rate > 0:
            raise ConfigError(f"rate must be > 0 per second, got {rate}")
        if burst < 1 or max_keys < 1:
            raise ConfigError(f"burst and max_keys must be >= 1, got {burst} and {max_keys}")
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at

    def take(self, key: str) -> None:
        """Takes one token of `key`.

        Raises:
            ProtocolError: ``rate``: none is left; the sentence says when there will be one.
        """
        now = self._clock()
        tokens, at = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(self._burst, tokens + max(0.0, now - at) * self._rate)
        if tokens < 1:
            self._buckets[key] = (tokens, now)
            wait = (1 - tokens) / self._rate
            raise ProtocolError(
                key,
                "rate",
                f"more than {self._rate:g} calls per second after a burst of {self._burst}; "
                f"try again in {wait:.2g} s",
            )
        self._buckets[key] = (tokens - 1, now)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)

    @property
    def keys(self) -> int:
        """How many keys have a bucket now."""
        return len(self._buckets)
