"""The map as pictures: every cell of it, the frontier, and the thumbnail that the demo shows."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fedsec_sim.plots import paint, save
from fedsec_sim.three_defences.cell import Cell
from fedsec_sim.three_defences.grid import (
    DATA,
    EPSILONS,
    FRONTIER_EPSILON,
    FRONTIER_NODES,
    NODES,
    PERCENTS,
    Way,
    frontier,
    setup,
    table,
)
from fedsec_sim.three_defences.results import Measured
from fedsec_sim.three_defences.summary import table as best_table

GREYS = 16
NOTE = (
    "accuracy; hatched: refused where it says so (half the sums may be spoilt), else not computed"
)


def draw(measured: Measured, folder: Path) -> Iterator[Path]:
    """Draws all pictures of which there is anything to draw; yields their files."""
    for data, nodes in product(DATA, NODES):
        if any((c.data, c.nodes) == (data, nodes) for c in measured.cells.values()):
            yield _saved(whole(measured, data, nodes), folder / f"{data}_{nodes}.png")
    if any(cell.key in measured.outcomes for cell in frontier()):
        yield _saved(frontier_figure(measured), folder / "frontier.png")
    figure = Figure(figsize=(7.2, 2.6 * len(DATA)), layout="constrained")
    places = figure.subplots(len(DATA), len(NODES)).flat
    for axes, (data, nodes) in zip(places, product(DATA, NODES), strict=True):
        thumbnail(axes, measured, data, nodes)
    yield _saved(figure, folder / "together.png")


def whole(measured: Measured, data: str, nodes: int) -> Figure:
    """Returns every cell of the plain recipe: a table for each epsilon."""
    found = list(table(data, nodes))
    columns = list(dict.fromkeys(_attack(cell, nodes) for cell in found))
    rows = list(dict.fromkeys(setup(cell) for cell in found))
    figure = Figure(figsize=(11.5, 1.2 + 4.4 * len(EPSILONS)), layout="constrained")
    for axes, epsilon in zip(figure.subplots(len(EPSILONS), 1), EPSILONS, strict=True):
        chosen = [cell for cell in found if cell.epsilon == epsilon]
        values, refused = _fill(measured, chosen, rows, columns, nodes)
        paint(axes, values, rows=rows, columns=columns, refused=refused)
        axes.set_title(f"{data}, {nodes} nodes, {epsilon_words(epsilon)}", fontsize=10)
        axes.set_xlabel("hostile nodes, how long their updates are, where they sit", fontsize=8)
    figure.supxlabel(NOTE, fontsize=8)
    return figure


def frontier_figure(measured: Measured) -> Figure:
    """Returns what was tried at 1,000 nodes and epsilon 8."""
    found = list(frontier())
    rows = [way.words for way in dict.fromkeys(map(Way.of, found))]
    ordered = sorted(found, key=lambda cell: cell.factor)
    columns = list(dict.fromkeys(_attack(cell, FRONTIER_NODES) for cell in ordered))
    values = np.full((len(rows), len(columns)), np.nan)
    for cell in found:
        place = rows.index(Way.of(cell).words), columns.index(_attack(cell, FRONTIER_NODES))
        known = measured.accuracy(cell)
        values[place] = np.nan if known is None else known
    figure = Figure(figsize=(7.5, 1.4 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    paint(axes, values, rows=rows, columns=columns)
    title = f"digits, {FRONTIER_NODES} nodes, epsilon {FRONTIER_EPSILON:g}; hatched: not computed"
    axes.set_title(title, fontsize=10)
    return figure


def thumbnail(axes: Axes, measured: Measured, data: str, nodes: int) -> None:
    """Draws the best set-up with all three defences under its worst attack."""
    found = best_table(measured, data, nodes)
    values = np.array(
        [[np.nan if made is None else made.accuracy for made in row] for row in found], np.float64
    )
    rows = [epsilon_words(epsilon) for epsilon in EPSILONS]
    paint(axes, values, rows=rows, columns=[f"{percent} %" for percent in PERCENTS])
    axes.set_title(f"{data}, {nodes} nodes: best groups, worst attack", fontsize=9)
    axes.set_xlabel("hostile nodes", fontsize=8)


def _fill(
    measured: Measured, cells: Sequence[Cell], rows: list[str], columns: list[str], nodes: int
) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    values, refused = np.full((len(rows), len(columns)), np.nan), []
    for cell in cells:
        place = rows.index(setup(cell)), columns.index(_attack(cell, nodes))
        known = measured.accuracy(cell)
        if cell.refused:
            refused.append(place)
        elif known is not None:
            values[place] = known
            if cell.size in {1, nodes} and cell.hostile:  # it makes no difference who sits where
                other = _attack(cell, nodes).replace("worst", "random")
                values[place[0], columns.index(other)] = known
    return values, refused


def _attack(cell: Cell, nodes: int) -> str:
    if not cell.hostile:
        return "none"
    return f"{100 * cell.hostile // nodes} % x{cell.factor}\n{cell.placement}"


def epsilon_words(epsilon: float | None) -> str:
    """Returns what noise there is, in words."""
    return "no noise" if epsilon is None else f"epsilon {epsilon:g}"


def _saved(figure: Figure, path: Path) -> Path:
    """Writes a picture in few greys, which is a quarter of the bytes."""
    save(figure, path)
    with Image.open(path) as image:
        few = image.convert("L").quantize(GREYS)
    few.save(path, optimize=True)
    return path
