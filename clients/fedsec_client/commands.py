"""The node's commands: `fedsec node join|start|check|doctor` and `fedsec doctor`.

This module is imported at every start of `fedsec`, so it imports nothing heavy.
"""

import os

from fedsec.cli import CommandTree

_NODE = "fedsec_client.node_commands"


def register(cli: CommandTree) -> None:
    """Adds the node's commands to the `fedsec` command."""
    # gRPC reads this when it is imported. Else it tells of every refused handshake, in words that
    # help nobody; `fedsec doctor` says what they mean.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    cli.extend("node", "Nodes: the machines that hold data and train.", f"{_NODE}:fill")
    cli.extend("node", "", "fedsec_client.data_commands:fill")
    cli.command("doctor", "Why does this node not reach its coordinator?", f"{_NODE}:doctor")
