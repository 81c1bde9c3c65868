"""What a grid came to: tables in Markdown, heatmaps and curves, and all figures as one JSON."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsec_sim.grids.grid import AXES, Grid
from fedsec_sim.grids.running import Outcome
from fedsec_sim.plots import curves, heatmap, save

MOST_CURVES = 8  # in one picture
STAMP = "research: ran in simulation although the plan refuses it"


@dataclass(frozen=True, slots=True)
class Summary:
    """Outcomes that come to one number.

    Args:
        value: Mean over seeds, worst over the grid's ``worst`` axes; NaN if there is none.
        refused: Whether the plan refuses one of them.
        research: Whether one of them ran although the plan refuses it.
    """

    value: float
    refused: bool
    research: bool

    def __str__(self) -> str:
        """The number, or a word."""
        if math.isnan(self.value):
            return "refused" if self.refused else "failed"
        return f"{self.value:.3f}" + ("*" if self.research else "")


def write_report(grid: Grid, outcomes: Sequence[Outcome], folder: Path, command: str) -> list[Path]:
    """Writes tables, pictures and figures of a grid to `folder`; returns the files.

    Args:
        grid: What was varied.
        outcomes: Of all its cells.
        folder: Made if need be.
        command: That makes them again, for the reader.
    """
    folder.mkdir(parents=True, exist_ok=True)
    others = [a for a in AXES if a not in {grid.rows, grid.columns, "seed", *grid.worst}]
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(tuple(outcome.labels[axis] for axis in others), []).append(outcome)
    files, parts = [], [f"# {grid.name}", "", f"Made by `{command}`.", ""]
    for number, (names, group) in enumerate(groups.items()):
        varied = [a for a in others if len({o.labels[a] for o in outcomes}) > 1]
        title = ", ".join(
            f"{axis} {name}" for axis, name in zip(others, names, strict=True) if axis in varied
        )
        suffix = f"-{number + 1}" if len(groups) > 1 else ""
        files.append(_draw(grid, group, folder / f"heatmap{suffix}.png", title))
        parts += [*([f"## {title}", ""] if title else []), *_table(grid, group), ""]
    parts += _footnotes(grid, outcomes)
    files += [_curves(grid, outcomes, folder), folder / "tables.md", folder / "results.json"]
    files[-2].write_text("\n".join(parts) + "\n", encoding="utf-8")
    files[-1].write_text(json.dumps([_short(o) for o in outcomes], indent=1) + "\n", "utf-8")
    return files


def summarise(grid: Grid, outcomes: Sequence[Outcome], row: str, column: str) -> Summary:
    """Returns what stands in one place of a table."""
    here = [o for o in outcomes if o.labels[grid.rows] == row and o.labels[grid.columns] == column]
    by_worst: dict[tuple[str, ...], list[float]] = {}
    for outcome in here:
        if outcome.value is not None:
            key = tuple(outcome.labels[axis] for axis in grid.worst)
            by_worst.setdefault(key, []).append(outcome.value)
    means = [statistics.fmean(values) for values in by_worst.values()]
    return Summary(
        min(means) if means and all(o.value is not None for o in here) else math.nan,
        any(o.status == "refused" for o in here),
        any(o.research for o in here),
    )


def _places(grid: Grid, outcomes: Sequence[Outcome]) -> tuple[list[str], list[str]]:
    rows = list(dict.fromkeys(outcome.labels[grid.rows] for outcome in outcomes))
    columns = list(dict.fromkeys(outcome.labels[grid.columns] for outcome in outcomes))
    return rows, columns


def _table(grid: Grid, outcomes: Sequence[Outcome]) -> list[str]:
    rows, columns = _places(grid, outcomes)
    lines = [f"| {grid.rows} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [str(summarise(grid, outcomes, row, column)) for column in columns]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def _footnotes(grid: Grid, outcomes: Sequence[Outcome]) -> list[str]:
    seeds = sorted({outcome.seed for outcome in outcomes})
    commits = sorted({outcome.commit for outcome in outcomes if outcome.commit})
    versions = sorted({f"{k} {v}" for outcome in outcomes for k, v in outcome.versions.items()})
    over = f", worst over {', '.join(grid.worst)}" if grid.worst else ""
    first = (
        f"{grid.figure}, mean of the last {grid.last} evaluations{over}. "
        f"Seeds {', '.join(map(str, seeds))}; commit {', '.join(commits) or 'unknown'}; "
        f"{', '.join(versions)}; {sum(o.seconds for o in outcomes):.0f} s in all, cell by cell."
    )
    lines = [first]
    reasons = sorted({o.reason for o in outcomes if o.status == "refused"})
    failures = sorted({o.reason for o in outcomes if o.status == "failed"})
    lines += [f"- refused: {reason}" for reason in reasons]
    lines += [f"- failed: {reason}" for reason in failures]
    if any(outcome.research for outcome in outcomes):
        lines.append(f"- \\* {STAMP}")
    return lines


def _draw(grid: Grid, outcomes: Sequence[Outcome], path: Path, title: str) -> Path:
    rows, columns = _places(grid, outcomes)
    found = [[summarise(grid, outcomes, row, column) for column in columns] for row in rows]
    values = np.array([[summary.value for summary in line] for line in found])
    refused = [
        (i, j)
        for i, line in enumerate(found)
        for j, summary in enumerate(line)
        if summary.refused and math.isnan(summary.value)
    ]
    stamped = any(summary.research for line in found for summary in line)
    words = [title] if title else []
    words += [f"worst over {', '.join(grid.worst)}"] if grid.worst else []
    words += [STAMP] if stamped else []
    picture = heatmap(
        values,
        rows=rows,
        columns=columns,
        xlabel=grid.columns,
        ylabel=grid.rows,
        title="\n".join(words),
        refused=refused,
    )
    save(picture, path)
    return path


def _curves(grid: Grid, outcomes: Sequence[Outcome], folder: Path) -> Path:
    """Draws the first cells that ran, over their rounds."""
    ran = [outcome for outcome in outcomes if outcome.series][:MOST_CURVES]
    varied = [axis for axis in AXES if len({o.labels[axis] for o in outcomes}) > 1]
    lines = {
        ", ".join(outcome.labels[axis] for axis in varied) or grid.name: [
            (point[0], point[1]) for point in outcome.series
        ]
        for outcome in ran
    }
    path = folder / "curves.png"
    save(curves(lines, ylabel=grid.figure), path)
    return path


def _short(outcome: Outcome) -> dict[str, object]:
    return {
        **outcome.labels,
        "status": outcome.status,
        "value": None if outcome.value is None else round(outcome.value, 4),
        **({"reason": outcome.reason} if outcome.reason else {}),
        **({"research": True} if outcome.research else {}),
        "seconds": outcome.seconds,
        "commit": outcome.commit,
    }
