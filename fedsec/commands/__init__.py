"""What the library itself adds to the `fedsec` command. Imports nothing: it runs at every start."""

from typing import Protocol


class Tree(Protocol):
    """What of `fedsec.cli.CommandTree` is used here; the command stands above its parts."""

    def extend(self, name: str, help: str, fill: str) -> None:  # noqa: A002 - typer's own word
        """Adds to a group."""
        ...

    def command(self, name: str, help: str, function: str, *lines: str) -> None:  # noqa: A002
        """Adds a command without a group."""
        ...


def register(cli: Tree) -> None:
    """Adds the groups `plan`, `task`, `privacy`, `ledger`, `robust`, and `fedsec version`."""
    cli.extend("plan", "Plans: what is learned, by whom and how.", "fedsec.commands.plans:fill")
    cli.extend("privacy", "What privacy costs, before and after.", "fedsec.commands.privacy:fill")
    cli.extend("ledger", "Privacy ledgers: what was spent.", "fedsec.commands.ledgers:fill")
    cli.extend("robust", "Rules that withstand hostile nodes.", "fedsec.commands.robust:fill")
    cli.extend("task", "Tasks: what can be learned.", "fedsec.commands.tasks:fill")
    cli.command(
        "version", "What is installed.", "fedsec.commands.versions:version", "fedsec version"
    )
