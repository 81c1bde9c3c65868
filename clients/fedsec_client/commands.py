"""The node's commands: `fedsec node join|start|check|doctor` and `fedsec doctor`.

This module is imported at every start of `fedsec`, so it imports nothing heavy.
"""

import os

from fedsec.cli import CommandTree

_HERE = "fedsec_client"
_NODES = "Nodes: the machines that hold data and train."


def register(cli: CommandTree) -> None:
    """Adds the node's commands to the `fedsec` command."""
    # gRPC reads this when it is imported. Else it tells of every refused handshake, in words that
    # help nobody; `fedsec doctor` says what they mean.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    cli.extend("node", _NODES, f"{_HERE}.join_command:fill", ("join",))
    cli.extend("node", _NODES, f"{_HERE}.start_command:fill", ("start",))
    cli.extend("node", _NODES, f"{_HERE}.node_commands:fill", ("check", "doctor"))
    cli.extend("node", _NODES, f"{_HERE}.data_commands:fill", ("data",))
    why = "Why does this node not reach its coordinator?"
    cli.command(
        "doctor",
        why,
        f"{_HERE}.node_commands:doctor",
        "fedsec doctor /var/lib/fedsec-node",
        "fedsec doctor --invite INVITE",
    )
