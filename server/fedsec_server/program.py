"""The coordinator as a program: one per directory, ended by signals.

SIGTERM or SIGINT: runs are stopped, answers on their way go out, all that happened is written.
A second one: run processes are killed and the program ends at once.
"""

import asyncio
import fcntl
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsec.allocator import keep_freed_memory
from fedsec.console import emit_json, say
from fedsec.errors import ConfigError, StateError
from fedsec_server.coordinator import Coordinator, coordinate
from fedsec_server.grpc_words import ASKED
from fedsec_server.handshakes import handshakes_watched
from fedsec_server.layout import Layout, find_coordinator, load_settings
from fedsec_server.logs import log_to, stop_logging
from fedsec_server.settings import Limits

FILES_BASE = 256  # listeners, database, logs, libraries
FILES_PER_RUN = 64  # contents that are on their way
SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(directory: Path, *, json: bool = False) -> None:
    """Runs the coordinator of a directory until a signal ends it.

    Args:
        directory: Made by ``fedsec server init``.
        json: Print where it listens as one line of JSON, and nothing else.

    Raises:
        ConfigError: The directory, a setting or an address cannot be used.
        IdentityError: An authority cannot be used.
        StateError: A coordinator of this directory runs already, its database is newer, or a
            second signal ended it.
    """
    keep_freed_memory()
    layout = find_coordinator(directory)
    with only_one(layout):
        allow_files(load_settings(layout).limits)
        with (
            handshakes_watched(whole=ASKED) as watch,
            _logging_to(layout.log),
            _until_signal() as ended,
        ):
            async with coordinate(layout, os.getpid(), watch=watch) as coordinator:
                _introduce(layout, coordinator, json=json)
                await ended.wait()
                if not json:
                    say("The coordinator is shutting down; a second signal ends it at once.")


@contextmanager
def only_one(layout: Layout) -> Iterator[None]:
    """Holds the directory's lock, which the system lets go when the process ends in any way.

    Raises:
        StateError: Another process holds it; says which.
        ConfigError: The disk is full, read-only, or not this user's.
    """
    descriptor = _lock(layout)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(layout: Layout) -> int:
    try:
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise
    except BlockingIOError:
        raise StateError(
            f"the coordinator of {layout.directory} runs already, as process {holder}"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{layout.lock} cannot be written: {error.strerror}; the coordinator needs a disk that "
            "takes its state, its log and its models"
        ) from error
    return descriptor


@contextmanager
def _until_signal() -> Iterator[asyncio.Event]:
    """Gives an event that the first signal sets. The second one ends the block.

    Raises:
        StateError: The second signal came.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    task = asyncio.current_task()
    forced = False

    def on_signal() -> None:
        nonlocal forced
        if ended.is_set() and task is not None:
            forced = True
            task.cancel()
        ended.set()

    for each in SIGNALS:
        loop.add_signal_handler(each, on_signal)
    try:
        yield ended
    except asyncio.CancelledError:
        if not forced:
            raise
        raise StateError("ended at once by a second signal; active runs were killed") from None
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)


def allow_files(limits: Limits) -> None:
    """Lets this process open as many files as it may, and looks whether they are enough.

    A node's connection is one, for a moment two when its certificate was renewed; a content is one;
    run processes have a few each.

    Raises:
        ConfigError: They are fewer than the settings may come to need.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    needed = FILES_BASE + 2 * limits.max_nodes + FILES_PER_RUN * limits.max_runs
    if most != resource.RLIM_INFINITY and most < needed:
        raise ConfigError(
            f"this process may open {most} files; limits.max_nodes = {limits.max_nodes} and "
            f"max_runs = {limits.max_runs} can come to need {needed}. Raise the limit "
            f"(`LimitNOFILE={needed}` in the unit of systemd, `ulimit -Hn {needed}` as root "
            "before the start), or lower max_nodes in server.toml"
        )


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    log_to(path)
    try:
        yield
    finally:
        stop_logging()


def _introduce(layout: Layout, coordinator: Coordinator, *, json: bool) -> None:
    told, really = coordinator.told, coordinator.listening.addresses
    if json:
        facts = {
            "federation": coordinator.settings.federation,
            "process": os.getpid(),
            "addresses": told,
            "listening": really,
            "log": str(layout.log),
        }
        emit_json(facts, one_line=True)
        return
    say(f"Coordinator of {coordinator.settings.federation}, process {os.getpid()}")
    say(f"  nodes join at    {told['enrol']}  (listening on {really['enrol']})")
    say(f"  nodes work at    {told['fleet']}  (listening on {really['fleet']})")
    say(f"  people command   {told['admin']}  (listening on {really['admin']})")
    say(f"  log              {layout.log}")
    say("  Ctrl-C or SIGTERM stops it")
