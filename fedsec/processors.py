"""On how many processors this process may run."""

import os


def processors() -> int:
    """Returns how many processors the system lets this process use, >= 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_allowed() -> int:
    """Returns how many threads may compute: one for each processor, or OMP_NUM_THREADS if less.

    Of a list, one number for each level of nesting, the first counts.
    """
    cores, asked = processors(), os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores
