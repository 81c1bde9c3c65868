"""The coordinator's commands: `fedsec ca`, `server`, `node`, `roster`, `run`, `person`.

This module is imported at every start of `fedsec`, so it imports nothing of ours; a group's module
is imported when somebody asks for that group.
"""

import sys
from importlib import import_module

import typer

from fedsec.cli import CommandTree

_HERE = "fedsec_server.commands"


def register(cli: CommandTree) -> None:
    """Adds the coordinator's groups to the `fedsec` command."""
    cli.extend("ca", "The federation's root: made once, kept apart.", f"{_HERE}.ca:fill")
    cli.extend(
        "server",
        "The coordinator of a federation.",
        f"{_HERE}:fill_server",
        ("init", "start", "renew-ca"),
    )
    cli.extend("server", "", f"{_HERE}.status:fill", ("status",))
    cli.extend(
        "node",
        "Nodes: the machines that hold data and train.",
        f"{_HERE}.node:fill",
        ("invite", "list", "show", "revoke"),
    )
    cli.extend("roster", "The roster of nodes, signed by the root.", f"{_HERE}.roster:fill")
    cli.extend("run", "Runs: plans that are trained.", f"{_HERE}.run:fill")
    cli.extend("run", "Runs: plans that are trained.", f"{_HERE}.plot:fill")
    cli.extend("run", "Runs: plans that are trained.", f"{_HERE}.records:fill")
    cli.extend("person", "People who may give commands.", f"{_HERE}.person:fill")


def fill_server(group: typer.Typer) -> None:
    """Adds the commands of `fedsec server`; in `fedsec server start` gRPC may speak.

    For other commands gRPC is kept quiet. On the coordinator its line on stderr is all that tells
    why TLS refused somebody: `handshakes` reads it there.
    """
    if "start" in sys.argv:
        import_module("fedsec_server.grpc_words").let_speak()
    import_module(f"{_HERE}.server").fill(group)
