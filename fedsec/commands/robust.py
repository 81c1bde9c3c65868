"""`fedsec robust list`: the rules and pre-aggregations that a plan may name."""

from collections.abc import Iterable
from dataclasses import fields

import typer

from fedsec.console import Json, emit_json, examples, say, show, table
from fedsec.plan.robust import TRUSTING, parameters
from fedsec.robust.table import PREMIXES, RULES, PremixEntry, RuleEntry

_LEGEND = """
n updates of d entries, f of them hostile; C the largest norm of an update, b the buckets, tau the
radius and L the steps of centred clipping. Sensitivity: the most that the result moves (L2 norm)
when one update is replaced; a rule without one does not go with central privacy.
Rules that need a clean root update have robust.root in the plan name data of the coordinator's.
Which rule to use, and what none of them can do: docs/robust.md.
"""


def fill(group: typer.Typer) -> None:
    """Adds the commands to the group `robust`."""
    group.command("list", epilog=examples("fedsec robust list"))(list_rules)


def list_rules(*, as_json: Json = False) -> None:
    """List the rules for `[robust]` in a plan: paper, precondition, cost, sensitivity."""
    if as_json:
        emit_json({"rules": _rules(), "before": _premixes()})
        return
    columns = ("rule", "paper", "needs", "time", "sensitivity", "parameters")
    rows = [
        (*(each[key] or "-" for key in ("name", "paper", "precondition", "cost", "sensitivity")),
         _words(each["parameters"]))
        for each in _rules()
    ]  # fmt: skip
    show(table(columns, rows))
    rows = [
        (*(each[key] for key in ("name", "paper", "precondition", "cost")),
         _words(each["parameters"]))
        for each in _premixes()
    ]  # fmt: skip
    show(table(("before", "paper", "needs", "time", "parameters"), rows, title="\nBefore a rule"))
    say(_LEGEND.rstrip())


def _rules() -> list[dict[str, object]]:
    return [
        {
            **_entry(name, entry, parameters(name)),
            "sensitivity": entry.sensitivity or None,
            "weights": entry.made_by.weighted,
            "root": name in TRUSTING,
        }
        for name, entry in RULES.items()
    ]


def _premixes() -> list[dict[str, object]]:
    return [
        _entry(name, entry, [field.name for field in fields(entry.made_by)])
        for name, entry in PREMIXES.items()
    ]


def _entry(name: str, entry: RuleEntry | PremixEntry, known: Iterable[str]) -> dict[str, object]:
    own = [parameter for parameter in known if parameter != "byzantine"]
    return {
        "name": name,
        "paper": entry.paper,
        "precondition": entry.precondition,
        "cost": entry.cost,
        "parameters": own,
    }


def _words(parameters: object) -> str:
    return ", ".join(parameters) if isinstance(parameters, list) else ""
