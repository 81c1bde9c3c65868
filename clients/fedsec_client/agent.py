"""The node's agent: stays connected, takes part in runs, renews its certificate, ends cleanly.

    connect > serve the session > lost: wait, longer each time > connect ...
    at half the certificate's life: renew > connect anew > switch > the old connection retires

It ends by itself only where trying again cannot help: revoked, expired beyond renewal, a protocol
version that the coordinator does not speak, or another agent with the same identity.
"""

import asyncio
import itertools
import logging
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from enum import IntEnum
from functools import partial

from fedsec.console import safe
from fedsec.errors import FedsecError, IdentityError
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import node_credentials
from fedsec.wire.generated.fleet_pb2 import CoordinatorFrame
from fedsec_client.backoff import Backoff
from fedsec_client.desk import Desk
from fedsec_client.diagnosis import diagnose
from fedsec_client.enrolment import Enrolment
from fedsec_client.link import Link, LinkLostError, Uplink
from fedsec_client.renew import due_at, renew
from fedsec_client.runhost import RunHost
from fedsec_client.runs import Runs
from fedsec_client.settings import NodeSettings

GOOD_SESSION_S = 5.0  # a session that lasts so long resets the back-off
OFFERS_S = 30.0  # within which a new session is offered every run that goes on
HAND_IN_S = 5.0  # for replies that are on their way when the agent is told to end
CLOCK_S = 30.0  # between looks at the clock: timers stand still while a machine sleeps
EXPLAIN_AT = 3  # failed attempts in a row after which the cause is looked for, and every 30th
EXPLAIN_EVERY = 30
LEAST_LIFE_S = 0.5  # between two renewals
LOOK_S = 3.0  # for each look at the coordinator; the agent's end may have to wait for one
MAX_REPLACED = 3

_LOG = logging.getLogger(__name__)


class ExitCode(IntEnum):
    """How `fedsec node start` ends. From 10 on, starting again does not help."""

    CLEAN = 0
    REVOKED = 10
    EXPIRED = 11
    VERSION = 12
    REPLACED = 13


_FATAL = {
    "revoked": ExitCode.REVOKED,
    "not-enrolled": ExitCode.REVOKED,
    "unknown-node": ExitCode.REVOKED,
    "version": ExitCode.VERSION,
}
FATAL_SENTENCES = {
    ExitCode.REVOKED: "the federation does not accept this node any more; ask its operator, and "
    "join again with a new invite if that is right",
    ExitCode.EXPIRED: "the certificate has expired and cannot renew itself any more; ask the "
    "coordinator's operator for a new invite and join again",
    ExitCode.VERSION: "install a version of fedsec that the coordinator speaks with",
    ExitCode.REPLACED: "another agent runs with a copy of this node's identity; stop one of them",
}


def utc_now() -> datetime:
    """Returns the time, aware UTC."""
    return datetime.now(UTC)


class Agent:
    """One node's agent. Belongs to one event loop.

    Args:
        enrolment: Who the node is.
        settings: What it allows.
        clock: Aware UTC.
        backoff: Between attempts to connect.
    """

    def __init__(
        self,
        enrolment: Enrolment,
        settings: NodeSettings,
        *,
        clock: Callable[[], datetime] = utc_now,
        backoff: Backoff | None = None,
    ) -> None:
        self._enrolment = enrolment
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._uplink = Uplink()
        self._desk = Desk(self._uplink, self._host_of, settings.limits)
        self._runs = Runs(
            enrolment.record.node_id, enrolment.directory, settings, self._desk.end_run
        )
        self._connecting = asyncio.Lock()
        self._stop = asyncio.Event()
        self._reader: asyncio.Task[LinkLostError | None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._replaced = 0

    def _host_of(self, run_id: int) -> RunHost | None:
        return self._runs.host_of(run_id)  # desk and runs need each other

    async def run(self) -> ExitCode:
        """Runs until SIGTERM or SIGINT, or until going on makes no sense."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        serving = asyncio.create_task(self._serve())
        renewing = asyncio.create_task(self._renew_for_ever())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({serving, renewing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if renewing.done():
                renewing.result()  # it never returns; an error of ours must be seen
            return serving.result() if serving.done() else ExitCode.CLEAN
        finally:
            for task in (renewing, stopping):
                task.cancel()
            await self._end(serving)

    def stop(self) -> None:
        """Ends the agent as SIGTERM does."""
        self._stop.set()

    # --- connections -------------------------------------------------------------------------

    async def _serve(self) -> ExitCode:
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            lasted = 0.0
            try:
                await self._connect()
                began = loop.time()
                error = await self._until_lost()
                lasted = loop.time() - began
            except LinkLostError as lost:
                error = lost
            failures = 0 if lasted >= GOOD_SESSION_S else failures
            code = await self._judge(error, lasted)
            if code is not None:
                _LOG.error("%s: %s", safe(error), FATAL_SENTENCES[code])
                return code
            delay = self._backoff.delay(failures)
            failures += 1
            _LOG.warning("not connected: %s; next attempt in %.1f s", safe(error), delay)
            if failures == EXPLAIN_AT or failures % EXPLAIN_EVERY == 0:
                self._later(self._explain())
            await asyncio.sleep(delay)

    async def _connect(self) -> None:
        """Makes a link and makes it the present one.

        Raises:
            LinkLostError: There is no coordinator to talk to, or it refuses.
        """
        async with self._connecting:
            record, own = self._enrolment.record, self._enrolment.credentials
            credentials = node_credentials(own.servers_ca_pem, own.chain_pem, own.key_pem)
            link = Link(open_channel(record.fleet_address, credentials))
            try:
                welcome = await link.open(self._desk.held)
            except BaseException:
                await link.close()
                raise
            before = self._uplink.switch(link)
            self._reader = asyncio.create_task(self._read(link))
            if before is not None:
                self._later(before.retire())
        asyncio.get_running_loop().call_later(OFFERS_S, self._sweep, link)
        how = "connected" if before is None else "moved to a new connection"
        name, software = safe(welcome.name), safe(welcome.software, 100)
        _LOG.info("%s to %s (%s) as %s", how, record.fleet_address, software, name)

    async def _read(self, link: Link) -> LinkLostError | None:
        """Serves a link until it is over; returns why, None where it was retired."""
        try:
            await link.run(partial(self._on_frame, link))
        except LinkLostError as error:
            self._uplink.drop(link)
            # Only the control stream has moved on: what is on its way may arrive.
            self._later(link.retire() if error.code == "replaced" else link.close())
            return error
        return None

    async def _until_lost(self) -> LinkLostError:
        """Follows the present link, and the one that replaces it, to an end that nobody wanted."""
        while True:
            reader = self._reader
            if reader is None:
                return LinkLostError("closed", "there is no session")
            error = await asyncio.shield(reader)
            async with self._connecting:  # a successor may have replaced it a moment too early
                replaced = self._reader is not reader
            if not replaced:
                return error or LinkLostError("closed", "the session was closed")

    def _on_frame(self, link: Link, frame: CoordinatorFrame) -> None:
        match frame.WhichOneof("kind"):
            case "deliver":
                self._desk.deliver(frame.deliver)
            case "ack":
                self._desk.acknowledge(frame.ack.message_id, frame.ack.refused)
            case "cancel":
                self._desk.cancel(frame.cancel.message_id)
            case "run_offer":
                self._runs.offer(link, frame.run_offer)
            case "run_end":
                self._runs.end(frame.run_end.run_id, frame.run_end.reason)
            case kind:
                _LOG.info("a frame that this version does not know was ignored: %s", kind)

    def _sweep(self, link: Link) -> None:
        if self._uplink.link is link:
            self._runs.sweep(link)

    async def _judge(self, error: LinkLostError, lasted: float) -> ExitCode | None:
        """Returns how to end where trying again cannot help; None to try again."""
        if error.code in _FATAL:
            return _FATAL[error.code]
        self._replaced = self._replaced + 1 if error.code == "replaced" else 0
        if self._replaced >= MAX_REPLACED and lasted < CLOCK_S:
            return ExitCode.REPLACED
        if self._clock() <= self._enrolment.principal.not_after:
            return None
        cause = await self._cause()
        return ExitCode.EXPIRED if cause is not None and cause.code == "expired" else None

    async def _explain(self) -> None:
        """Looks for the cause that gRPC does not tell, and says what to do."""
        cause = await self._cause()
        if cause is not None:
            _LOG.error("the cause: %s", safe(cause, 600))

    async def _cause(self) -> IdentityError | None:
        return await asyncio.to_thread(
            diagnose, self._enrolment, now=self._clock(), timeout_s=LOOK_S
        )

    # --- the certificate ---------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        while True:
            principal = self._enrolment.principal
            await self._until(due_at(principal.not_before, principal.not_after))
            for attempt in itertools.count():
                try:
                    await self._renew()
                    break
                except FedsecError as error:
                    _LOG.warning("the certificate was not renewed: %s", safe(error))
                    await asyncio.sleep(self._backoff.delay(attempt))
            await self._switch()
            await asyncio.sleep(LEAST_LIFE_S)  # whatever lifetimes a coordinator gives

    async def _renew(self) -> None:
        link = await self._uplink.current()
        with link.in_use() as channel:
            fresh = await renew(channel, self._enrolment, now=self._clock())
        self._enrolment = fresh
        try:
            await asyncio.to_thread(fresh.store_renewal)
        except FedsecError as error:  # it is good for as long as this agent runs
            _LOG.error("the new certificate is not on the disk: %s", safe(error))
        _LOG.info("the certificate was renewed, until %s", f"{fresh.principal.not_after:%F %T} UTC")

    async def _switch(self) -> None:
        """Moves to a connection that shows the new certificate, before the old one is given up."""
        for attempt in itertools.count():
            if self._uplink.link is None:
                return  # the next connection shows it anyway
            try:
                await self._connect()
            except LinkLostError as error:
                _LOG.warning("no second connection: %s", safe(error))
                await asyncio.sleep(self._backoff.delay(attempt))
            else:
                return

    async def _until(self, moment: datetime) -> None:
        left = (moment - self._clock()).total_seconds()
        while left > 0:
            await asyncio.sleep(min(left, CLOCK_S))
            left = (moment - self._clock()).total_seconds()

    # --- the end -----------------------------------------------------------------------------

    async def _end(self, serving: "asyncio.Task[ExitCode]") -> None:
        link = self._uplink.link
        if link is not None and not link.over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(HAND_IN_S):
                    await self._desk.handed_in()
        serving.cancel()
        await self._desk.close()
        await self._runs.close()
        if link is not None:
            await link.close()
        for task in (serving, self._reader, *self._retiring):
            if task is not None:
                task.cancel()
        pending = [task for task in (serving, self._reader, *self._retiring) if task is not None]
        await asyncio.gather(*pending, return_exceptions=True)

    def _later(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
