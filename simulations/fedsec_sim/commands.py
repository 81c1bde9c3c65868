"""What this package adds to the `fedsec` command."""

from fedsec.cli import CommandTree


def register(cli: CommandTree) -> None:
    """Adds `fedsec demo`."""
    cli.command(
        "demo", "A federation of ten nodes on this machine.", "fedsec_sim.demo:demo_command"
    )
