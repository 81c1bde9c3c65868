"""`fedsec ledger show` and `fedsec ledger verify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsec.auditlog import Record
from fedsec.console import Json, emit_json, safe, say, show, table
from fedsec.errors import ConfigError
from fedsec.ledgerfile import LedgerFile
from fedsec.privacy.ledger import Charge

if TYPE_CHECKING:
    from fedsec.commands.ledger_totals import Account

FILE_NAME = "privacy.ledger"
PLOT_WIDTH, PLOT_HEIGHT = 72, 12
NOT_FOUND = 1

Place = Annotated[
    Path, typer.Argument(metavar="PLACE", help="Directory of a coordinator or node, or a ledger.")
]
Delta = Annotated[float, typer.Option(min=1e-15, max=0.999, help="At which epsilon is reckoned.")]

_SHOW = """\b
Example:
  fedsec ledger show /var/lib/fedsec-node --delta 1e-6
"""
_VERIFY = """\b
Example:
  fedsec ledger verify /srv/fedsec --contains 9f2c...
\b
A chain of hashes shows that a record was changed or taken from the middle. That the newest ones are
missing it shows only to who knows the hash of one of them: a privacy statement quotes it.
Exit code: 0 whole; 1 the hash is not in it; 2 damaged, or there is none.
"""


def fill(group: typer.Typer) -> None:
    """Adds the commands to the group `ledger`."""
    group.command("show", epilog=_SHOW)(show_ledger)
    group.command("verify", epilog=_VERIFY)(verify)


def show_ledger(
    place: Place,
    *,
    delta: Delta = 1e-5,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw how epsilon grew, into this PNG file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what was spent: by whom it is vouched for, against whom it holds, run by run."""
    path, entries = read_ledger(place)
    # the accountant takes a second to be imported
    from fedsec.commands.ledger_totals import accounts  # noqa: PLC0415

    found = accounts([charge for _, charge in entries], delta)
    if as_json:
        emit_json({"ledger": str(path), **_head(entries), "accounts": [_json(a) for a in found]})
    elif not entries:
        say(f"{path}: nothing was charged yet.")
    else:
        _print(path, entries, found)
    if plot is not None and entries:
        _draw(plot, found)


def verify(
    place: Place,
    *,
    contains: Annotated[
        str | None, typer.Option(metavar="HASH", help="Of a record that must be in the ledger.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a ledger's chain of hashes, record by record."""
    path, entries = read_ledger(place)
    missing = contains is not None and all(record.hash != contains for record, _ in entries)
    if as_json:
        emit_json({"ledger": str(path), **_head(entries), "contains": not missing})
    elif missing:
        say(f"{path}: no record has the hash {safe(contains, 64)}; newer ones may be missing too.")
    else:
        say(f"{path}: {len(entries)} records, whole.")
        if entries:
            say(f"the newest: {entries[-1][0].hash}")
    if missing:
        raise typer.Exit(NOT_FOUND)


def read_ledger(place: Path) -> tuple[Path, list[tuple[Record, Charge]]]:
    """Returns the ledger's file and what is in it, verified.

    Raises:
        ConfigError: There is no such directory or file.
        StateError: The ledger is damaged.
    """
    path = place / FILE_NAME if place.is_dir() else place
    if not path.exists():
        if place.is_dir() and ((place / "node.toml").exists() or (place / "server.toml").exists()):
            return path, []  # the first charge makes it
        raise ConfigError(
            f"there is no ledger at {path}; name the directory of a coordinator or node"
        )
    return path, LedgerFile(path).entries()


def _head(entries: list[tuple[Record, Charge]]) -> dict[str, object]:
    newest = entries[-1][0] if entries else None
    return {
        "records": len(entries),
        "hash": newest.hash if newest else None,
        "time": newest.time if newest else None,
    }


def _print(path: Path, entries: list[tuple[Record, Charge]], found: "list[Account]") -> None:
    newest = entries[-1][0]
    say(f"{path}: {len(entries)} charges, the newest of {newest.time}")
    say(f"  its hash {newest.hash}")
    for account in found:
        say("")
        for subject, sentence in _sentences(account):
            say(f"{subject:<14} {safe(sentence)}")
        say("")
        show(table(["run", "plan", ">charges", ">epsilon", "mechanism"], _rows(account)))
        if len(account.charges) > 1:
            say("")
            typer.echo(_text_plot(account))


def _sentences(account: "Account") -> list[tuple[str, str]]:
    from fedsec.commands.ledger_totals import COLUMNS, OBSERVER_NAMES  # noqa: PLC0415 - as above

    observers = ", ".join(OBSERVER_NAMES[each] for each in account.observers)
    return [
        ("column", COLUMNS[account.column]),
        ("epsilon", f"{account.epsilon:.4g} at delta {account.delta:g}, all runs together"),
        ("hides", f"a {account.unit}; adjacency: {account.adjacency}"),
        ("from", observers or "nobody"),
        *(("rests on", trust) for trust in account.trust),
        ("accountant", account.accountant),
    ]


def _rows(account: "Account") -> list[tuple[str, str, int, str, str]]:
    from fedsec.commands.ledger_totals import prices_in_words  # noqa: PLC0415 - as above
    from fedsec.privacy.accounting import spent  # noqa: PLC0415 - as above

    return [
        (
            run.partition("/")[0],
            charges[0].plan[:12],
            len(charges),
            f"{spent([charge.price for charge in charges], account.delta):.4g}",
            prices_in_words(charges),
        )
        for run, charges in account.by_run().items()
    ]


def _json(account: "Account") -> dict[str, object]:
    return {
        "column": account.column,
        "unit": account.unit,
        "adjacency": account.adjacency,
        "holds_against": account.observers,
        "rests_on": account.trust,
        "epsilon": account.epsilon,
        "delta": account.delta,
        "accountant": account.accountant,
        "curve": account.curve(),
        "charges": [charge.to_json() for charge in account.charges],
    }


def _text_plot(account: "Account") -> str:
    from fedsec.commands.characters import drawing  # noqa: PLC0415 - only where a person looks

    title = f"epsilon at delta {account.delta:g}, by charge"
    lines = {"": {0: 0.0, **dict(account.curve())}}
    return drawing(title, lines, width=PLOT_WIDTH, height=PLOT_HEIGHT)


def _draw(path: Path, found: "list[Account]") -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as above

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    styles = ("-", "--", ":", "-.")
    for place, account in enumerate(found):
        numbers, epsilons = zip((0, 0.0), *account.curve(), strict=True)
        label = f"{account.column}, unit {account.unit}"
        style = styles[place % len(styles)]
        axes.plot(numbers, epsilons, color="black", linestyle=style, marker=".", label=label)
    axes.set_xlabel("charges")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel(f"epsilon at delta {found[0].delta:g}")
    axes.set_ylim(bottom=0)
    axes.grid(color="0.9", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    say(f"drawn into {path}")
