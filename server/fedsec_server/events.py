"""What happened: the one place where events are recorded.

`Recorder.record` adds an event to the database, writes it to the log and wakes whoever watches.
The record is append-only; nothing else writes to it. An event's subject is the SPIFFE ID of whom it
is about, else ``"run RUN_ID"`` or ``"peer ADDRESS"``.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from fedsec.console import safe
from fedsec.errors import ProtocolError
from fedsec.wire.call import Refusal
from fedsec.wire.rates import RateLimiter
from fedsec_server.logs import event_fields
from fedsec_server.plain import plain
from fedsec_server.state.models import SPIFFE
from fedsec_server.state.store import Store
from fedsec_server.state.values import Event

_LOG = logging.getLogger("fedsec.events")
PAGE = 500  # events that a watcher gets at a time
_KIND = 64  # characters
_REFUSALS_AT_ONCE = 32  # refusals on their way to the database at a time
_STRANGERS_PER_S, _STRANGERS_BURST = 5.0, 500  # refusals of those who have no certificate


def run_subject(run_id: int) -> str:
    """Returns the subject of events about a run."""
    return f"run {run_id}"


class Recorder:
    """Records events and lets others follow them.

    `record` blocks for one database transaction and may be called from any thread. `watch` and
    `refused` belong to the event loop.

    Args:
        store: Keeps the events.
        clock: Unix seconds.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._order = threading.Lock()
        self._wakers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._wakers_lock = threading.Lock()
        self._refusals: set[asyncio.Future[Event]] = set()
        self._unrecorded = 0
        self._strangers = RateLimiter(_STRANGERS_PER_S, _STRANGERS_BURST, max_keys=1)

    def record(
        self,
        kind: str,
        subject: str,
        detail: Mapping[str, object] | None = None,
        run_id: int | None = None,
    ) -> Event:
        """Records that something happened; it is on the disk when this returns.

        Args:
            kind: What, in words with hyphens, e.g. ``"node-enrolled"``; of `kinds.OWN`, or an
                app's.
            subject: Whom or what it is about; see the module's docstring.
            detail: JSON values by name; `plain` cuts what is too long. Never secrets, never
                update vectors.
            run_id: Of the run that it belongs to, if any.

        Returns:
            The event, numbered.
        """
        with self._order:  # so that the log has the order of the database
            event = self._store.append_event(
                safe(kind)[:_KIND],
                safe(subject)[:SPIFFE],
                plain(detail or {}),
                at=self._clock(),
                run_id=run_id,
            )
            _log(event)
        self._wake()
        return event

    def _wake(self) -> None:
        with self._wakers_lock:
            wakers = list(self._wakers.items())
        for waker, loop in wakers:
            with suppress(RuntimeError):  # that loop was closed a moment ago
                loop.call_soon_threadsafe(waker.set)

    def refused(self, refusal: Refusal) -> None:
        """Records an RPC that the gate refused. Does not wait for the database.

        A flood of refusals does not pile up: what is too much at a time is counted, and the next
        one that is recorded carries the count. Nor does it fill the disk: strangers, who may come
        from any number of addresses, have one budget together.
        """
        if len(self._refusals) >= _REFUSALS_AT_ONCE or not self._affords(refusal):
            self._unrecorded += 1
            return
        unreported, self._unrecorded = refusal.unreported + self._unrecorded, 0
        who = refusal.principal
        detail: dict[str, object] = {
            "method": refusal.method,
            "code": refusal.code,
            "reason": refusal.reason,
            "peer": refusal.peer,
        }
        if unreported:
            detail["unreported"] = unreported
        subject = who.spiffe_id if who else f"peer {refusal.peer}"
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, self.record, "rpc-refused", subject, detail)
        self._refusals.add(future)
        future.add_done_callback(self._refusal_recorded)

    def _affords(self, refusal: Refusal) -> bool:
        if refusal.principal is None:
            try:
                self._strangers.take("")
            except ProtocolError:
                return False
        return True

    def _refusal_recorded(self, future: asyncio.Future[Event]) -> None:
        self._refusals.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            _LOG.error("a refusal could not be recorded: %s", error)

    async def settle(self) -> None:
        """Waits until every refusal so far is recorded: before the store is closed."""
        while self._refusals:
            await asyncio.wait(self._refusals)
        if self._unrecorded:
            _LOG.warning("%d refusals were too many at a time to be recorded", self._unrecorded)
            self._unrecorded = 0

    async def watch(self, run_id: int, after: int = 0) -> AsyncGenerator[list[Event], None]:
        """Gives the events of a run, those that are there and those to come, in order, without end.

        A slow reader costs no memory: events wait in the database.

        Args:
            run_id: Of the run.
            after: Sequence number of the last event that is known already.

        Yields:
            At most `PAGE` events, oldest first; fewer are all that there are so far. The first
            list may be empty; later ones never are.
        """
        with self._waker() as waker:
            first = True
            while True:
                waker.clear()  # before the read: an event that comes during it wakes again
                events = await asyncio.to_thread(
                    self._store.events_of_run, run_id, after=after, limit=PAGE
                )
                if events or first:
                    after = events[-1].sequence if events else after
                    first = False
                    yield events
                else:
                    await waker.wait()

    @contextmanager
    def _waker(self) -> Iterator[asyncio.Event]:
        waker = asyncio.Event()
        with self._wakers_lock:
            self._wakers[waker] = asyncio.get_running_loop()
        try:
            yield waker
        finally:
            with self._wakers_lock:
                del self._wakers[waker]


def _log(event: Event) -> None:
    level = logging.WARNING if event.kind.endswith(("refused", "failed")) else logging.INFO
    told = ", ".join(f"{key}={value}" for key, value in event.detail.items())
    _LOG.log(
        level,
        "%s: %s%s",
        event.kind,
        event.subject,
        f" ({told})" if told else "",
        extra=event_fields(
            sequence=event.sequence,
            kind=event.kind,
            subject=event.subject,
            run_id=event.run_id,
            detail=dict(event.detail),
        ),
    )
