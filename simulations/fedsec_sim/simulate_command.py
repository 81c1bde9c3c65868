"""`fedsec simulate PLAN.toml`: the plan of a federation, with nodes that live in this process."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedsec.commands.plans import read_plan
from fedsec.console import Json, emit_json, format_duration, say, show, table
from fedsec.errors import ConfigError
from fedsec_sim.engines.choose import Kind
from fedsec_sim.history import History, Log, check_format
from fedsec_sim.simulate import Lab, simulate
from fedsec_sim.watching import All, screen

INTERRUPTED = 130


def simulate_command(  # noqa: PLR0917 - typer reads the order of arguments and options
    plan: Annotated[Path, typer.Argument(help="The plan, as TOML; any that a coordinator takes.")],
    nodes: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Nodes. [default: nodes.min_available]"),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A setting of the nodes' data set, e.g. split=shards or alpha=0.1.",
        ),
    ] = None,
    engine: Annotated[
        Kind, typer.Option(help="How nodes are trained; auto takes the faster one that is right.")
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes. [default: one per processor, where it pays]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Results as JSON lines, written as they come; must not exist. "
            "[default: runs/TIME.jsonl]",
            show_default=False,
        ),
    ] = None,
    export: Annotated[
        list[Path] | None, typer.Option(help="Results as .csv or .parquet too, at the end.")
    ] = None,
    *,
    json: Json = False,
) -> None:
    r"""Run a plan with simulated nodes on this machine.

    The same file runs on a coordinator, byte for byte: cohorts, weights, rules and reports are made
    by the same code, and with the same data the result is the same. Ctrl-C ends early and keeps
    what is done.

    \b
    Examples:
      fedsec plan example > plan.toml && fedsec simulate plan.toml
      fedsec simulate plan.toml --nodes 100 --data alpha=0.1 --engine loop --workers 2
      fedsec sim plot runs/*.jsonl -o curves.png
    """
    asked = read_plan(plan)
    lab = Lab(nodes=nodes, data=read_data(data or []))
    for path in export or []:
        check_format(path)
    out = out or Path("runs") / datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S.jsonl")
    log, shown = Log(out), screen(silent=json)
    try:
        history = simulate(asked, lab=lab, engine=engine, workers=workers, watch=All([shown], log))
    finally:
        shown.end()
    for path in export or []:
        history.save(path)
    if json:
        last = history.rounds[-1] if history.rounds else {}
        emit_json({"about": history.about, "last": last, "file": str(out)})
    else:
        report(history, [out, *(export or [])])
    if history.interrupted:
        raise typer.Exit(INTERRUPTED)


def read_data(given: list[str]) -> dict[str, object]:
    """Returns the settings that ``KEY=VALUE`` words say; values as in TOML, or plain text.

    Raises:
        ConfigError: A word has no "=".

    >>> read_data(["alpha=0.1", "split=iid"])
    {'alpha': 0.1, 'split': 'iid'}
    """
    found: dict[str, object] = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f'--data {word}: want KEY=VALUE, e.g. "alpha=0.1"')
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


def report(history: History, files: list[Path]) -> None:
    """Prints what came out, and where it lies."""
    done = f"{len(history.rounds)} rounds" + (", interrupted" if history.interrupted else "")
    rows = [("rounds", done)]
    rows += [
        (name.replace("_", " "), f"{found[-1][1]:.4f} after round {found[-1][0]}")
        for name in ("accuracy", "loss", "attack_success", "epsilon")
        if (found := history.series(name))
    ]
    seconds = sum(value for _, value in history.series("seconds"))
    rows.append(("time", format_duration(seconds)))
    rows += [("results", str(path)) for path in files]
    say("")
    show(table(["", ""], rows))
