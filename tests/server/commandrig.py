"""Commands as an operator types them: in this process, and on a real terminal."""

import json
import os
import select
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint

from fedsec import cli

POINTS = [EntryPoint("server", "fedsec_server.commands:register", cli.GROUP)]
MAIN = "from fedsec.cli import main; main()"  # for a process of its own


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


Fedsec = Callable[..., Result]


def on_terminal(command: list[str], answers: list[tuple[bytes, str]]) -> bytes:
    """Runs a command on a pseudo-terminal, answers its questions, returns what it showed."""
    ours, theirs = os.openpty()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FEDSEC")}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    shown, waiting, since = b"", list(answers), 0
    try:
        while select.select([ours], [], [], 60)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end is closed: it has ended
                break
            # A question ends with a space. Before it comes, what is typed to a hidden one is lost.
            if waiting and waiting[0][0] in shown[since:] and shown.endswith(b" "):
                since = len(shown)
                os.write(ours, waiting.pop(0)[1].encode() + b"\n")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert not waiting, shown
    return shown
