"""How much memory something takes, in a process where other things are allocated as well."""

import tracemalloc
from collections.abc import Callable

ATTEMPTS = 3


def peak_of(scene: Callable[[], object]) -> int:
    """Returns the least peak of three plays, in bytes that Python has traced.

    Code whose coverage is measured is replaced once it was reached often enough, at any moment;
    what a scene itself allocates is in each of its plays.
    """
    peaks = []
    for _ in range(ATTEMPTS):
        tracemalloc.start()
        try:
            scene()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)
