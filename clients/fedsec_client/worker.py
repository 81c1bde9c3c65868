"""The worker process: `python -m fedsec_client.worker FD MEMORY_BYTES AGENT_PID`, by the agent.

Nothing heavy is imported before the limits hold.
"""

import faulthandler
import os
import socket
import sys

from fedsec_client.limits import confine


def main() -> None:
    """Runs until the agent hangs up."""
    descriptor, memory_bytes, parent = map(int, sys.argv[1:4])
    os.set_inheritable(descriptor, False)  # what the app starts must not hold the agent's end
    confine(memory_bytes=memory_bytes, parent=parent)
    faulthandler.enable()
    from fedsec_client.execution import serve  # noqa: PLC0415 - after the limits, see above

    serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main()
