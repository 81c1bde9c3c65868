"""Files mapped into memory, without a descriptor that stays open for each.

Python's own `mmap` keeps a duplicate of the descriptor as long as the mapping lives. Arrays may
refer to content for as long as an app likes, and a thousand messages would be a thousand open
files; here the mapping alone is left. It goes when the last view of it is forgotten.

Source: mmap(2), munmap(2).
"""

import ctypes
import mmap
import os
import weakref

# Private, for a kernel before 6.7 refuses shared mappings of a file sealed against writing. As
# nobody writes, there is never a page of our own. And one pass over the page table, not a fault a
# page, where the system can.
_FLAGS = mmap.MAP_PRIVATE | getattr(mmap, "MAP_POPULATE", 0)
_WRITABLE = mmap.PROT_READ | mmap.PROT_WRITE
_FAILED = ctypes.c_void_p(-1).value

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def map_file(fd: int, length: int, *, own: bool = False) -> memoryview:
    """Returns the first `length` bytes of a file; `fd` may be closed afterwards.

    The file must not become shorter while a view of it lives: to read what is gone is a crash.

    Args:
        fd: Open for reading.
        length: Bytes, > 0.
        own: Whether the bytes may be written to: the file stays as it is, and a page that is
            written to is copied then. Else they are read-only.

    Raises:
        OSError: The system maps no more, or not this file.
    """
    access, flags = (_WRITABLE, mmap.MAP_PRIVATE) if own else (mmap.PROT_READ, _FLAGS)
    address = _LIBC.mmap(None, length, access, flags, fd, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    pages = (ctypes.c_ubyte * length).from_address(address)
    # Not at the end of the process: who still reads then must find the pages there.
    weakref.finalize(pages, _LIBC.munmap, address, length).atexit = False
    view = memoryview(pages).cast("B")
    return view if own else view.toreadonly()
