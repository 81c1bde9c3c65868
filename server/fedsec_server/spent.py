"""Whether the privacy ledger still holds what the coordinator's own runs have spent.

A ledger that was lost, or put back from a backup, has forgotten what was released since: a budget
would be spent twice. Of each round that was completed under [privacy], the database knows, and a
round is charged before it is released. So a ledger without that charge is not the newest one. What
this does not see: database and ledger put back together.
"""

import math
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from fedsec.errors import StateError
from fedsec.ledgerfile import LedgerFile
from fedsec_server.state.values import RunRecord

_SHOWN = 3  # runs that are named


def charges_here(plan: str) -> bool:
    """Says whether the coordinator charges what a plan releases; else nobody does, or the nodes.

    Args:
        plan: Its text, which was in order when it was submitted, maybe to an older version.
    """
    privacy = tomllib.loads(plan).get("privacy")
    return isinstance(privacy, dict) and privacy.get("model") != "example"


def check_spent(path: Path, runs: Iterable[RunRecord]) -> None:
    """Returns when the ledger holds a charge for each round that `runs` have completed.

    Args:
        path: Of the ledger.
        runs: Of this coordinator, read before the ledger is.

    Raises:
        StateError: It lacks some, or is damaged; says of which runs, and what to do.
        ConfigError: It cannot be read.
    """
    private = [run for run in runs if run.round and charges_here(run.plan)]
    paid = _rounds_paid(path) if private else {}
    lacking = [
        f"run {run.run_id} ({run.round} rounds, charges for {paid.get(str(run.run_id), 0)})"
        for run in private
        if paid.get(str(run.run_id), 0) < run.round
    ]
    if lacking:
        more = f", and {len(lacking) - _SHOWN} runs more" if len(lacking) > _SHOWN else ""
        raise StateError(
            f"{path} has forgotten what was spent: {', '.join(lacking[:_SHOWN])}{more}. It is not "
            "the newest ledger of this coordinator: put that one back. Until then no plan that "
            "spends from it is run, for its budget may be spent already"
        )


def _rounds_paid(path: Path) -> dict[str, float]:
    """Returns by run how many rounds were charged; where the plan was, as a whole, all of them."""
    rounds: dict[str, set[int]] = defaultdict(set)
    for _, charge in LedgerFile(path).entries():
        rounds[charge.run.partition("/")[0]].add(charge.round)
    return {run: math.inf if 0 in each else len(each) for run, each in rounds.items()}
