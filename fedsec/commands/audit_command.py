"""`fedsec privacy audit`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from fedsec.commands.plans import read_plan
from fedsec.console import Json, emit_json, say, show, table
from fedsec.errors import ConfigError
from fedsec.plan import Privacy
from fedsec.privacy.audit import MIN_SIZE

if TYPE_CHECKING:
    from fedsec.flower.auditing import Canaries, Measured

FAILED = 1
REACH = 0.5  # of what the claim counts with; less shows too little
MAX_ROUNDS = 10

EPILOG = """\b
Example:
  fedsec privacy audit plan.toml --canaries 500 --size 100000
\b
The mechanism is the one that a run uses, with the auditor's vectors in place of trained updates.
Noise: rejected where it is 10 % too small. Canaries: vectors as long as the clip, in directions
that the auditor knows; who sees the released models is the adversary. The estimate is no
certificate; the bound is one, and loose.
Exit code: 0 nothing was found; 1 the plan is less private than it says.
"""


def audit(
    file: Annotated[Path, typer.Argument(metavar="PLAN", help="With a table [privacy].")],
    *,
    canaries: Annotated[int, typer.Option(min=20, max=100_000, help="For each figure.")] = 200,
    size: Annotated[
        int, typer.Option(min=MIN_SIZE, max=10_000_000, help="Entries of the audited model.")
    ] = 20_000,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Of the plan that are audited; at most 10.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of directions and coins; not of noise.")] = 1,
    as_json: Json = False,
) -> None:
    """Try to break a plan's privacy: measure its noise, and find canaries in what it releases."""
    from fedsec.flower.audited import mechanism_of  # noqa: PLC0415 - loads torch and opacus
    from fedsec.flower.auditing import CONFIDENCE, Planting, measure  # noqa: PLC0415 - as above

    plan = read_plan(file)
    mechanism = mechanism_of(plan)
    privacy = plan.privacy
    if privacy is None:
        raise ConfigError("the plan has no table [privacy]: there is nothing to audit")
    rng = np.random.default_rng(seed)
    measured = measure(mechanism, clip=privacy.clip, size=size, rng=rng)
    audited = min(rounds or MAX_ROUNDS, MAX_ROUNDS, plan.learning[1].rounds)
    planted = Planting(mechanism, privacy.clip, privacy.delta, size, canaries, audited, rng)()
    passed = planted.passed and all(each.passed for each in measured)
    if as_json:
        found = [
            asdict(each)
            | {"multiplier": each.multiplier, "passed": each.passed, "reach": each.reach}
            for each in measured
        ]
        shown = asdict(planted) | {"confidence": CONFIDENCE, "passed": planted.passed}
        emit_json({"noise": found, "canaries": shown, "passed": passed})
    else:
        _print(measured, planted, CONFIDENCE)
        say("")
        say("Nothing was found." if passed else "The plan is less private than it says.")
        for sentence in _left_out(privacy, measured):
            say(sentence)
    if not passed:
        raise typer.Exit(FAILED)


def _verdict(each: "Measured") -> str:
    if not each.passed:
        return "TOO LITTLE"
    return "ok" if each.reach >= REACH else "not measured"


def _left_out(privacy: Privacy, measured: "list[Measured]") -> Iterator[str]:
    """Yields what the audit did not show."""
    if any(each.reach < REACH for each in measured):
        yield (
            "Not measured: no rows were found that move the result by half of what the claim counts"
            " with; noise for less would pass there. Such a rule rests on its proof and tests."
        )
    beside = ["figures of nodes"] if privacy.metrics else []
    beside += ["the count by which the clip adapts"] if privacy.clip_quantile is not None else []
    if beside:
        yield f"Not looked at: {' and '.join(beside)}, whose noise is of its own."


def _print(measured: "list[Measured]", planted: "Canaries", confidence: float) -> None:
    say("Noise over the most that one unit can change:")
    rows = [
        (
            each.survivors,
            f"{each.multiplier:.4g}",
            f"{each.claimed:g}",
            f"{each.p:.2g}",
            f"{each.reach:.2f}",
            _verdict(each),
            each.worst,
        )
        for each in measured
    ]
    columns = [">there", ">multiplier", ">claimed", ">p", ">reach", "", "worst rows"]
    show(table(columns, rows))
    say("")
    say(f"{planted.count} canaries in {planted.rounds} rounds, at delta {planted.delta:g}:")
    rounded = [
        ("claimed epsilon", f"{planted.claimed:.4g}", ""),
        ("estimate", f"{planted.estimate.epsilon:.4g}", "no certificate"),
        ("at least, by chance", f"{planted.estimate.low:.4g}", "estimate less four errors"),
        ("certified bound", f"{planted.bound:.4g}", f"at {confidence:.0%} confidence"),
        ("", "ok" if planted.passed else "TOO HIGH", ""),
    ]
    show(table(["", ">epsilon", ""], rounded))
