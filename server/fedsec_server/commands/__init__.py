"""The coordinator's commands: `fedsec ca`, `server`, `node`, `run`, `person`.

This module is imported at every start of `fedsec`, so it imports nothing; a group's module is
imported when somebody asks for that group.
"""

from fedsec.cli import CommandTree

_HERE = "fedsec_server.commands"


def register(cli: CommandTree) -> None:
    """Adds the coordinator's groups to the `fedsec` command."""
    cli.extend("ca", "The federation's root: made once, kept apart.", f"{_HERE}.ca:fill")
    cli.extend("server", "The coordinator of a federation.", f"{_HERE}.server:fill")
    cli.extend("node", "Nodes: the machines that hold data and train.", f"{_HERE}.node:fill")
    cli.extend("run", "Runs: plans that are trained.", f"{_HERE}.run:fill")
    cli.extend("person", "People who may give commands.", f"{_HERE}.person:fill")
