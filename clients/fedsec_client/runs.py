"""The runs that this node takes part in: offered, answered, ended, and forgotten on the disk.

Every new session is offered all open runs again. What it is not offered has ended while the node
was away, and is ended here too.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedsec.console import safe
from fedsec.errors import PolicyRefusal
from fedsec.wire.generated.fleet_pb2 import NodeFrame, RunAnswer, RunOffer
from fedsec_client.ended import EndedRuns
from fedsec_client.link import Link
from fedsec_client.runhost import RUNS_DIRECTORY, STATE_DIRECTORY, RunHost
from fedsec_client.settings import NodeSettings

KEPT_DIRECTORIES = 20  # of runs that are over, for their logs
MAX_REASON = 1000  # characters

_LOG = logging.getLogger(__name__)


class Runs:
    """All runs of the agent, by id.

    Args:
        node_id: This node's number in headers.
        directory: Of the node.
        settings: Of the node.
        on_end: Told the id of a run that is over, before its worker ends.
    """

    def __init__(
        self,
        node_id: int,
        directory: Path,
        settings: NodeSettings,
        on_end: Callable[[int], None],
    ) -> None:
        self._node_id = node_id
        self._directory = directory
        self._settings = settings
        self._on_end = on_end
        self._ended = EndedRuns(directory)
        self._hosts: dict[int, RunHost] = {}
        self._openings: dict[int, asyncio.Task[None]] = {}
        self._offered: dict[int, Link] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def host_of(self, run_id: int) -> RunHost | None:
        """Returns the run's host; None where the node takes no part in it."""
        return self._hosts.get(run_id)

    def offer(self, link: Link, offer: RunOffer) -> None:
        """Takes an offer and answers it over `link`, when the worker is ready."""
        self._offered[offer.run_id] = link
        task = asyncio.create_task(self._answer(link, offer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self, run_id: int, reason: str) -> None:
        """Ends a run: its worker, its messages, its state."""
        self._offered.pop(run_id, None)
        host = self._hosts.pop(run_id, None)
        if host is None:
            return
        _LOG.info("run %d has ended: %s", run_id, safe(reason) or "no reason was given")
        self._on_end(run_id)
        opening = self._openings.pop(run_id, None)
        if opening is not None:
            opening.cancel()
        noted = self._ended.add([run_id])
        if not noted:
            _LOG.error("run %d: that it is over cannot be written down; its state stays", run_id)
        task = asyncio.create_task(host.close(reason, keep_state=not noted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def sweep(self, link: Link) -> None:
        """Ends the runs that `link` was not offered, and forgets what is left of earlier ones."""
        for run_id in [r for r in self._hosts if self._offered.get(r) is not link]:
            self.end(run_id, "the coordinator does not offer it any more")
        over = left(self._directory / RUNS_DIRECTORY) - self._hosts.keys()
        if self._ended.add(over):
            prune(self._directory / RUNS_DIRECTORY, keep={str(run_id) for run_id in self._hosts})

    async def close(self) -> None:
        """Ends all workers; the runs may go on when the agent is back."""
        for opening in self._openings.values():
            opening.cancel()
        hosts = list(self._hosts.values())
        self._hosts.clear()
        await asyncio.gather(*(host.close("the agent ends", keep_state=True) for host in hosts))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, link: Link, offer: RunOffer) -> None:
        run_id = offer.run_id
        try:
            await self._opened(offer)
        except PolicyRefusal as refusal:
            reason = str(refusal)[:MAX_REASON]
            _LOG.warning("run %d is refused: %s", run_id, safe(reason))
            answer = RunAnswer(run_id=run_id, accepted=False, reason=reason)
        else:
            answer = RunAnswer(run_id=run_id, accepted=True)
        link.send(NodeFrame(run_answer=answer))

    async def _opened(self, offer: RunOffer) -> None:
        """Returns when the run's worker is ready.

        Raises:
            PolicyRefusal: The node takes no part in it.
        """
        run_id = offer.run_id
        host = self._hosts.get(run_id)
        if run_id in self._ended:
            raise PolicyRefusal("the run is over on this node; it is not taken up again")
        if host is None:
            if len(self._hosts) >= self._settings.limits.max_runs:
                raise PolicyRefusal(
                    f"this node takes part in {len(self._hosts)} runs already, "
                    f"which is its limits.max_runs"
                )
            host = RunHost(offer, self._node_id, self._directory, self._settings)
            self._hosts[run_id] = host
            self._openings[run_id] = asyncio.create_task(host.open())
        elif host.plan_text != offer.plan:
            raise PolicyRefusal("this node knows the run with another plan")
        opening = self._openings[run_id]
        try:
            await asyncio.shield(opening)
        except PolicyRefusal:
            if self._hosts.get(run_id) is host:
                del self._hosts[run_id], self._openings[run_id]
                # A plan that is refused must not be a way to be rid of another one's state.
                await host.close("the run is refused", keep_state=host.resumed)
            raise
        _LOG.info("run %d: ready", run_id)


def left(directory: Path) -> set[int]:
    """Returns the runs whose state is left: those in which this node took part.

    Args:
        directory: Holds one directory per run.
    """
    with suppress(OSError):
        named = [entry for entry in directory.iterdir() if entry.name.isdecimal()]
        return {int(entry.name) for entry in named if (entry / STATE_DIRECTORY).exists()}
    return set()


def prune(directory: Path, keep: set[str]) -> None:
    """Removes the state of runs that are over, and all but the newest of their directories.

    Args:
        directory: Holds one directory per run.
        keep: Names of those that go on.
    """
    with suppress(OSError):
        over = [entry for entry in directory.iterdir() if entry.name not in keep]
        over.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in over:
            shutil.rmtree(entry / STATE_DIRECTORY, ignore_errors=True)
        for entry in over[KEPT_DIRECTORIES:]:
            shutil.rmtree(entry, ignore_errors=True)
