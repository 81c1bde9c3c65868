"""`fedsec privacy spend` and `fedsec privacy calibrate`."""

import itertools
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedsec.commands import audit_command
from fedsec.commands.plans import read_plan
from fedsec.commands.sizes import Size, size_of
from fedsec.commands.spending import (
    Noise,
    Spending,
    calibrated,
    nodes_sentence,
    noise_of,
    noise_of_figures,
    spending_of,
)
from fedsec.commands.statement_command import write_statement
from fedsec.console import Json, emit_json, examples, safe, say, show, table, waiting, warn
from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan, Privacy
from fedsec.plan.figures import over, update_multiplier
from fedsec.plan.privacy import drawn_in_secret
from fedsec.privacy.accounting import ACCOUNTANT, method
from fedsec.privacy.ledger import Observer

File = Annotated[Path, typer.Argument(help="The plan, as TOML, with a table [privacy].")]
OBSERVERS: Mapping[Observer, str] = {
    "coordinator": "the coordinator and everybody else",
    "nodes": "other nodes and everybody but the coordinator",
    "model-holders": "those who hold the released models and do not know who took part",
}
PLOT_WIDTH, PLOT_HEIGHT = 72, 14
TOO_DEAR = 1
_RECKONING = "reckoning what it costs, round by round"


def fill(group: typer.Typer) -> None:
    """Adds the commands to the group `privacy`."""
    group.command("spend", epilog=examples("fedsec privacy spend plan.toml"))(spend)
    group.command(
        "calibrate",
        epilog=examples(
            "fedsec privacy calibrate plan.toml", "fedsec privacy calibrate plan.toml --epsilon 4"
        ),
    )(calibrate)
    group.command(
        "statement",
        epilog=examples("fedsec privacy statement last --dir /srv/fedsec -o statements"),
    )(write_statement)
    group.command("audit", epilog=audit_command.EPILOG)(audit_command.audit)


def spend(file: File, *, size: Size = None, as_json: Json = False) -> None:
    """Print what a plan's privacy costs, round by round, and how much noise it takes.

    Exit code 1: it costs more than the plan's own privacy.epsilon.
    """
    plan = read_plan(file)
    privacy = _privacy(plan)
    with waiting(_RECKONING):
        spending = spending_of(plan)
    _report(plan, privacy, spending, noise_of(plan, size_of(plan, size)), as_json=as_json)
    if spending.epsilon > privacy.epsilon:
        warn(
            f"This is more than privacy.epsilon = {privacy.epsilon:g}: the plan will not be run. "
            f"`fedsec privacy calibrate {file}` finds the noise that it needs."
        )
        raise typer.Exit(TOO_DEAR)


def calibrate(
    file: File,
    *,
    epsilon: Annotated[
        float | None, typer.Option(help="The most that the plan may cost; else privacy.epsilon.")
    ] = None,
    size: Size = None,
    as_json: Json = False,
) -> None:
    """Find the least noise that keeps a plan within its budget; its own multiplier is ignored."""
    plan = read_plan(file)
    allowed = _privacy(plan).epsilon if epsilon is None else epsilon
    with waiting("looking for the least noise") as tell:
        tries = itertools.count(1)
        found = calibrated(
            plan,
            allowed,
            tried=lambda z: tell(f"looking for the least noise: {next(tries)}, multiplier {z:.4g}"),
        )
        tell(_RECKONING)
        spending = spending_of(found)
    privacy = _privacy(found)
    if not as_json:
        say(f"noise_multiplier = {privacy.noise_multiplier:g}")
        say("")
    _report(found, privacy, spending, noise_of(found, size_of(plan, size)), as_json=as_json)


def _report(
    plan: FederationPlan, privacy: Privacy, spending: Spending, noise: Noise, *, as_json: bool
) -> None:
    if as_json:
        emit_json(_as_json(plan, privacy, spending, noise))
        return
    for subject, sentence in _sentences(plan, privacy, spending, noise):
        say(f"{subject:<14} {safe(sentence)}")
    say("")
    what = "attempt" if spending.terms.per_attempt else "round"
    rows = [(n, f"{epsilon:.4g}") for n, epsilon in spending.epsilons.items()]
    show(table([f">{what}s", f">epsilon at delta {privacy.delta:g}"], rows))
    say("")
    typer.echo(_plot(spending, privacy, what))


def _sentences(
    plan: FederationPlan, privacy: Privacy, spending: Spending, noise: Noise
) -> list[tuple[str, str]]:
    of = spending.terms
    longer = f"{noise.to_signal(privacy.clip):.3g} times as long as the longest mean"
    at = ", ".join(f"{epsilon:.4g} at {delta:g}" for delta, epsilon in spending.at.items())
    rows = [
        ("epsilon", f"{at} (delta); privacy.epsilon allows {privacy.epsilon:g}"),
        ("hides", f"a {of.guarantee.unit}; adjacency: {of.guarantee.adjacency}"),
        ("from", OBSERVERS[of.guarantee.observer]),
        ("rests on", of.guarantee.trust),
        ("nodes", nodes_sentence(plan)),
        ("clip", f"{privacy.clip:g}, sensitivity {noise.sensitivity:.4g}"),
        ("noise", f"multiplier {_multiplier(plan, privacy)}, std {noise.added:.4g} per entry"),
        ("added by", noise.where),
        ("on the mean", f"std {noise.std:.4g} per entry of {noise.size}: {longer}"),
        ("accountant", f"{method([of.price])}, {ACCOUNTANT}"),
    ]
    if figures := noise_of_figures(plan, noise.size):
        told = ", ".join(f"{name} std {std:.3g}" for name, std in figures.items())
        when = "" if drawn_in_secret(plan) else "if all answer: "
        rows.append(("figures", f"noised means over {over(plan)}; {when}{told}"))
    if spending.unsampled is not None:
        rows.append(
            ("amplification", f"if all took part, epsilon would be {spending.unsampled:.4g}")
        )
    return rows


def _multiplier(plan: FederationPlan, privacy: Privacy) -> str:
    """Returns the plan's noise multiplier, and that of the updates where figures take a part."""
    whole, updates = privacy.noise_multiplier, update_multiplier(plan)
    return f"{whole:g}" + ("" if updates == whole else f", of the updates {updates:.4g}")


def _as_json(
    plan: FederationPlan, privacy: Privacy, spending: Spending, noise: Noise
) -> dict[str, object]:
    figures = noise_of_figures(plan, noise.size)
    return {
        **({"noise_of_figures": figures} if figures else {}),
        "noise_multiplier": privacy.noise_multiplier,
        "epsilon": spending.epsilon,
        "delta": privacy.delta,
        "epsilon_at": {str(delta): epsilon for delta, epsilon in spending.at.items()},
        "epsilon_after": {str(n): epsilon for n, epsilon in spending.epsilons.items()},
        "epsilon_without_sampling": spending.unsampled,
        "guarantee": asdict(spending.terms.guarantee),
        "releases": spending.terms.releases,
        "noise": {**asdict(noise), "to_signal": noise.to_signal(privacy.clip)},
        "accountant": f"{method([spending.terms.price])}, {ACCOUNTANT}",
    }


def _plot(spending: Spending, privacy: Privacy, what: str) -> str:
    from fedsec.commands.characters import drawing  # noqa: PLC0415 - only where a person looks

    title = f"epsilon at delta {privacy.delta:g}, by {what}"
    lines = {"": {0: 0.0, **spending.epsilons}}
    return drawing(title, lines, width=PLOT_WIDTH, height=PLOT_HEIGHT)


def _privacy(plan: FederationPlan) -> Privacy:
    if plan.privacy is None:
        raise ConfigError("the plan has no table [privacy]: it promises nothing and costs nothing")
    return plan.privacy
