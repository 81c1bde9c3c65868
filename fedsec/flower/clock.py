"""Time, as a value, so that tests need not wait."""

import time
from collections.abc import Callable
from dataclasses import dataclass

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Clock:
    """Time in seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()
