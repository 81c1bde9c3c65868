"""On how many processors this process may run."""

import os


def processors() -> int:
    """Returns how many processors the system lets this process use, >= 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
