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

from fedsec.console import say
from fedsec.errors import StateError
from fedsec_server.coordinator import Coordinator, coordinate
from fedsec_server.layout import Layout, find_coordinator
from fedsec_server.logs import log_to, stop_logging

SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(directory: Path, *, quiet: bool = False) -> None:
    """Runs the coordinator of a directory until a signal ends it.

    Args:
        directory: Made by ``fedsec server init``.
        quiet: Do not print where it listens.

    Raises:
        ConfigError: The directory, a setting or an address cannot be used.
        IdentityError: An authority cannot be used.
        StateError: A coordinator of this directory runs already, its database is newer, or a
            second signal ended it.
    """
    layout = find_coordinator(directory)
    with only_one(layout):
        _allow_many_files()
        log_to(layout.log)
        try:
            with _until_signal() as ended:
                async with coordinate(layout, os.getpid()) as coordinator:
                    if not quiet:
                        _introduce(layout, coordinator)
                    await ended.wait()
                    say("The coordinator is shutting down; a second signal ends it at once.")
        finally:
            stop_logging()


@contextmanager
def only_one(layout: Layout) -> Iterator[None]:
    """Holds the directory's lock, which the system lets go when the process ends in any way.

    Raises:
        StateError: Another process holds it; says which.
    """
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise StateError(
                f"the coordinator of {layout.directory} runs already, as process {holder}"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


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


def _allow_many_files() -> None:
    """Lets this process open as many files as it may: a connection or a content is one each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _introduce(layout: Layout, coordinator: Coordinator) -> None:
    told, really = coordinator.told, coordinator.listening.addresses
    say(f"Coordinator of {coordinator.settings.federation}, process {os.getpid()}")
    say(f"  nodes join at    {told['enrol']}  (listening on {really['enrol']})")
    say(f"  nodes work at    {told['fleet']}  (listening on {really['fleet']})")
    say(f"  people command   {told['admin']}  (listening on {really['admin']})")
    say(f"  log              {layout.log}")
    say("  Ctrl-C or SIGTERM stops it")
