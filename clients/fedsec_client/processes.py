"""One worker process as the agent sees it: started, spoken to, ended.

    agent --WorkerCommand, file descriptors--> worker --WorkerFrame, file descriptors--> agent

The two share a socket pair. A worker has a session of its own, so that ending it ends whatever
the app started; it dies with the agent (`fedsec_client.limits`).
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from fedsec.errors import FedsecError
from fedsec.wire.generated.local_pb2 import Stop, WorkerCommand, WorkerFrame
from fedsec.wire.local import AsyncLocalSocket, socket_pair
from fedsec_client.limits import environment
from fedsec_client.logs import BoundedLog
from fedsec_client.settings import MEBIBYTE, Limits

LOG_NAME = "worker.log"
# -P: the working directory, which an app may write to, holds no modules
PROGRAM: tuple[str, ...] = (sys.executable, "-P", "-m", "fedsec_client.worker")
"""What a worker runs; its arguments follow."""
_LAST_WORDS_S = 0.2  # what a process sent before it ended is read within so long
_PIPE_READ = 1 << 16


class WorkerEndedError(FedsecError):
    """The worker is gone. The message says how, in one sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A frame from the worker, with the descriptors that came along; the receiver closes them."""

    frame: WorkerFrame
    descriptors: list[int]


class WorkerProcess:
    """A running worker. Made by `spawn`, in the thread that lives as long as the agent.

    (The kernel ends a worker when the thread that started it ends, not only the process.)
    """

    def __init__(
        self, process: subprocess.Popen[bytes], link: AsyncLocalSocket, log: BoundedLog, output: int
    ) -> None:
        self._process = process
        self._link = link
        self._log = log
        self._output = output
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._closed = False
        self._reaping = threading.Lock()
        self._reaped = False
        self._loop.add_reader(output, self._copy_output)
        threading.Thread(target=self._reap, daemon=True, name=f"worker {process.pid}").start()

    @classmethod
    def spawn(cls, directory: Path, limits: Limits) -> "WorkerProcess":
        """Starts a worker whose working directory is `directory`.

        Raises:
            ConfigError: Its log cannot be written.
            OSError: The system starts no further process.
        """
        log = BoundedLog(directory / LOG_NAME, limits.log_mb * MEBIBYTE)
        with ExitStack() as undo:
            undo.callback(log.close)
            ours, theirs = (undo.enter_context(end) for end in socket_pair())
            output, worker_output = os.pipe()
            undo.callback(os.close, output)
            try:
                process = _start(directory, limits, theirs, worker_output)
            finally:
                os.close(worker_output)
            undo.pop_all()
        theirs.close()
        os.set_blocking(output, False)
        log.note(f"worker {process.pid} starts", now=datetime.now(UTC))
        return cls(process, AsyncLocalSocket(ours, asyncio.get_running_loop()), log, output)

    @property
    def pid(self) -> int:
        """Of the process, which leads a process group of the same number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended and was not closed."""
        return not self._exited.done() and not self._closed

    async def send(self, command: WorkerCommand, descriptors: tuple[int, ...] = ()) -> None:
        """Hands a command over; `descriptors` stay open here.

        Raises:
            WorkerEndedError: The worker is gone.
        """
        try:
            await self._link.send(command.SerializeToString(), descriptors)
        except OSError:
            raise WorkerEndedError(await self._obituary()) from None

    async def receive(self) -> Answer:
        """Waits for the next frame.

        Raises:
            WorkerEndedError: The worker is gone, or speaks nonsense.
        """
        reading = asyncio.ensure_future(self._link.receive())
        either: set[asyncio.Future[Any]] = {reading, self._exited}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():  # a child of the worker may keep the socket open
                await asyncio.wait({reading}, timeout=_LAST_WORDS_S)
        except asyncio.CancelledError:
            reading.add_done_callback(_drop)
            reading.cancel()
            raise
        reading.cancel()
        try:
            got = reading.result() if reading.done() else None
        except (OSError, FedsecError):
            got = None
        if got is None:
            raise WorkerEndedError(await self._obituary())
        data, descriptors = got
        try:
            return Answer(WorkerFrame.FromString(data), descriptors)
        except DecodeError:
            close_all(descriptors)
            raise WorkerEndedError("the worker sent what is no frame") from None

    def kill(self) -> None:
        """Ends the worker and everything that it started, at once."""
        with self._reaping:
            if not self._reaped:  # afterwards its number may be another process's
                self._kill_group()

    async def close(self, *, reason: str, grace_s: float = 0.0) -> None:
        """Ends the worker and lets go of what belongs to it. Harmless when done before.

        Args:
            reason: For the log.
            grace_s: How long it may take to end by itself after a Stop.
        """
        if self._closed:
            return
        self._closed = True
        if grace_s and not self._exited.done():
            with suppress(OSError):
                await self._link.send(WorkerCommand(stop=Stop()).SerializeToString(), ())
            await asyncio.wait({self._exited}, timeout=grace_s)
        self.kill()
        await self._exited
        self._copy_output()
        self._loop.remove_reader(self._output)
        os.close(self._output)
        self._link.close()
        self._log.note(f"worker {self.pid} ended: {reason}", now=datetime.now(UTC))
        self._log.close()

    async def _obituary(self) -> str:
        """Returns how the worker ended; ends it if it only closed its socket."""
        await asyncio.wait({self._exited}, timeout=_LAST_WORDS_S)
        if not self._exited.done():
            self.kill()
            await self._exited
            return "the worker closed its connection to the agent"
        return describe_exit(self._exited.result())

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Waits for the end, in a thread of its own; what the app has started ends then too."""
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._reaping:
            if hasattr(os, "waitid"):
                self._kill_group()
                self._reaped = True
        code = self._process.wait()
        self._reaped = True
        with suppress(RuntimeError):  # the agent's loop may have ended first
            self._loop.call_soon_threadsafe(self._exited.set_result, code)

    def _copy_output(self) -> None:
        try:
            data = os.read(self._output, _PIPE_READ)
        except BlockingIOError:
            return
        if data:
            self._log.write(data)
        else:
            self._loop.remove_reader(self._output)


def close_all(descriptors: Iterable[int]) -> None:
    """Closes file descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def _start(
    directory: Path, limits: Limits, theirs: socket.socket, output: int
) -> subprocess.Popen[bytes]:
    arguments = [str(theirs.fileno()), str(limits.memory_mb * MEBIBYTE), str(os.getpid())]
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=directory,
        env=environment(os.environ, threads=limits.threads, more=limits.environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
    )


def _drop(reading: "asyncio.Future[tuple[bytes, list[int]] | None]") -> None:
    """Closes what came for somebody who does not wait any more."""
    if not reading.cancelled() and reading.exception() is None and (got := reading.result()):
        close_all(got[1])


def describe_exit(code: int) -> str:
    """Returns how a process ended, from its exit code; negative numbers are signals.

    >>> describe_exit(-11)
    'the worker was ended by SIGSEGV'
    >>> describe_exit(3)
    'the worker ended with exit code 3'
    """
    if code >= 0:
        return f"the worker ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the system does when its memory runs out" if name == "SIGKILL" else ""
    return f"the worker was ended by {name}{hint}"
