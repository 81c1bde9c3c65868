"""What checks find, one line each, for people and as JSON."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from fedsec.console import emit_json, safe, say, show, table


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Args:
        check: What was looked at.
        state: How it came out.
        cause: One stable word, where it failed.
        detail: One sentence.
        advice: What to do.
    """

    check: str
    state: State
    cause: str = ""
    detail: str = ""
    advice: str = ""


def report(findings: Iterable[Finding], *, json: bool) -> bool:
    """Prints findings; returns whether none has failed.

    The first failure is the cause: what follows it depends on it, or was skipped.
    """
    found = list(findings)
    first = next((each for each in found if each.state is State.FAILED), None)
    if json:
        emit_json({"cause": first.cause if first else "", "checks": [asdict(f) for f in found]})
        return first is None
    show(table(["Check", "", "What was found"], [(f.check, f.state, f.detail) for f in found]))
    for each in found:
        if each.advice and each.state is not State.OK:
            say(f"{each.check}: {safe(each.advice, 1000)}")
    return first is None
