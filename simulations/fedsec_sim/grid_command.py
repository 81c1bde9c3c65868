"""`fedsec grid GRID.toml`: an experiment, cell by cell, as far as it is not done yet."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, format_duration, safe, say
from fedsec.processors import processors
from fedsec_sim.grids.grid import Cell, read_grid
from fedsec_sim.grids.report import write_report
from fedsec_sim.grids.running import Outcome, run_cells

FAILED = 1  # exit code when a cell failed
INTERRUPTED = 130


def grid_command(
    grid: Annotated[Path, typer.Argument(help="What is varied, as TOML.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where results are kept. [default: a folder beside GRID, of its name]",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cells at once. [default: one per processor]")
    ] = None,
    *,
    research: Annotated[
        bool,
        typer.Option(
            "--research", help="Also run what a plan refuses, in simulation; outputs say so."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Run an experiment: every combination of plans, rules, attacks, divisions and seeds.

    Cells that are done are kept, by a hash of all that they depend on, and never run again; so it
    may be interrupted and started again. Ends with tables, heatmaps and curves.
    """
    asked, cells = read_grid(grid)
    folder = out or grid.with_suffix("")
    many = workers or processors()
    running = run_cells(cells, folder / "cells", workers=many, research=research)
    ordered = _all_of(cells, running, silent=json)
    command = f"fedsec grid {grid.name}" + (" --research" if research else "")
    files = write_report(asked, ordered, folder, command)
    if json:
        emit_json([{"labels": o.labels, "status": o.status, "value": o.value} for o in ordered])
    else:
        say(f"{len(ordered)} cells; results in " + ", ".join(str(path) for path in files))
    if any(outcome.status == "failed" for outcome in ordered):
        raise typer.Exit(FAILED)


def _all_of(
    cells: Sequence[Cell], running: Iterable[tuple[Outcome, bool]], *, silent: bool
) -> list[Outcome]:
    """Returns the outcome of every cell; says what is done, unless `silent`.

    Raises:
        Exit: Somebody interrupted it.
    """
    outcomes: dict[str, Outcome] = {}
    try:
        for outcome, kept in running:
            outcomes[outcome.key] = outcome
            if not silent and not kept:
                say(f"{len(outcomes)}/{len(cells)}  {_line(outcome)}")
    except KeyboardInterrupt:
        say(f"{len(outcomes)} of {len(cells)} cells are kept; start again to go on.")
        raise typer.Exit(INTERRUPTED) from None
    return [outcomes[cell.key] for cell in cells]


def _line(outcome: Outcome) -> str:
    what = ", ".join(safe(word) for word in outcome.labels.values())
    if outcome.status == "done":
        return f"{what}: {outcome.value:.4f} in {format_duration(outcome.seconds)}"
    return f"{what}: {outcome.status}: {safe(outcome.reason)}"
