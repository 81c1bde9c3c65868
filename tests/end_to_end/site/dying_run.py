"""The run process of a coordinator, which dies where it is told to, in its second release.

In place of `fedsec_server.run_process`, which it is but for that. The file that DEATH names says at
which failpoint; empty: at none. Beside it stands what was reached, each with a line of its own.
"""

import os
import signal
import sys
from pathlib import Path

from fedsec import failpoints
from fedsec_server import run_process

RELEASE = 2


class Death:
    """Kills this process at the first turn of a failpoint, once the release was begun."""

    def __init__(self, path: Path) -> None:
        self._where = path.read_text()
        self._made = 0
        self._trace = path.with_suffix(".reached").open("w")

    def __call__(self, name: failpoints.Failpoint) -> None:
        self._made += name == "release made"
        print(name, file=self._trace, flush=True)
        begun = self._made >= RELEASE or name == "log created"  # which is at the first
        if name == self._where and begun:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    failpoints.on_reach = Death(Path(os.environ["DEATH"]))
    sys.exit(run_process.main(sys.argv[1:]))
