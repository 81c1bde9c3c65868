"""Notices that the clock was set under running timers: by an operator, or while a machine slept.

Timers run by monotonic time, certificates expire by the clock. One look every few seconds compares
the two for all that wait, however many they are: a look by each of them kept a coordinator with
thousands of quiet nodes busy.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

LOOK_S = 5.0  # between two looks
JUMP_S = 1.0  # by which the clock may have moved against monotonic time before anybody is told


class Jumps:
    """Compares a clock with the time of the running event loop, as long as that is wanted.

    Args:
        clock: Aware UTC.
        on_jump: Called when the clock has moved by more than `JUMP_S` since it was called last.
        wanted: Whether anybody waits; asked at every look, and looking ends when nobody does.
    """

    def __init__(
        self, clock: Callable[[], datetime], on_jump: Callable[[], None], wanted: Callable[[], bool]
    ) -> None:
        self._clock = clock
        self._on_jump = on_jump
        self._wanted = wanted
        self._offset: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Begins to look, unless it looks already. Whoever calls it has read the clock himself."""
        if self._timer is None:
            self._look()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        offset = self._clock().timestamp() - loop.time()
        if self._offset is None:
            self._offset = offset
        elif abs(offset - self._offset) > JUMP_S:
            self._offset = offset
            self._on_jump()
        self._timer = loop.call_later(LOOK_S, self._next)

    def _next(self) -> None:
        self._timer = None
        if self._wanted():
            self._look()
