"""What the operating system holds a worker to. Nothing heavy is imported: it comes before all else.

A worker calls `confine` as its first act, before it imports an app, so that the limits cover
the app's imports too. (A function run between fork and exec would be simpler and may deadlock:
the agent has threads.)
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from fedsec.allocator import large_pages

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_EASILY_KILLED = "500"  # of 1000: when memory runs out, the worker goes before the agent

PASSED_ON = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPATH",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
)
"""Variables that a Python program needs; no others reach a worker unless `node.toml` names them."""

THREAD_VARIABLES = (
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


def environment(
    source: Mapping[str, str], *, threads: int, more: Iterable[str] = ()
) -> dict[str, str]:
    """Returns the environment of a worker.

    Args:
        source: The agent's own environment, which may hold secrets.
        threads: Threads of numerical libraries.
        more: Names of further variables to pass on.

    >>> environment({"PATH": "/bin", "DB_PASSWORD": "x"}, threads=2)["PATH"]
    '/bin'
    >>> "DB_PASSWORD" in environment({"DB_PASSWORD": "x"}, threads=2)
    False
    """
    wanted = (*PASSED_ON, *more)
    passed = {name: source[name] for name in wanted if name in source}
    counts = {name: str(threads) for name in THREAD_VARIABLES}
    fixed = {"FLWR_TELEMETRY_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    return {**passed, **counts, **large_pages(source), **fixed}


def confine(*, memory_bytes: int, parent: int) -> None:
    """Puts this process under its limits. On other systems than Linux some have no counterpart.

    Args:
        memory_bytes: Largest private writable memory; 0 sets no limit.
        parent: Process id of the agent; when it ends, this process is killed.

    Raises:
        SystemExit: The agent is gone already.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold data
    if memory_bytes:
        _, allowed = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory_bytes if allowed == resource.RLIM_INFINITY else min(memory_bytes, allowed)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    end_with_parent()
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may show no such file; the limit above holds anyway
            Path("/proc/self/oom_score_adj").write_text(_EASILY_KILLED)
    if os.getppid() != parent:  # it ended before the request above could take effect
        raise SystemExit(0)


def end_with_parent() -> None:
    """Has the kernel kill this process when the thread that started it ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
