"""Content on its way from the coordinator, and what of it is kept: within one bound for all runs.

A run's newest content stays in memory after use, so that the same arrays, sent again, are not
fetched again. What is wanted twice at a time is fetched once. What nobody uses makes room.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from fedsec.wire.blobs import Blob
from fedsec.wire.content import Manifest

Fetch: TypeAlias = Callable[[int, Manifest], Awaitable[Blob]]
_Key: TypeAlias = tuple[int, bytes]


class Budget:
    """Bytes that may be in memory at a time.

    Args:
        total: The bound, > 0.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, count: int) -> None:
        """Waits until `count` bytes fit, in the order of the calls, and takes them.

        More than the whole bound is let pass when nothing else is held.
        """
        if not self._waiting and self.fits(count):
            self.used += count
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(count)  # it was given in the same moment
            else:
                self._waiting = deque(each for each in self._waiting if each[1] is not turn)
                self._serve()
            raise

    def charge(self, count: int) -> None:
        """Takes `count` bytes that are in memory already, beyond the bound if need be.

        A negative `count` gives them back.
        """
        self.used += count
        self._serve()

    def give(self, count: int) -> None:
        """Gives `count` bytes back."""
        self.charge(-count)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for bytes."""
        return bool(self._waiting)

    def fits(self, count: int) -> bool:
        """Whether `count` more bytes are within the bound, or nothing else is held."""
        return self.used + count <= self.total or not self.used

    def _serve(self) -> None:
        while self._waiting and self.fits(self._waiting[0][0]):
            count, turn = self._waiting.popleft()
            if not turn.done():
                self.used += count
                turn.set_result(None)


@dataclass(eq=False, slots=True)
class _Entry:
    key: _Key
    length: int
    task: "asyncio.Task[Blob]"
    users: int = 0
    stale: bool = False

    @property
    def idle(self) -> bool:
        """Whether nobody uses it or is about to."""
        return not self.users and self.task.done()

    @property
    def good(self) -> bool:
        """Whether the content is there, for whoever wants it next."""
        task = self.task
        done = task.done() and not task.cancelled() and task.exception() is None
        return done and not self.stale


class Downloads:
    """Contents by run and digest.

    Args:
        fetch: Brings content; called once for all who want the same.
        budget: Shared with the contents of replies.
    """

    def __init__(self, fetch: Fetch, budget: Budget) -> None:
        self._fetch = fetch
        self._budget = budget
        self._entries: dict[_Key, _Entry] = {}

    @asynccontextmanager
    async def use(self, run_id: int, manifest: Manifest) -> AsyncIterator[Blob]:
        """Gives content, fetched if need be. It stays open inside the block.

        Raises:
            FedsecError: It cannot be had; every user is told, and the next one tries again.
        """
        entry = self._entry(run_id, manifest)
        entry.users += 1
        try:
            yield await asyncio.shield(entry.task)
        finally:
            entry.users -= 1
            if not entry.users:
                self._release(entry)

    def forget(self, run_id: int, digest: bytes | None = None) -> None:
        """Lets go of one content of a run, or of all, as soon as nobody uses it."""
        for entry in self._of_run(run_id):
            if digest in {None, entry.key[1]}:
                entry.stale = True
                if entry.idle:
                    self._drop(entry)

    def reclaim(self) -> None:
        """Lets go of everything that nobody uses."""
        for entry in [entry for entry in self._entries.values() if entry.idle]:
            self._drop(entry)

    def _entry(self, run_id: int, manifest: Manifest) -> _Entry:
        key = (run_id, manifest.digest)
        entry = self._entries.get(key)
        if entry is None or entry.stale:
            for former in [former for former in self._of_run(run_id) if former.idle]:
                self._drop(former)
            task = asyncio.create_task(self._bring(run_id, manifest))
            entry = self._entries[key] = _Entry(key, manifest.length, task)
        return entry

    async def _bring(self, run_id: int, manifest: Manifest) -> Blob:
        if not self._budget.fits(manifest.length):
            self.reclaim()
        await self._budget.take(manifest.length)
        try:
            return await self._fetch(run_id, manifest)
        except BaseException:
            self._budget.give(manifest.length)
            raise

    def _release(self, entry: _Entry) -> None:
        """Keeps the entry, which nobody uses now, if it is its run's newest and room is left."""
        newer = self._of_run(entry.key[0])[-1:] != [entry]
        if not entry.good or newer or self._budget.awaited:
            self._drop(entry)

    def _of_run(self, run_id: int) -> list[_Entry]:
        return [entry for entry in self._entries.values() if entry.key[0] == run_id]

    def _drop(self, entry: _Entry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
        task = entry.task
        if not task.done():
            task.cancel()
        elif not task.cancelled() and task.exception() is None:
            task.result().close()
            self._budget.give(entry.length)
