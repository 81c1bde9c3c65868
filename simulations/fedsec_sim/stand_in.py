"""Stands in for a program that a fork server runs: lives as long, and ends the same way.

    python -P -m fedsec_sim.stand_in ADDRESS MODULE FD MEMORY_BYTES PARENT   a worker, by its agent
    python -P -m fedsec_sim.stand_in ADDRESS MODULE FD PARENT                a run, by a coordinator

It is its parent's child in the program's place; when it is killed, the program is. It imports
little.
"""

import os
import resource
import signal
import socket
import sys
from pathlib import Path

from fedsec_client.limits import confine
from fedsec_sim.forkserver import MOST_BYTES, Request

_CODE = 16  # bytes of an exit code


def main() -> None:
    """Hands its descriptors over, waits, and ends as the program did."""
    _, address, module, descriptor, *further, parent = sys.argv
    confine(memory_bytes=0, parent=int(parent))
    request = Request(module, int(descriptor), further, str(Path.cwd()), dict(os.environ))
    data = request.to_bytes()
    if len(data) > MOST_BYTES:
        raise SystemExit(f"the environment is too large for a forked program: {len(data)} bytes")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(address)
        socket.send_fds(server, [data], [request.descriptor, 1, 2])
        for handed_over in (request.descriptor, 1, 2):
            os.close(handed_over)
        code = int(server.recv(_CODE) or b"1")
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
