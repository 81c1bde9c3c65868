"""One run on this node: its policy check, its warm worker, one message after the other.

    offered --check_plan, worker ready--> accepted --message--> reply
                                             |  crash, hang, memory, exception: error reply,
                                             |  then a fresh worker
    closed <---------------------------------+

Whatever the app does, the answer to a message is a reply; and nothing but the reply comes out.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from fedsec.console import safe
from fedsec.errors import ConfigError, FedsecError, IdentityError, PolicyRefusal, ProtocolError
from fedsec.files import make_private_directory
from fedsec.wire.blobs import Blob
from fedsec.wire.generated.fleet_pb2 import RunOffer
from fedsec.wire.generated.local_pb2 import Peer, WorkerCommand, WorkerStart
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import COORDINATOR_NODE_ID, ErrorCode, check_header, reply_failure
from fedsec_client.plans import READ_S, read_plan
from fedsec_client.policy import check_plan
from fedsec_client.processes import LOG_NAME, Answer, WorkerEndedError, WorkerProcess, close_all
from fedsec_client.rosters import Keys, keys_of_run
from fedsec_client.settings import NodeSettings
from fedsec_client.site import site_of

RUNS_DIRECTORY = "runs"
STATE_DIRECTORY = "state"
STOP_GRACE_S = 2.0
_REASON = 1000  # characters of a reason that a worker gives

_LOG = logging.getLogger(__name__)

Room: TypeAlias = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to the coordinator. `content` belongs to whoever has the reply."""

    header: Header
    content: Blob | None = None


class RunHost:
    """A run that this node takes part in.

    Args:
        offer: Of the coordinator.
        node_id: This node's number in headers.
        directory: Of the node.
        settings: Of the node.

    Attributes:
        resumed: Whether an earlier agent took part in it and left its state.
    """

    def __init__(
        self, offer: RunOffer, node_id: int, directory: Path, settings: NodeSettings
    ) -> None:
        self.run_id = offer.run_id
        self.plan_text = offer.plan
        self._roster = offer.roster
        self._node_id = node_id
        self._settings = settings
        self._node_directory = directory
        self._directory = directory / RUNS_DIRECTORY / str(offer.run_id)
        self.resumed = (self._directory / STATE_DIRECTORY).exists()
        self._turn = asyncio.Lock()
        self._starting: asyncio.Task[WorkerProcess] | None = None
        self._worker: WorkerProcess | None = None
        self._dying: set[asyncio.Task[None]] = set()
        self._site = ""
        self._keys = Keys()
        self._closed = False

    async def open(self) -> None:
        """Checks the plan against the site's policy and starts the worker.

        Raises:
            PolicyRefusal: This node does not take part; the reason is for the coordinator.
        """
        try:
            plan = await read_plan(self.plan_text, READ_S)
        except ConfigError as error:
            raise PolicyRefusal(f"this node cannot read the plan: {error}") from error
        except TimeoutError:
            late = f"this node could not read the plan within {READ_S:g} s"
            raise PolicyRefusal(late) from None
        check_plan(plan, self._settings)
        try:
            now = datetime.now(UTC)
            self._keys = keys_of_run(plan, self._node_directory, self._roster, now=now)
            self._site = site_of(plan, self._settings, self._node_directory).model_dump_json()
            make_private_directory(self._directory / STATE_DIRECTORY)
            await self._ready_worker()
        except WorkerEndedError as error:
            why = f"its worker does not start: {error}; see its {LOG_NAME} on the node"
            raise PolicyRefusal(why) from error
        except (ConfigError, IdentityError, OSError) as error:
            raise PolicyRefusal(f"its worker does not start: {error}") from error

    async def execute(
        self, instruction: Header, content: Blob | None, *, due: float, room: Room
    ) -> Reply:
        """Has the app answer one message; waits for its turn.

        Args:
            instruction: The message.
            content: Its bulk content; stays the caller's.
            due: Monotonic seconds after which nobody wants the answer.
            room: Awaited when its turn has come: returns when there is memory for a reply.
        """
        async with self._turn:
            await room()
            left = due - time.monotonic()
            if left <= 0:
                late = "its time to live passed while it waited for its turn on the node"
                return _failed(instruction, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, late)
            try:
                worker = await self._ready_worker()
            except (FedsecError, OSError) as error:
                why = f"the app could not be loaded: {error}"
                return _failed(instruction, ErrorCode.LOAD_CLIENT_APP_EXCEPTION, why)
            return await self._ask(worker, instruction, content, left)

    async def close(self, reason: str, *, keep_state: bool = False) -> None:
        """Ends the worker.

        Args:
            reason: For its log.
            keep_state: Whether the run goes on later, e.g. because the agent alone ends.
        """
        self._closed = True
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait({self._starting})
        self._bury(reason, grace_s=STOP_GRACE_S)
        if self._dying:
            await asyncio.wait(self._dying)
        if not keep_state:
            shutil.rmtree(self._directory / STATE_DIRECTORY, ignore_errors=True)

    async def _ask(
        self, worker: WorkerProcess, instruction: Header, content: Blob | None, left: float
    ) -> Reply:
        limit = min(left, self._settings.limits.task_s)
        try:
            async with asyncio.timeout(limit):
                await worker.send(WorkerCommand(task=instruction), (content.fd,) if content else ())
                answer = await worker.receive()
            reply = self._checked(instruction, answer)
        except TimeoutError:
            self._renew_worker("it did not answer in time")
            why = f"the app did not answer within {limit:.3g} s, so its worker was ended"
            return _failed(instruction, ErrorCode.CLIENT_APP_CRASHED, why)
        except WorkerEndedError as error:
            self._renew_worker(str(error))
            why = f"{error}; see its {LOG_NAME} on the node"
            return _failed(instruction, ErrorCode.CLIENT_APP_CRASHED, why)
        except ProtocolError as error:
            self._renew_worker(str(error))
            why = f"the worker's reply was not accepted: {error.detail}"
            return _failed(instruction, ErrorCode.CLIENT_APP_CRASHED, why)
        except asyncio.CancelledError:
            self._renew_worker("its work is no longer wanted")
            raise
        if reply.header.HasField("failure") and reply.header.failure.code in _SPOILS_THE_WORKER:
            self._renew_worker("the app failed")
        return reply

    def _checked(self, instruction: Header, answer: Answer) -> Reply:
        """Returns the reply in a frame; the worker runs an app, so it is not simply believed."""
        header, descriptors = answer.frame.reply, answer.descriptors
        try:
            self._check(instruction, answer)
        except ProtocolError:
            close_all(descriptors)
            raise
        blob = Blob.adopt(descriptors[0], header.bulk.length) if descriptors else None
        return Reply(header, blob)

    def _check(self, instruction: Header, answer: Answer) -> None:
        header = answer.frame.reply
        if answer.frame.WhichOneof("kind") != "reply":
            raise ProtocolError("worker", "bad-frame", "it is no reply")
        check_header(header, max_bytes=self._settings.limits.max_content_bytes)
        want = (instruction.message_id, self.run_id, self._node_id, COORDINATOR_NODE_ID)
        got = (header.reply_to, header.run_id, header.src_node_id, header.dst_node_id)
        if got != want:
            raise ProtocolError("worker", "bad-header", f"addressed {got}, want {want}")
        if header.HasField("bulk") != bool(answer.descriptors):
            raise ProtocolError("worker", "bad-header", "its content and its header differ")

    async def _ready_worker(self) -> WorkerProcess:
        """Returns a worker that has loaded the app; waits for one that is starting."""
        starting = self._starting is not None and not self._starting.done()
        if self._worker is not None and not starting:  # one that is starting takes no messages
            if self._worker.alive:
                return self._worker
            self._bury("it ended between two messages")
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start_worker())
        return await asyncio.shield(self._starting)

    async def _start_worker(self) -> WorkerProcess:
        if self._dying:  # the state is one worker's at a time
            await asyncio.wait(self._dying)
        worker = self._worker = WorkerProcess.spawn(self._directory, self._settings.limits)
        reason = "it did not start"
        try:
            answer = await self._load(worker)
            if answer.frame.WhichOneof("kind") == "ready":
                reason = ""
                return worker
            reason = "it refused the run"
        finally:
            if reason:
                self._bury(reason)
        raise PolicyRefusal(answer.frame.refusal.reason[:_REASON] or "the worker gave no reason")

    async def _load(self, worker: WorkerProcess) -> Answer:
        start = WorkerStart(
            run_id=self.run_id,
            node_id=self._node_id,
            plan=self.plan_text,
            settings_json=self._site,
            state_directory=str(self._directory / STATE_DIRECTORY),
            signing_key=self._keys.signing_key,
            member=[Peer(node_id=n, signing_key=key) for n, key in self._keys.members.items()],
            roster_until=0 if self._keys.until is None else int(self._keys.until.timestamp()),
        )
        load_s = self._settings.limits.load_s
        try:
            async with asyncio.timeout(load_s):
                await worker.send(WorkerCommand(start=start))
                return await worker.receive()
        except TimeoutError:
            raise WorkerEndedError(
                f"the app was not loaded within limits.load_s = {load_s:g} s"
            ) from None

    def _renew_worker(self, reason: str) -> None:
        """Ends the worker at once and lets a fresh one start, before it is needed."""
        _LOG.info("run %d: a fresh worker: %s", self.run_id, safe(reason))
        self._bury(reason)
        if not self._closed:
            self._starting = asyncio.create_task(self._start_worker())
            self._starting.add_done_callback(_seen)

    def _bury(self, reason: str, *, grace_s: float = 0.0) -> None:
        """Ends the worker and lets go of it; what is left to do goes on in the background."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if not grace_s:
            worker.kill()
        task = asyncio.create_task(worker.close(reason=reason, grace_s=grace_s))
        self._dying.add(task)
        task.add_done_callback(self._dying.discard)


_SPOILS_THE_WORKER = frozenset(
    {ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.CLIENT_APP_CRASHED}
)


def _failed(instruction: Header, code: ErrorCode, reason: str) -> Reply:
    return Reply(reply_failure(instruction, code, reason))


def _seen(task: "asyncio.Task[WorkerProcess]") -> None:
    """Takes note of how a start ended; whoever needs the worker next is told."""
    if not task.cancelled():
        task.exception()
