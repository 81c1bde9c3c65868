"""`fedsec simulate PLAN.toml`: the plan of a federation, with nodes that live in this process."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedsec.commands.plans import read_plan
from fedsec.console import Json, emit_json, format_duration, say, show, table
from fedsec.errors import ConfigError
from fedsec_sim.history import History, Log, check_format
from fedsec_sim.lab import Lab
from fedsec_sim.partitions import make_split
from fedsec_sim.record import Watcher
from fedsec_sim.simulate import EngineName, simulate
from fedsec_sim.spec import parse_spec, read_settings
from fedsec_sim.systems import make_systems
from fedsec_sim.threats import make_threat
from fedsec_sim.variation import one_in_five
from fedsec_sim.watching import All, screen

INTERRUPTED = 130


PlanFile = Annotated[Path, typer.Argument(help="The plan, as TOML; any that a coordinator takes.")]
Nodes = Annotated[
    int | None,
    typer.Option(min=1, max=1_000_000, help="Nodes. [default: nodes.min_available]"),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="A setting of the nodes' data set, e.g. alpha=0.1; repeatable."
    ),
]
Root = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="A setting of the coordinator's data that robust.root names; repeatable. "
        "[default: 100 of the nodes' examples]",
        show_default=False,
    ),
]
SplitWord = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="NAME:KEY=VALUE,...",
        help="How the task's examples are divided instead; `fedsec sim splits` lists all.",
    ),
]
AttackWord = Annotated[
    str | None,
    typer.Option(
        "--attack",
        metavar="NAME:KEY=VALUE,...",
        help="What adversaries send; `fedsec sim attacks` lists all.",
    ),
]
PoisonWord = Annotated[
    str | None,
    typer.Option(
        "--poison", metavar="NAME:KEY=VALUE,...", help="How adversaries change their data."
    ),
]
Byzantine = Annotated[
    int | None, typer.Option(min=1, help="Adversaries among all nodes. [default: one in five]")
]
SystemsWords = Annotated[
    list[str] | None,
    typer.Option(
        "--systems",
        metavar="KEY=VALUE",
        help="Simulate machines: dropout=0.1, stragglers=0.2, ...; repeatable.",
    ),
]
EngineKind = Annotated[
    EngineName,
    typer.Option(
        "--engine", help="How nodes are trained; auto takes the faster one that is right."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes. [default: one per processor, where it pays]"),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        help="Results as JSON lines, written as they come; must not exist. "
        "[default: runs/TIME.jsonl]",
        show_default=False,
    ),
]
Export = Annotated[
    list[Path] | None,
    typer.Option(help="Results as .csv or .parquet too, at the end; repeatable."),
]


def simulate_command(  # noqa: PLR0917 - typer reads the order of arguments and options
    plan: PlanFile,
    nodes: Nodes = None,
    data: Data = None,
    root: Root = None,
    split: SplitWord = None,
    attack: AttackWord = None,
    poison: PoisonWord = None,
    byzantine: Byzantine = None,
    systems: SystemsWords = None,
    engine: EngineKind = "auto",
    workers: Workers = None,
    out: Out = None,
    export: Export = None,
    *,
    json: Json = False,
) -> None:
    """Run a plan with simulated nodes on this machine.

    The same file runs on a coordinator, byte for byte: cohorts, weights, rules and reports are made
    by the same code, and with the same data the result is the same. Ctrl-C ends early and keeps
    what is done.
    """
    asked = read_plan(plan)
    if split and data:
        raise ConfigError("--data is read where there is no --split; give one of the two")
    hostile = byzantine or one_in_five(nodes or asked.nodes.min_available)
    machines = read_settings(systems, "--systems") if systems else None
    lab = Lab(
        nodes=nodes,
        data=read_settings(data or [], "--data"),
        root=read_settings(root or [], "--root"),
        split=make_split(*parse_spec(split)) if split else None,
        systems=None if machines is None else make_systems(machines, "--systems"),
        threat=make_threat(hostile, attack, poison),
    )
    if byzantine and lab.threat is None:
        raise ConfigError("--byzantine needs --attack or --poison: what do adversaries do?")
    out = out or Path("runs") / datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S.jsonl")

    def run(watch: Watcher) -> History:
        return simulate(plan, lab, engine=engine, workers=workers, watch=watch)

    history = _watched(run, out, export or [], silent=json)
    if json:
        last = history.rounds[-1] if history.rounds else {}
        emit_json({"about": history.about, "last": last, "file": str(out)})
    else:
        report(history, [out, *(export or [])])
    if history.interrupted:
        raise typer.Exit(INTERRUPTED)


def _watched(
    run: Callable[[Watcher], History], out: Path, export: list[Path], *, silent: bool
) -> History:
    """Returns a history, shown unless `silent`; `out` grows with it, `export` comes at the end."""
    for path in export:
        check_format(path)
    log, shown = Log(out), screen(silent=silent)
    try:
        history = run(All([shown], log))
    finally:
        shown.end()
    for path in export:
        history.save(path)
    return history


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
