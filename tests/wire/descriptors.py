"""Descriptors that this process holds, as far as the code under test can have opened them."""

import gc
from pathlib import Path


def open_fds() -> int:
    """Counts all but event descriptors and network sockets: gRPC's threads come and go."""
    gc.collect()
    unix = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            name = str(entry.readlink())
        except FileNotFoundError:  # closed meanwhile, e.g. the one that lists them
            continue
        local = name.startswith("socket:[") and name[8:-1] in unix
        count += local or not name.startswith(("socket:", "anon_inode:"))
    return count
