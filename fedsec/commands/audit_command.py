"""`fedsec privacy audit`."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from fedsec.commands.plans import read_plan
from fedsec.console import Json, emit_json, say, show, table
from fedsec.errors import ConfigError
from fedsec.privacy.audit import MIN_SIZE

if TYPE_CHECKING:
    from fedsec.flower.auditing import Canaries, Measured, Part

FAILED = 1
ROUNDING = 1e-9
REACH = 0.85  # of what the claim counts with; of less it is said how much was measured
MAX_ROUNDS = 10

EPILOG = """\b
Example:
  fedsec privacy audit plan.toml --canaries 500 --size 100000
\b
The mechanism is the one that a run uses, with the auditor's vectors in place of trained updates.
Noise: rejected where it is 10 % too small, on figures of nodes and on the count by which a clip
adapts where it is 15 % too small. Canaries: vectors as long as the clip, in directions that the
auditor knows; who sees the released models is the adversary. The estimate is no certificate; the
bound is one, and loose.
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
    # Loads torch and opacus.
    from fedsec.flower.auditing import CONFIDENCE, Planting, measure, parts_of  # noqa: PLC0415

    plan = read_plan(file)
    parts = parts_of(plan, size)
    updates, privacy = parts[0], plan.privacy
    if privacy is None:
        raise ConfigError("the plan has no table [privacy]: there is nothing to audit")
    rng = np.random.default_rng(seed)
    measured = [
        Found(part.name, each)
        for part in parts
        for each in measure(part.mechanism, clip=part.clip, size=part.size, rng=rng)
    ]
    cost = Cost.of(parts)
    audited = min(rounds or MAX_ROUNDS, MAX_ROUNDS, plan.learning[1].rounds)
    plant = Planting(updates.mechanism, privacy.clip, privacy.delta, size, canaries, audited, rng)
    planted = plant()
    passed = cost.passed and planted.passed and all(each.noise.passed for each in measured)
    if as_json:
        found = [each.told() for each in measured]
        shown = asdict(planted) | {"confidence": CONFIDENCE, "passed": planted.passed}
        emit_json({"noise": found, "cost": asdict(cost), "canaries": shown, "passed": passed})
    else:
        _print(measured, cost, planted, CONFIDENCE)
        say("")
        say("Nothing was found." if passed else "The plan is less private than it says.")
        for sentence in _left_out(measured):
            say(sentence)
    if not passed:
        raise typer.Exit(FAILED)


@dataclass(frozen=True)
class Found:
    """What was found of the noise on a part of what a round releases."""

    part: str
    noise: "Measured"

    def told(self) -> dict[str, object]:
        """Returns it for JSON."""
        noise = self.noise
        more = {"multiplier": noise.multiplier, "passed": noise.passed, "reach": noise.reach}
        return {"of": self.part, **asdict(noise), **more}

    def row(self) -> tuple[object, ...]:
        """Returns it for a table."""
        noise = self.noise
        shares = (f"{noise.claimed:.4g}", f"{noise.p:.2g}", f"{noise.reach:.2f}")
        verdict = "ok" if noise.passed else "TOO LITTLE"
        return (
            self.part,
            noise.survivors,
            f"{noise.multiplier:.4g}",
            *shares,
            verdict,
            noise.worst,
        )


@dataclass(frozen=True)
class Cost:
    """The multiplier of one release that costs what all parts of a round do, beside the charge."""

    together: float
    charged: float

    @classmethod
    def of(cls, parts: "Sequence[Part]") -> "Cost":
        """Returns it for a plan's parts."""
        from fedsec.flower.auditing import charged, together  # noqa: PLC0415 - as above

        return cls(together(parts), charged(parts[0].mechanism))

    @property
    def passed(self) -> bool:
        """Whether no more was charged for than is there."""
        return self.charged <= self.together * (1 + ROUNDING)


def _left_out(measured: list[Found]) -> Iterator[str]:
    """Yields what the audit did not show."""
    for part in dict.fromkeys(each.part for each in measured):
        reach = max(each.noise.reach for each in measured if each.part == part)
        if reach < REACH:
            yield (
                f"Measured in part, {part}: the rows that were found move them by {reach:.0%} of "
                "what the claim counts with; noise that is enough for these rows would pass. For "
                "others it rests on the proof and tests of the rule's bound."
            )


def _print(measured: list[Found], cost: Cost, planted: "Canaries", confidence: float) -> None:
    say("Noise over the most that one unit can change:")
    columns = ["of", ">there", ">multiplier", ">claimed", ">p", ">reach", "", "worst rows"]
    show(table(columns, [each.row() for each in measured]))
    say(
        f"Together as one release with multiplier {cost.together:.4g}; the ledger is charged for "
        f"{cost.charged:.4g}: {'ok' if cost.passed else 'TOO LITTLE'}"
    )
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
