"""Several processes, one thread each, that write to one matrix of updates.

The processes are forked, so that they start within milliseconds and share the pool of examples.
Each takes the next few nodes that nobody has taken. Which process trains a node changes nothing:
every update goes to the row of its node, and rows are summed in the order of the cohort.
"""

import contextlib
import mmap
import multiprocessing
import signal
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, ForkProcess
from multiprocessing.sharedctypes import Synchronized
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedsec.errors import ConfigError, StateError
from fedsec.flower.strategy import Matrix
from fedsec.vectors import Vector
from fedsec_sim.engines.engine import Engine, Job, Losses

_Number = TypeVar("_Number", np.float32, np.float64, np.int64)
_WAIT_S = 5.0  # for a process to end


class Workers:
    """See `Engine`. This process is one of the workers.

    Args:
        engine: What each process runs.
        workers: Processes in all, >= 2.
        size: d.
        nodes: Most nodes of one job.
        step: Nodes that a process takes at once; for an engine that is not independent its own.

    Raises:
        ConfigError: This system cannot fork.
    """

    def __init__(self, engine: Engine, *, workers: int, size: int, nodes: int, step: int) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise ConfigError(f"workers = {workers}: this system cannot fork; use one worker")
        context = multiprocessing.get_context("fork")
        self._shared = _Shared(context, size, nodes, step)
        self._inner = engine
        self.name = f"{self._inner.name}, {workers} workers"
        self.step = nodes
        self.independent = engine.independent
        self._others = [_Other(context, self._inner, self._shared) for _ in range(workers - 1)]

    def rows(self, count: int) -> Matrix:
        """See `Engine`."""
        return self._shared.rows[:count]

    def train(self, job: Job, out: Matrix) -> Losses:
        """See `Engine`.

        Raises:
            StateError: A worker ended or failed; says in which round.
        """
        shared, count = self._shared, len(job.nodes)
        if out.shape[0] != count or not np.may_share_memory(out, shared.rows):
            raise StateError("workers write to their own rows only")
        shared.begin(job)
        for other in self._others:
            other.send(job.round, count)
        try:
            shared.work(self._inner, job.round, count)
        finally:
            problems = [problem for other in self._others if (problem := other.wait())]
        if problems:
            raise StateError(f"round {job.round}: {problems[0]}")
        return shared.losses[:count].copy()

    def close(self) -> None:
        """Ends the other processes."""
        for other in self._others:
            other.end()
        self._inner.close()


class _Shared:
    """Memory that all processes see: model, cohort, rows, losses, and who is next."""

    def __init__(self, context: ForkContext, size: int, nodes: int, step: int) -> None:
        self.rows: Matrix = _map(nodes * size, np.float32).reshape(nodes, size)
        self.losses: Losses = _map(nodes, np.float64)
        self._sent: Vector = _map(size, np.float32)
        self._nodes: NDArray[np.int64] = _map(nodes, np.int64)
        self._next: Synchronized[int] = context.Value("q", 0)
        self._step = step

    def begin(self, job: Job) -> None:
        self._sent[:] = job.sent
        self._nodes[: len(job.nodes)] = job.nodes
        self._next.value = 0

    def work(self, engine: Engine, round_number: int, count: int) -> None:
        """Trains until nobody is left to train."""
        while True:
            with self._next.get_lock():
                start = self._next.value
                self._next.value = start + self._step
            if start >= count:
                return
            part = slice(start, min(start + self._step, count))
            job = Job(round_number, self._sent, self._nodes[part].tolist())
            self.losses[part] = engine.train(job, self.rows[part])


class _Other:
    """Another process."""

    def __init__(self, context: ForkContext, engine: Engine, shared: _Shared) -> None:
        self._pipe, theirs = context.Pipe()
        self._process: ForkProcess = context.Process(
            target=_serve, args=(theirs, self._pipe, engine, shared), daemon=True
        )
        self._process.start()
        theirs.close()

    def send(self, round_number: int, count: int) -> None:
        # One that has ended shows when it is waited for.
        with contextlib.suppress(OSError):
            self._pipe.send((round_number, count))

    def wait(self) -> str:
        """Returns what went wrong, "" if nothing did."""
        try:
            return str(self._pipe.recv())
        except (EOFError, OSError):
            self._process.join(_WAIT_S)
            return f"a worker process ended with {self._process.exitcode}"

    def end(self) -> None:
        self._pipe.close()
        self._process.join(_WAIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, parents: Connection, engine: Engine, shared: _Shared) -> None:
    """Works until the parent closes its end of the pipe, or ends."""
    parents.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    torch.set_num_threads(1)
    while True:
        try:
            round_number, count = pipe.recv()
        except (EOFError, OSError):
            return
        problem = ""
        try:
            shared.work(engine, round_number, count)
        except Exception as error:  # noqa: BLE001 - a task may raise anything; the parent tells
            problem = f"a worker failed: {type(error).__name__}: {error}"
        pipe.send(problem)


def _map(count: int, kind: type[_Number]) -> NDArray[_Number]:
    """Returns zeros (count,) in memory that stays shared when the process forks."""
    return np.frombuffer(mmap.mmap(-1, count * np.dtype(kind).itemsize), kind)
