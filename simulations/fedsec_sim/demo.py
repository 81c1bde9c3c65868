"""`fedsec demo`: the three defences in one round, for real, and what each of them buys.

A fleet of real processes with mutual TLS learns although some of its nodes are poisoned, and its
coordinator sees no update. The same learning without defences, and a thousand nodes with privacy,
are simulated by the same plan code. What the screen promises is checked.
"""

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, format_bytes, format_duration, say, show, table
from fedsec.errors import ConfigError
from fedsec_sim import demo_plans
from fedsec_sim.demo_fleet import Fleet, run_fleet, short
from fedsec_sim.demo_plans import BUDGET, CLOSE, GROUP, PRIVATE_NODES, Curve, hostile_of
from fedsec_sim.screens import Lines, Screen, Silence, Tables

BROKEN = 1  # exit code when a promise does not hold


@dataclass(frozen=True, slots=True)
class Report:
    """What a demo ends with.

    Attributes:
        directory: Of everything that it made.
        picture: The file of the three curves and the map.
        nodes: Of the fleet.
        hostile: Of these, poisoned.
        defended: The fleet's accuracy, poisoned and defended.
        attack_free: The same plan where all are honest; simulated.
        undefended: A plain mean under the same attack; simulated.
        private: A thousand nodes with distributed privacy; simulated.
        epsilon: What that costs each of the thousand nodes; the fleet has none.
        total_s: Seconds.
        broken: Promises that do not hold, a sentence each.
        fleet: What the real processes left; None where all was simulated.
    """

    directory: str
    picture: str
    nodes: int
    hostile: int
    defended: float
    attack_free: float
    undefended: float
    private: float
    epsilon: float
    total_s: float
    broken: list[str]
    fleet: Fleet | None


def demo_command(
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            help="Where everything is made; must not exist. [default: demo/TIME]",
            show_default=False,
        ),
    ] = None,
    nodes: Annotated[
        int, typer.Option(min=3 * GROUP, max=100, help="Nodes of the fleet, a process each.")
    ] = demo_plans.NODES,
    rounds: Annotated[
        int, typer.Option(min=1, max=10_000, help="Rounds of the fleet.")
    ] = demo_plans.ROUNDS,
    *,
    sim: Annotated[
        bool, typer.Option("--sim", help="Simulate the fleet, too: no processes, in seconds.")
    ] = False,
    check: Annotated[
        bool, typer.Option(help="Exit with 1 if an accuracy is not what the screen promises.")
    ] = True,
    json: Json = False,
) -> None:
    """Show the three defences in one round, on this machine.

    25 nodes, real processes with mutual TLS, train a model; two are poisoned, each ten times as
    loud as it may be. Secure aggregation in groups of five hides every update, also from a
    coordinator that lies; a robust rule over the groups keeps the two from spoiling the model.
    Simulated beside it: the same without a defence, and a thousand nodes with privacy.
    """
    directory = directory or Path("demo") / datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    if directory.exists():
        raise ConfigError(f"{directory} exists; name a new directory with --directory")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all programs are ended
    screen = _screen(nodes, silent=json)
    report, curves = run_demo(directory.absolute(), nodes, rounds, screen, sim=sim)
    if json:
        emit_json(asdict(report))
    else:
        show_report(report, curves)
    if check and report.broken:
        raise typer.Exit(BROKEN)


def _screen(nodes: int, *, silent: bool) -> Screen:
    """Returns what shows a fleet: live tables on a terminal, else lines or nothing."""
    if silent:
        return Silence()
    return Tables([f"node-{index}" for index in range(nodes)]) if sys.stdout.isatty() else Lines()


def run_demo(
    directory: Path, nodes: int, rounds: int, screen: Screen, *, sim: bool
) -> tuple[Report, list[Curve]]:
    """Carries out a whole demo; returns what came out, and the curves of the picture.

    Args:
        directory: Made here.
        nodes: Of the fleet, >= 15.
        rounds: Of the fleet, >= 1.
        screen: Is told what happens.
        sim: Simulate the fleet.

    Raises:
        StateError: The run failed, or a program did.
    """
    started, hostile = time.monotonic(), hostile_of(nodes)
    fleet = None if sim else run_fleet(directory, nodes, hostile, rounds, screen)
    from fedsec_sim.demo_picture import draw  # noqa: PLC0415 - torch, after the fleet

    defended, alone, undefended, private = _curves(fleet, nodes, rounds, hostile, screen)
    curves = [defended, undefended, private]
    picture = draw(curves, directory / "demo.png")
    report = Report(
        directory=str(directory),
        picture=str(picture),
        nodes=nodes,
        hostile=hostile,
        defended=defended.accuracy,
        attack_free=alone.accuracy,
        undefended=undefended.accuracy,
        private=private.accuracy,
        epsilon=private.epsilon or 0.0,
        total_s=time.monotonic() - started,
        broken=[],
        fleet=fleet,
    )
    return replace(report, broken=list(broken(report))), curves


def _curves(
    fleet: Fleet | None, nodes: int, rounds: int, hostile: int, screen: Screen
) -> tuple[Curve, Curve, Curve, Curve]:
    """Returns the fleet, the same without attack and without defence, and the private thousand."""
    from fedsec_sim import demo_simulated as simulated  # noqa: PLC0415 - torch, after the fleet

    defended = fleet.curve if fleet else simulated.attacked(nodes, rounds, hostile)
    screen.step("simulated by the same plan code: the fleet without an attack")
    alone = simulated.attack_free(nodes, rounds)
    screen.step("simulated: the fleet's attack on a plain mean")
    undefended = simulated.without_defence(nodes, rounds, hostile)
    screen.step(f"simulated: {PRIVATE_NODES:,} nodes with distributed privacy")
    return defended, alone, undefended, simulated.with_privacy()


def broken(report: Report) -> Iterator[str]:
    """Yields the promises of the screen that do not hold, a sentence each."""
    accurate, least, ruined = demo_plans.ACCURATE, demo_plans.PRIVATE, demo_plans.RUINED
    if report.attack_free < accurate:
        yield f"without an attack the fleet's plan reaches {report.attack_free:.3f}, not {accurate}"
    if report.defended < report.attack_free - CLOSE:
        yield (
            f"the defended fleet reaches {report.defended:.3f}, more than {100 * CLOSE:.0f} points "
            f"below {report.attack_free:.3f} without an attack"
        )
    if report.undefended > ruined:
        yield f"the attack leaves a plain mean at {report.undefended:.3f}, above {ruined}"
    if report.private < least:
        yield f"{PRIVATE_NODES:,} private nodes reach {report.private:.3f}, not {least}"
    if report.epsilon > BUDGET:
        yield f"they spend epsilon {report.epsilon:.2f}, more than {BUDGET:g}"


def show_report(report: Report, curves: list[Curve]) -> None:
    """Prints what came out, and where it lies."""
    from fedsec_sim.demo_picture import characters, map_in_words  # noqa: PLC0415 - plotext

    say("")
    say(characters(curves))
    kind = "real processes" if report.fleet else "simulated"
    rows = [
        (
            f"{report.nodes} nodes, {report.hostile} poisoned x10, groups of {GROUP}, {kind}",
            f"{report.defended:.3f}",
            "node-level epsilon: none",
        ),
        ("  the same without an attack, simulated", f"{report.attack_free:.3f}", ""),
        ("  the same attack on a plain mean, simulated", f"{report.undefended:.3f}", "no defence"),
        (
            f"{PRIVATE_NODES:,} nodes, one sum, distributed privacy, simulated",
            f"{report.private:.3f}",
            f"node-level epsilon: {report.epsilon:.2f} at delta 1e-5",
        ),
    ]
    show(table(["", ">accuracy", ""], rows))
    say("")
    say("Which nodes, noise and attackers hold together (docs/three-defences.md):")
    show(map_in_words())
    say("")
    show(table(["", ""], list(_places(report))))
    for sentence in report.broken:
        say(f"BROKEN: {sentence}")


def _places(report: Report) -> Iterator[tuple[str, str]]:
    yield "time", f"{format_duration(report.total_s)} in all"
    yield "picture", short(report.picture)
    fleet = report.fleet
    if fleet is None:
        return
    down, up = format_bytes(fleet.bytes_down), format_bytes(fleet.bytes_up)
    yield "rounds", f"median {format_duration(fleet.round_s)} each"
    yield "moved", f"{down} to nodes, {up} back"
    if fleet.missing:
        yield "missing", f"{fleet.missing} answers of nodes"
    yield "model", short(fleet.model)
    yield "logs", short(fleet.logs)
    yield "look at it", f"fedsec server start {short(report.directory)}/coordinator"
