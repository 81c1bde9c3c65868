"""Programs on this machine that are started, watched, stopped and killed; each with a log file."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from fedsec.errors import StateError

_T = TypeVar("_T")
_TAIL = 30  # lines of a log that go into an error
_STEP = 0.02  # seconds between two looks at a state that nobody announces


class Process:
    """One program, in a session of its own, its output in `log`.

    Args:
        name: For messages.
        command: Argument list.
        log: Appended to, so that a restart does not hide why the restart was needed.
        env: Added to this process's environment.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.env = dict(env or {})
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; StateError when it was never started."""
        if self._running is None:
            raise StateError(f"{self.name} was not started")
        return self._running.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return None if self._running is None else self._running.poll()

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended; a stopped (SIGSTOP) one runs."""
        return self._running is not None and self._running.poll() is None

    def start(self) -> None:
        """Starts it; returns at once.

        Raises:
            StateError: It runs already.
        """
        if self.is_running:
            raise StateError(f"{self.name} runs already, as process {self.pid}")
        with self.log.open("ab") as output:
            self._running = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                start_new_session=True,
            )

    def kill(self) -> None:
        """Ends it by SIGKILL and waits until it is gone."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()

    def ask_to_end(self) -> None:
        """Sends SIGTERM, also to one that is stopped; returns at once."""
        if self._running is not None and self.is_running:
            self.cont()
            self._running.terminate()

    def end(self, grace: float = 5.0) -> int:
        """Asks it to end (SIGTERM) and waits; after `grace` seconds it is killed.

        Returns:
            Its exit code.
        """
        if self._running is None:
            return 0
        self.ask_to_end()
        try:
            return self._running.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._running.wait()

    def stop(self) -> None:
        """Stops it and all that it started (SIGSTOP), as when the machine sleeps."""
        for pid in self.family():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Lets it and all that it started go on (SIGCONT)."""
        for pid in self.family():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def family(self) -> list[int]:
        """Returns the ids of the process and of all that descend from it (Linux; else its own)."""
        return family_of(self.pid)

    def tail(self, lines: int = _TAIL) -> str:
        """Returns the end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    def check(self) -> None:
        """Raises StateError, with the end of the log, if it was started and has ended."""
        if self._running is not None and self.exit_code is not None:
            raise StateError(f"{self.name} ended with {self.exit_code}; its log:\n{self.tail()}")


def family_of(pid: int) -> list[int]:
    """Returns the id of a process and those of all that descend from it (Linux; else its own)."""
    found = [pid]
    for each in found:
        for threads in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):
                found.extend(int(child) for child in threads.read_text("ascii").split())
    return found


def wait_until(
    condition: Callable[[], _T | None],
    seconds: float,
    what: str,
    watched: Iterable[Process] = (),
    *,
    step: float = _STEP,
) -> _T:
    """Returns the first truthy value of `condition`.

    Args:
        condition: Asked again and again; a look at real state, not a guess at a duration.
        seconds: How long at most.
        what: What is waited for, for the error.
        watched: Processes that must not end meanwhile.
        step: Seconds between two looks.

    Raises:
        StateError: One of `watched` ended, or the time is over; with the ends of their logs.
    """
    watched = tuple(watched)
    end = time.monotonic() + seconds
    while not (value := condition()):
        for process in watched:
            process.check()
        if time.monotonic() >= end:
            logs = "".join(f"\n--- {process.name}:\n{process.tail()}" for process in watched)
            raise StateError(f"{what}: not within {seconds:.0f} s{logs}")
        time.sleep(step)
    return value


class Family:
    """Processes that end when the `with` block does, also by an exception."""

    def __init__(self) -> None:
        self._processes: list[Process] = []

    def add(self, process: Process) -> Process:
        """Returns `process`, which from now on ends with the others."""
        self._processes.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self, grace: float = 3.0) -> None:
        """Ends all of them, the last one started first, and whatever they started."""
        families = [process.family() for process in reversed(self._processes) if process.is_running]
        for process in reversed(self._processes):
            process.ask_to_end()
        for process in self._processes:
            process.end(grace)
        for pid in [pid for family in families for pid in family[1:]]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
