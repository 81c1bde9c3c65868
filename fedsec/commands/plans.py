"""`fedsec plan check` and `fedsec plan example`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsec.commands.new_plan import NEW, new
from fedsec.commands.sizes import Size, size_of
from fedsec.console import Json, emit_json, examples, safe, say
from fedsec.errors import ConfigError
from fedsec.files import read_public
from fedsec.flower.publishing import cost_of
from fedsec.plan import FederationPlan, toml_example
from fedsec.plan.federation import MAX_BYTES
from fedsec.plan.reference import reference_page
from fedsec.plan.summary import summary
from fedsec.plan.terms import terms

if TYPE_CHECKING:
    from fedsec.commands.coupling import Coupling

NOT_ROBUST = 1


def fill(group: typer.Typer) -> None:
    """Adds the commands to the group `plan`."""
    group.command("check", epilog=examples("fedsec plan check plan.toml"))(check)
    group.command("example", epilog=examples("fedsec plan example > plan.toml"))(example)
    group.command("new", epilog=NEW)(new)
    group.command("reference", epilog=examples("fedsec plan reference > plan.md"))(reference)


def check(
    file: Annotated[Path, typer.Argument(help="The plan, as TOML.")],
    *,
    size: Size = None,
    as_json: Json = False,
) -> None:
    """Check a plan: print what it says, or all that is wrong with it.

    Exit code 1: something is wrong, or the privacy noise takes the robust rule's promise away.
    """
    plan = read_plan(file)
    costs = _cost(plan)
    under = _under_noise(plan, size)
    if as_json:
        told = {"digest": plan.digest, "plan": json.loads(plan.canonical_json())}
        told |= {} if costs is None else {"epsilon": costs}
        emit_json(told | ({} if under is None else {"under_noise": under.to_json()}))
    else:
        _tell(file, plan, costs, under)
    if under is not None and not under.robust:
        raise typer.Exit(NOT_ROBUST)


def _tell(file: Path, plan: FederationPlan, costs: float | None, under: "Coupling | None") -> None:
    robust = under is None or under.robust
    say(f"{file} is sound{'.' if robust else ', but NOT ROBUST under the noise that it asks for.'}")
    for subject, sentence in summary(plan):
        if subject == "robust" and not robust:
            sentence = sentence.replace("withstands", "would withstand, without noise,")  # noqa: PLW2901
        say(f"  {subject:<12} {safe(sentence)}")
    if costs is not None:
        say(f"  {'costs':<12} epsilon {costs:.4g} in all; `fedsec privacy spend` says more")
    for place, sentence in enumerate(under.sentences() if under is not None else ()):
        say(f"  {'' if place else 'under noise':<12} {sentence}")


def _under_noise(plan: FederationPlan, size: int | None) -> "Coupling | None":
    """Returns how the plan's rule stands under its noise; None where there is no such pair."""
    from fedsec.commands.coupling import coupled, coupling_of  # noqa: PLC0415 - takes seconds

    return coupling_of(plan, size_of(plan, size)) if coupled(plan) else None


def _cost(plan: FederationPlan) -> float | None:
    """Returns the epsilon of the whole plan; None where it has none, or each node its own.

    Raises:
        ConfigError: It is more than the plan says.
    """
    if plan.privacy is None or plan.privacy.model == "example":
        return None
    return cost_of(terms(plan), plan.privacy)


def example() -> None:
    """Print a commented plan to start from: `fedsec plan example > my.plan.toml`."""
    typer.echo(toml_example(), nl=False)


def reference() -> None:
    """Print every key of a plan: what it says, what is allowed, its default. In Markdown."""
    typer.echo(reference_page(), nl=False)


def read_plan(file: Path) -> FederationPlan:
    """Returns the plan in `file`.

    Raises:
        ConfigError: It cannot be read, or is wrong.
    """
    try:
        text = read_public(file, limit=MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text: {error.reason}") from error
    return FederationPlan.parse(text, str(file))
