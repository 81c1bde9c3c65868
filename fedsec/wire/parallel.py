"""Work on the chunks of one content, on several processors at once.

For work that lets go of the interpreter: hashing, writing. Threads live for one call; that takes
some 0.1 ms, so that a few chunks are worth it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fedsec.processors import processors

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 4  # memory is not faster for more
_EACH = 2  # chunks, at least, for each thread


def for_each(work: Callable[[Item], Result], chunks: Sequence[Item]) -> list[Result]:
    """Returns what `work` makes of each chunk, in their order.

    An error of `work` is raised, that of the first chunk that has one, when all threads are done.
    """
    threads = min(MOST_THREADS, processors(), len(chunks) // _EACH)
    if threads > 1:
        try:
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(work, chunks))
        except RuntimeError as error:  # this process may have no more threads: then without
            if "new thread" not in str(error):
                raise
    return [work(chunk) for chunk in chunks]
