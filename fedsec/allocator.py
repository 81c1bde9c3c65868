"""How the C library takes memory from the system, for programs that move megabytes about.

A page that was given back costs a fault, a cleared page and its accounting when it is wanted again:
more than the copy that goes into it. glibc gives back what is free at the end of its heap, so that
a program through which chunks of a megabyte run does so for each of them; and it never asks for
large pages by itself. Both can be told. Elsewhere than on Linux with glibc nothing is changed.

Source: mallopt(3); The GNU C Library manual, "Memory Allocation Tunables" (2.35 for hugetlb).
"""

import ctypes
import sys
from collections.abc import Mapping

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 64 << 20  # at the end of a heap; several chunks in each state between two sockets
_OWN_MAPPING_BYTES = 16 << 20  # from which on memory is asked for, and given back, by itself
_TUNABLES = "GLIBC_TUNABLES"


def keep_freed_memory() -> None:
    """Has this process keep up to 64 MiB that it has freed, instead of giving it back at once."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)


def large_pages(source: Mapping[str, str]) -> dict[str, str]:
    """Returns the variable with which a process that is about to start asks for large pages.

    For processes that hold whole models. What the operator set is kept.

    Args:
        source: The environment of the process that starts it.

    >>> large_pages({})
    {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}
    >>> large_pages({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})
    {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=0'}
    """
    return {_TUNABLES: source.get(_TUNABLES, "glibc.malloc.hugetlb=1")}
