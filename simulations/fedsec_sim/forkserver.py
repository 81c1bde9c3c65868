"""Workers and run processes on one machine, forked from one process that has torch loaded.

    agent, coordinator --start--> stand_in --request, descriptors--> fork server --fork--> program

To import torch takes seconds and 150 MB that are the process's own; a fork takes milliseconds and
shares them. So a federation on one machine starts in the time of one worker. It is for demos, tests
and simulations: there all programs are one owner's. On a machine of its own a node starts its
workers by itself (`fedsec_client.processes`), a coordinator its runs (`fedsec_server.runner`).

    python -P -m fedsec_sim.forkserver FD MODULE...     on the listening socket FD, by `ForkServer`

The process has one thread, so that it forks while nothing else runs. What a child must not have in
common with its siblings is drawn anew: the randomness of Python and OpenSSL by themselves, that of
numpy's global generator here.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from fedsec_client.limits import THREAD_VARIABLES, end_with_parent

LOADED = (
    "torch",
    "flwr.clientapp",
    "fedsec_client.execution",
    "fedsec_client.client_app",
    "fedsec.privacy.accounting",
    "fedsec.tasks.private_training",
    "torch._dynamo",  # with the first optimiser of torch's
    "fedsec_server.run_process",
    "fedsec_server.server_app",
)
"""What most workers and runs import."""

FIRST_FREE = 64  # descriptors that came along lie beyond it, out of the way of those wanted
MOST_BYTES = 1 << 17  # of a request
_KIND = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_STREAM)


@dataclass(frozen=True, slots=True)
class Request:
    """A program to fork.

    Attributes:
        module: Run as `python -P -m` would.
        descriptor: Number that the program's end of its starter's socket has: its first argument.
        further: Arguments between that and the last, which is the parent's process id.
        directory: Where it works.
        environment: All of its variables.
    """

    module: str
    descriptor: int
    further: list[str]
    directory: str
    environment: dict[str, str]

    def to_bytes(self) -> bytes:
        """Returns it for the socket."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Returns what `to_bytes` wrote; it comes from a process of the same user."""
        return cls(**json.loads(data))


class ForkServer:
    """The process, as others see it; a context manager.

    Args:
        loaded: Modules that it imports before it forks.

    Attributes:
        address: Path of its socket, in a directory that only this user may enter.
    """

    def __init__(self, loaded: Iterable[str] = LOADED) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="fedsec-fork-")
        self.address = str(Path(self._directory.name) / "s")
        with socket.socket(socket.AF_UNIX, _KIND) as listener:
            listener.bind(self.address)
            listener.listen(128)
            one_thread = dict.fromkeys(THREAD_VARIABLES, "1")
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(listener.fileno()), *loaded],
                stdin=subprocess.PIPE,  # whose end says that this process has ended
                env={**os.environ, **one_thread},
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def end(self) -> None:
        """Ends it and the programs that are left."""
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()


def available() -> bool:
    """Returns whether this system can tell when a forked program has ended: Linux can."""
    return hasattr(os, "pidfd_open")


def shared() -> ForkServer:
    """Returns this process's fork server, which ends with it."""
    if not _started().is_running:
        _started.cache_clear()
    return _started()


@cache
def _started() -> ForkServer:
    made = ForkServer()
    atexit.register(made.end)
    return made


# --- the program ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Child:
    """A program, and who asked for it."""

    pid: int
    pidfd: int
    asker: socket.socket
    ended: bool = False


class _Server:
    """Forks, and tells who asked how the program ended.

    Args:
        listener: Where requests come in.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._watched = selectors.DefaultSelector()
        self._watched.register(listener, selectors.EVENT_READ)
        self._watched.register(sys.stdin, selectors.EVENT_READ)

    def serve(self) -> Request:
        """Serves until the parent ends; returns in a child, and says what that is to do.

        Raises:
            SystemExit: The parent has ended.
        """
        while True:
            for key, _ in self._watched.select():
                match key.data:
                    case None if key.fileobj is self._listener:
                        asker, _ = self._listener.accept()
                        self._watched.register(asker, selectors.EVENT_READ)
                    case None if key.fileobj is sys.stdin:
                        raise SystemExit(0)
                    case None:
                        asker = key.fileobj  # type: ignore[assignment]
                        self._watched.unregister(asker)
                        if (request := self._fork(asker)) is not None:
                            return request
                    case child if not child.ended:  # both of its descriptors may tell at once
                        self._end(child)

    def _fork(self, asker: socket.socket) -> Request | None:
        """Returns the request in the child; None in the parent."""
        data, descriptors, _, _ = socket.recv_fds(asker, MOST_BYTES, 3)
        if not data:
            asker.close()
            return None
        request = Request.from_bytes(data)
        pid = os.fork()
        if pid == 0:
            self._let_go()
            asker.close()
            descriptors.append(os.open(os.devnull, os.O_RDONLY))
            _take(descriptors, (request.descriptor, 1, 2, 0))
            return request
        for each in descriptors:
            os.close(each)
        child = _Child(pid, os.pidfd_open(pid), asker)
        self._watched.register(child.pidfd, selectors.EVENT_READ, child)
        self._watched.register(asker, selectors.EVENT_READ, child)  # it ends when its starter does
        return None

    def _end(self, child: _Child) -> None:
        """Ends a program, or finds that it has; whoever is left to hear of it is told how."""
        child.ended = True
        for kill in (os.killpg, os.kill):  # whatever its app has started, too
            with suppress(ProcessLookupError, PermissionError):
                kill(child.pid, signal.SIGKILL)
        _, status = os.waitpid(child.pid, 0)
        with suppress(OSError):
            child.asker.send(str(os.waitstatus_to_exitcode(status)).encode())
        for each in (child.pidfd, child.asker):
            with suppress(KeyError):
                self._watched.unregister(each)
        os.close(child.pidfd)
        child.asker.close()

    def _let_go(self) -> None:
        """Closes, in a child, what is the server's."""
        for key in list(self._watched.get_map().values()):
            os.close(key.fd)
        self._watched.close()


def _take(descriptors: list[int], wanted: tuple[int, ...]) -> None:
    """Gives descriptors the numbers that are wanted."""
    import fcntl  # noqa: PLC0415 - not on every system on which this module is imported

    free = max(FIRST_FREE, *wanted) + 1
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD, free) for each in descriptors]
    for each in descriptors:
        os.close(each)
    for each, number in zip(moved, wanted, strict=True):
        os.dup2(each, number)
        os.close(each)


def _become(request: Request) -> int:
    """Runs the program in this process; returns its exit code."""
    end_with_parent()
    os.setsid()
    os.chdir(request.directory)
    os.environ.clear()
    os.environ.update(request.environment)
    further = request.environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [each for each in further if each and each not in sys.path]
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # the global generator would be that of every sibling
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(int(request.environment.get("OMP_NUM_THREADS", "1")))
    sys.argv = [request.module, str(request.descriptor), *request.further, str(os.getppid())]
    try:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does at the end
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Loads what programs need, and forks them until its parent ends."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would write to every page that it shares
    code = _become(_Server(listener).serve())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
