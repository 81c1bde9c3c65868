"""Every message that this node owes an answer to, from its delivery to the acknowledgement.

    delivered > fetching > waiting for its turn > at work > storing > replied > acknowledged
    cancelled, or its run ended, at any time > forgotten

The desk outlives connections: a reply is kept until the coordinator says that it is done with it,
and goes out again over the next link. The agent looks at headers only and hashes nothing; the
worker, at the far end, checks what it was sent.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from contextlib import suppress

import grpc.aio

from fedsec.console import safe
from fedsec.errors import FedsecError, ProtocolError
from fedsec.wire import streams
from fedsec.wire.answers import error_of, refusal_of
from fedsec.wire.blobs import Blob, BlobWriter
from fedsec.wire.content import Manifest
from fedsec.wire.generated.fleet_pb2 import NodeFrame
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import ErrorCode, check_header, reply_failure
from fedsec_client.backoff import Backoff
from fedsec_client.downloads import Budget, Downloads
from fedsec_client.link import Link, Uplink
from fedsec_client.runhost import Reply, RunHost
from fedsec_client.settings import Limits

MAX_MESSAGES = 256
_UNWANTED = frozenset({"unknown", "not-yours", "duplicate", "late", "withdrawn"})
_HOPELESS = frozenset({"too-large", "bad-manifest", "bad-reply-to", "malformed"})
_RETRY = Backoff(first=0.1, cap=5.0)

_LOG = logging.getLogger(__name__)


class _UnwantedError(FedsecError):
    """The coordinator has settled the message; there is nothing left to do for it."""


class Desk:
    """All unanswered messages of all runs.

    Args:
        uplink: The way to the coordinator.
        host_of: Returns the run's host, None where the node takes no part in it.
        limits: Of the node.
    """

    def __init__(
        self, uplink: Uplink, host_of: Callable[[int], RunHost | None], limits: Limits
    ) -> None:
        self._uplink = uplink
        self._host_of = host_of
        self._limits = limits
        self._budget = Budget(limits.content_total_bytes)
        self._downloads = Downloads(self._fetch, self._budget)
        self._replies = 0  # bytes of replies that are not acknowledged
        self._eased = asyncio.Event()  # while that is within the bound
        self._eased.set()
        self._work: dict[str, asyncio.Task[None]] = {}
        self._runs: dict[str, int] = {}
        self._acknowledged: dict[str, asyncio.Event] = {}

    @property
    def held(self) -> list[str]:
        """Ids of all messages that are worked on, or whose reply is not acknowledged."""
        return list(self._work)

    async def handed_in(self) -> None:
        """Returns when no reply is on its way any more. Work that is under way does not count."""
        while replying := [self._work[message_id] for message_id in self._acknowledged]:
            await asyncio.wait(replying, return_when=asyncio.FIRST_COMPLETED)

    def deliver(self, instruction: Header) -> None:
        """Takes a message; one that is held already is left as it is."""
        message_id = instruction.message_id
        if message_id in self._work:
            return
        task = asyncio.create_task(self._answer(instruction, room=len(self._work) < MAX_MESSAGES))
        self._work[message_id], self._runs[message_id] = task, instruction.run_id
        task.add_done_callback(lambda done: self._forget(message_id, done))

    def acknowledge(self, message_id: str, refused: str) -> None:
        """The coordinator is done with the reply to this message."""
        if refused:
            _LOG.warning("a reply was not accepted: %s", safe(refused))
        if message_id in self._acknowledged:
            self._acknowledged[message_id].set()

    def cancel(self, message_id: str) -> None:
        """The answer is no longer wanted. Work on it ends at once."""
        if message_id in self._work:
            self._work[message_id].cancel()

    def end_run(self, run_id: int) -> None:
        """Drops every message of a run and its content."""
        for message_id in [m for m, run in self._runs.items() if run == run_id]:
            self.cancel(message_id)
        self._downloads.forget(run_id)

    async def close(self) -> None:
        """Drops everything."""
        tasks = list(self._work.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._downloads.reclaim()

    async def _answer(self, instruction: Header, *, room: bool) -> None:
        due = time.monotonic() + instruction.ttl  # by our clock: the coordinator's may differ
        host = self._host_of(instruction.run_id)
        try:
            check_header(instruction)
        except ProtocolError as error:
            why = f"the node could not read the message: {error.detail}"
            reply = _failed(instruction, ErrorCode.MESSAGE_UNAVAILABLE, why)
        else:
            if not room:
                why = f"the node holds {MAX_MESSAGES} messages already"
                reply = _failed(instruction, ErrorCode.NODE_UNAVAILABLE, why)
            elif host is None:
                why = "the node does not take part in the run"
                reply = _failed(instruction, ErrorCode.NODE_UNAVAILABLE, why)
            else:
                reply = await self._have_answered(host, instruction, due)
        await self._hand_in(instruction, reply)

    async def _have_answered(self, host: RunHost, instruction: Header, due: float) -> Reply:
        if not instruction.HasField("bulk"):
            return await host.execute(instruction, None, due=due, room=self._eased.wait)
        try:
            manifest = Manifest.from_proto(instruction.bulk, self._limits.max_content_bytes)
            async with self._downloads.use(instruction.run_id, manifest) as content:
                reply = await host.execute(instruction, content, due=due, room=self._eased.wait)
        except ProtocolError as error:
            why = f"its content did not arrive: {error.detail}"
            return _failed(instruction, ErrorCode.MESSAGE_UNAVAILABLE, why)
        if reply.header.failure.code == ErrorCode.MESSAGE_UNAVAILABLE:
            self._downloads.forget(instruction.run_id, manifest.digest)  # it may be damaged
        return reply

    def _keep(self, length: int) -> None:
        """Notes that a reply lies here, or with a negative `length` that it is gone, bytes."""
        self._replies += length
        self._budget.charge(length)
        if self._replies > self._budget.total:
            self._eased.clear()
        else:
            self._eased.set()

    async def _hand_in(self, instruction: Header, reply: Reply) -> None:
        """Brings a reply to the coordinator, over as many links as it takes."""
        message_id, content = instruction.message_id, reply.content
        self._acknowledged[message_id] = asyncio.Event()
        length = content.length if content else 0
        self._keep(length)
        try:
            while not await self._hand_over(await self._uplink.current(), message_id, reply):
                pass
        except _UnwantedError as error:
            _LOG.info("a reply is not wanted any more: %s", safe(error))
        except ProtocolError as error:
            _LOG.warning("a reply cannot be handed in: %s", safe(error))
            why = f"the coordinator does not take the node's reply: {error.detail}"
            failure = _failed(instruction, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, why)
            while not await self._hand_over(await self._uplink.current(), message_id, failure):
                pass
        finally:
            self._keep(-length)
            if content is not None:
                content.close()

    async def _hand_over(self, link: Link, message_id: str, reply: Reply) -> bool:
        """Sends a reply over one link; returns whether it was acknowledged there.

        Raises:
            _UnwantedError: Nobody waits for it.
            ProtocolError: The coordinator does not take this content.
        """
        if reply.content is not None:
            manifest = Manifest.from_proto(reply.header.bulk, self._limits.max_content_bytes)
            if not await self._store(link, message_id, manifest, reply.content):
                return False
        link.send(NodeFrame(reply=reply.header))
        acknowledged = self._acknowledged[message_id]
        await _first(acknowledged, link.over)
        return acknowledged.is_set()

    async def _store(self, link: Link, message_id: str, manifest: Manifest, content: Blob) -> bool:
        """Uploads a reply's content; False when the link ended before."""
        for attempt in itertools.count():
            try:
                with link.in_use() as channel:
                    await streams.store(channel, message_id, manifest, content.view())
            except grpc.aio.AioRpcError as error:
                code, sentence = refusal_of(error)
                if code in _UNWANTED:
                    raise _UnwantedError(sentence) from error
                if code in _HOPELESS:
                    raise ProtocolError("coordinator", code, sentence) from error
                _LOG.info("an upload was cut: %s", safe(f"{code}: {sentence}"))
            except ProtocolError as error:
                _LOG.info("an upload failed: %s", safe(error))
            else:
                return True
            if await _pause(link, attempt):
                break
        return False

    async def _fetch(self, run_id: int, manifest: Manifest) -> Blob:
        """Downloads content, over as many links as it takes.

        Raises:
            ProtocolError: The coordinator does not have it.
        """
        with BlobWriter(manifest.length) as writer:
            for attempt in itertools.count():
                link = await self._uplink.current()
                try:
                    with link.in_use() as channel:
                        await streams.fetch(channel, manifest.digest, manifest, run_id, writer)
                except grpc.aio.AioRpcError as error:
                    failure = error_of(error)
                    if isinstance(failure, ProtocolError) and failure.code != "rate":
                        raise failure from error
                    _LOG.info("a download was cut: %s", safe(failure))
                except ProtocolError as error:
                    if error.code not in {"stalled", "too-short"}:
                        raise
                    _LOG.info("a download was cut: %s", safe(error))
                else:
                    break
                await _pause(link, attempt)
            return writer.finish()

    def _forget(self, message_id: str, done: "asyncio.Task[None]") -> None:
        del self._work[message_id], self._runs[message_id]
        self._acknowledged.pop(message_id, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            _LOG.error("the work on a message failed", exc_info=error)


def _failed(instruction: Header, code: ErrorCode, reason: str) -> Reply:
    return Reply(reply_failure(instruction, code, reason))


async def _first(*events: asyncio.Event) -> None:
    """Waits until one of the events is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


async def _pause(link: Link, attempt: int) -> bool:
    """Waits before the next attempt over `link`; returns whether the link is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_RETRY.delay(attempt)):
            await link.over.wait()
    return link.over.is_set()
