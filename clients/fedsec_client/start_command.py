"""`fedsec node start`: the node's agent as a program."""

import asyncio
import logging
import sys

import typer

from fedsec.allocator import keep_freed_memory
from fedsec_client.agent import Agent, ExitCode
from fedsec_client.arguments import NodeDirectory
from fedsec_client.enrolment import Enrolment
from fedsec_client.lock import locked
from fedsec_client.settings import NodeSettings

_START = """\b
Example:
  fedsec node start /var/lib/fedsec-node
\b
Exit codes: 0 told to end; 2 cannot start; 10 not accepted any more (revoked); 11 the certificate
expired beyond renewal; 12 the coordinator speaks another version; 13 another agent has this
node's identity. From 10 on, starting again does not help.
"""


def fill(group: typer.Typer) -> None:
    """Adds `fedsec node start`."""
    group.command("start", epilog=_START)(start)


def start(directory: NodeDirectory) -> None:
    """Run the node's agent until it is told to end (SIGTERM or Ctrl-C)."""
    keep_freed_memory()
    settings = NodeSettings.load(directory)
    with locked(directory):
        enrolment = Enrolment.load(directory)
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
        )
        code = asyncio.run(_run(enrolment, settings))
    if code is not ExitCode.CLEAN:
        raise typer.Exit(code)


async def _run(enrolment: Enrolment, settings: NodeSettings) -> ExitCode:
    return await Agent(enrolment, settings).run()
