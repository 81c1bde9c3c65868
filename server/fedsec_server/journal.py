"""Writes to the database from the event loop: in order, in one thread, never on the loop's time."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fedsec_server.events import Recorder

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_BACKLOG = 10_000  # notes on their way to the database; the disk is stuck when there are more


class Journal:
    """One thread that writes, one after the other, what the loop hands to it.

    So that events of a run are recorded in the order in which they happened, and after the change
    of state that they tell of.

    Args:
        recorder: Records events.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._waiting = 0
        self._lost = 0
        self._closed = False

    def note(
        self,
        kind: str,
        subject: str,
        detail: Mapping[str, object] | None = None,
        run_id: int | None = None,
    ) -> None:
        """Records an event soon. See `Recorder.record`."""
        self.soon(self._recorder.record, kind, subject, detail, run_id)

    def soon(self, write: Callable[..., object], *arguments: object) -> None:
        """Calls `write(*arguments)` soon; an error of it goes to the log."""
        if self._closed:
            _LOG.warning("too late to write to the database: %s%s", write.__name__, arguments)
            return
        if self._waiting >= _BACKLOG:
            self._lost += 1
            return
        if self._lost:
            _LOG.error("%d writes were lost: the database did not keep up", self._lost)
            self._lost = 0
        self._waiting += 1
        self._thread.submit(write, *arguments).add_done_callback(self._written)

    async def write(self, write: Callable[..., T], *arguments: object) -> T:
        """Calls `write(*arguments)` after all that was handed over before; returns its result."""
        return await asyncio.wrap_future(self._thread.submit(write, *arguments))

    async def close(self) -> None:
        """Returns when everything is written. What comes afterwards is not."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)

    def _written(self, future: Future[object]) -> None:
        self._waiting -= 1  # in the journal's thread; a count that is off by one does no harm
        if (error := future.exception()) is not None:
            _LOG.error("a write to the database failed", exc_info=error)
