"""One run process, as the coordinator sees it: started, fed, listened to, stopped, reaped.

    starting --Ready--> running --Finished, end of the process--> ended
    any stage --stop--> Stop, then SIGTERM, then SIGKILL ------> ended

The process inherits one end of a socket pair and nothing else. What it prints goes to the run's
log. It leads a process group of its own, so that a signal reaches what its app started, and the
coordinator's terminal does not reach it.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from fedsec.allocator import large_pages
from fedsec.console import safe
from fedsec.errors import ProtocolError, StateError
from fedsec.wire.blobs import Blob
from fedsec.wire.generated.local_pb2 import (
    Nodes,
    Push,
    RunCommand,
    RunnerFrame,
    RunRecord,
    RunStart,
    Stop,
)
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import ErrorCode, reply_failure
from fedsec.wire.local import AsyncLocalSocket, socket_pair
from fedsec_server.exchange import Exchange
from fedsec_server.state.values import RunState

_LOG = logging.getLogger(__name__)
PROGRAM: tuple[str, ...] = (sys.executable, "-P", "-m", "fedsec_server.run_process")
"""What a run is started by, before its arguments; -P: what lies in its directory is no module."""

_LAST_WORDS_S = 1.0  # for frames that a process left behind in the socket
_TAIL = 4096  # bytes of the log in which its last line is looked for
_MAX_DEADLINE_S = 1e9
_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",  # a crash must not eat the end of the log
    "FLWR_TELEMETRY_ENABLED": "0",  # nothing is sent to anybody else
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a run process is waited for, in seconds.

    Args:
        stop_s: After `Stop` until SIGTERM.
        term_s: After SIGTERM until SIGKILL.
        exit_s: After it finished or closed its socket, until SIGTERM.
    """

    stop_s: float = 5.0
    term_s: float = 5.0
    exit_s: float = 10.0


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, and why, in one sentence; empty when it finished."""

    state: RunState
    reason: str = ""


class Runner:
    """Runs one run. Make it, await `run` once; `stop` works at any time.

    Args:
        start: What the process is told first. The directory it names exists.
        reconnect_s: Seconds in which a lost node may come back.
        exchange: Where messages go.
        on_ready: Called when the app begins.
        on_record: Gets the events that the app reports: kind and JSON values.
        patience: How long the process is waited for.
    """

    def __init__(
        self,
        start: RunStart,
        *,
        reconnect_s: float,
        roster: bytes = b"",
        exchange: Exchange,
        on_ready: Callable[[], None],
        on_record: Callable[[str, Mapping[str, object]], None],
        patience: Patience = PATIENCE,
    ) -> None:
        self._start = start
        self._reconnect_s = reconnect_s
        self._roster = roster
        self._exchange = exchange
        self._on_ready = on_ready
        self._on_record = on_record
        self._patience = patience
        self._log = Path(start.directory) / "run.log"
        self._outgoing: deque[tuple[RunCommand, Blob | None]] = deque()
        self._awake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stopped_by = ""
        self._finished: Outcome | None = None

    # --- what the exchange tells -------------------------------------------------------------

    def nodes(self, nodes: Nodes) -> None:
        """See `exchange.RunSide`."""
        self._send(RunCommand(nodes=nodes))

    def reply(self, header: Header, content: Blob | None) -> None:
        """See `exchange.RunSide`."""
        self._send(RunCommand(reply=header), content)

    # --- the life of the process -------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Ends the run soon; `reason` says who wants it. The first one counts."""
        if not self._stopping.is_set():
            self._stopped_by = reason
            self._stopping.set()
            self._exchange.close_run(self._start.run_id, reason)

    async def run(self) -> Outcome:
        """Starts the process and returns how it ended, when it is gone."""
        ours, theirs = socket_pair()
        loop = asyncio.get_running_loop()
        socket = AsyncLocalSocket(ours, loop)
        try:
            with theirs:
                process = await self._spawn(theirs.fileno())
        except BaseException:
            socket.close()
            raise
        self._send(RunCommand(start=self._start))
        if not self._stopping.is_set():
            run_id, plan = self._start.run_id, self._start.plan
            self._exchange.open_run(run_id, plan, self._reconnect_s, self, roster=self._roster)
        reader = loop.create_task(self._read_all(socket))
        helpers = (
            reader,
            loop.create_task(self._write_all(socket)),
            loop.create_task(self._stop_process(process)),
        )
        try:
            await self._until_over(process, reader)
        finally:
            for helper in helpers:
                helper.cancel()
            self._signal(process, signal.SIGKILL)  # what it left behind in its group, too
            await process.wait()
            socket.close()
            self._drop_outgoing()
            outcome = self._outcome(process.returncode)
            self._exchange.close_run(self._start.run_id, outcome.reason or "the run has finished")
        return outcome

    async def _until_over(
        self, process: asyncio.subprocess.Process, reader: "asyncio.Task[None]"
    ) -> None:
        """Returns when the process is gone and all that it said was heard."""
        exited = asyncio.ensure_future(process.wait())
        await asyncio.wait({reader, exited}, return_when=asyncio.FIRST_COMPLETED)
        if exited.done():
            # Not for ever: what the app has forked may hold the socket open.
            await asyncio.wait({reader}, timeout=_LAST_WORDS_S)
        elif not self._stopping.is_set():
            await self._await_exit(process, self._patience.exit_s)
        await exited
        if reader.done():
            reader.result()

    async def _spawn(self, descriptor: int) -> asyncio.subprocess.Process:
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                *PROGRAM,
                str(descriptor),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._start.directory,
                pass_fds=(descriptor,),
                start_new_session=True,
                env=environment(os.environ),
            )
        finally:
            os.close(log)

    async def _stop_process(self, process: asyncio.subprocess.Process) -> None:
        await self._stopping.wait()
        self._drop_outgoing()
        self._send(RunCommand(stop=Stop()))
        await self._await_exit(process, self._patience.stop_s)

    async def _await_exit(self, process: asyncio.subprocess.Process, seconds: float) -> None:
        """Waits for the process; after `seconds` it is told, later made, to end."""
        for patience, then in (
            (seconds, signal.SIGTERM),
            (self._patience.term_s, signal.SIGKILL),
        ):
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await process.wait()
                return
            self._signal(process, then)

    @staticmethod
    def _signal(process: asyncio.subprocess.Process, which: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, which)

    def _outcome(self, status: int | None) -> Outcome:
        if self._stopping.is_set():
            return Outcome(RunState.STOPPED, self._stopped_by)
        if self._finished is not None:
            return self._finished
        if status is not None and status < 0:
            how = f"was killed by {_signal_name(-status)}"
        else:
            how = f"ended with status {status}"
        last = _last_line(self._log)
        said = f"; the last line of its log: {last}" if last else "; its log is empty"
        return Outcome(RunState.FAILED, f"the run's process {how}{said}")

    # --- frames ------------------------------------------------------------------------------

    def _send(self, command: RunCommand, content: Blob | None = None) -> None:
        self._outgoing.append((command, content))
        self._awake.set()

    async def _write_all(self, socket: AsyncLocalSocket) -> None:
        while True:
            while self._outgoing:
                command, content = self._outgoing.popleft()
                try:
                    await socket.send(
                        command.SerializeToString(), [content.fd] if content is not None else []
                    )
                except BrokenPipeError:
                    return  # the reader sees the end too
                finally:
                    if content is not None:
                        content.close()
            self._awake.clear()
            await self._awake.wait()

    async def _read_all(self, socket: AsyncLocalSocket) -> None:
        """Takes the process's frames until its last one. What it must not send ends the run."""
        try:
            while self._finished is None and (received := await socket.receive()) is not None:
                frame, descriptors = received
                try:
                    self._on_frame(RunnerFrame.FromString(frame), descriptors)
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)
        except (ProtocolError, DecodeError) as error:
            reason = f"the run's process broke the protocol: {error}"
            self._finished = Outcome(RunState.FAILED, reason)

    def _on_frame(self, frame: RunnerFrame, descriptors: list[int]) -> None:
        match frame.WhichOneof("kind"):
            case "push" if not self._stopping.is_set():
                self._push(frame.push, descriptors)
            case "cancel":
                self._exchange.cancel(self._start.run_id, frame.cancel.message_id)
            case "record":
                self._record(frame.record)
            case "ready":
                self._on_ready()
            case "finished":
                state = RunState.FINISHED if frame.finished.ok else RunState.FAILED
                self._finished = Outcome(state, frame.finished.reason)

    def _push(self, push: Push, descriptors: list[int]) -> None:
        header = push.header
        try:
            content = None
            if push.bulk_attached and descriptors:
                content = Blob.adopt(descriptors.pop(), header.bulk.length)
            seconds = min(max(0.0, push.deadline), _MAX_DEADLINE_S)
            self._exchange.push(self._start.run_id, header, content, seconds)
        except (ProtocolError, StateError) as error:
            sentence = f"the message could not be sent: {error}"
            self.reply(reply_failure(header, ErrorCode.MESSAGE_UNAVAILABLE, sentence), None)

    def _record(self, record: RunRecord) -> None:
        try:
            detail = json.loads(record.detail_json)
        except ValueError:
            detail = None
        if isinstance(detail, dict):
            self._on_record(record.kind, detail)
        else:
            _LOG.error("run %d reported %r without JSON values", self._start.run_id, record.kind)

    def _drop_outgoing(self) -> None:
        for _, content in self._outgoing:
            if content is not None:
                content.close()
        self._outgoing.clear()


def environment(source: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of a run process: the coordinator's without our own variables.

    One of those may hold the passphrase of the root's key, which is no business of an app.

    >>> environment({"PATH": "/bin", "FEDSEC_CA_PASSPHRASE": "x"})["PATH"]
    '/bin'
    >>> "FEDSEC_CA_PASSPHRASE" in environment({"FEDSEC_CA_PASSPHRASE": "x"})
    False
    """
    kept = {name: value for name, value in source.items() if not name.startswith("FEDSEC_")}
    return {**kept, **large_pages(source), **_ENVIRONMENT}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(path: Path) -> str:
    """Returns the last line of a log that says something, made safe to show."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _TAIL))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return safe(said[-1], limit=500) if said else ""
