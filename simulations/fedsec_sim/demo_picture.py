"""The demo's picture: three curves and the map's thumbnail, as PNG and in characters."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from fedsec.commands.characters import drawing
from fedsec.console import table
from fedsec_sim.demo_plans import Curve
from fedsec_sim.plots import draw_curves, save
from fedsec_sim.three_defences.grid import EPSILONS, PERCENTS
from fedsec_sim.three_defences.pictures import epsilon_words, thumbnail
from fedsec_sim.three_defences.results import read
from fedsec_sim.three_defences.summary import table as best_table

WIDTH, HEIGHT = 78, 16  # columns and lines in the terminal
WHERE = "docs/three-defences.md; hatched: not computed"
SIZES = (100, 1000)
"""Numbers of nodes of which the map is shown."""


def draw(curves: Sequence[Curve], path: Path) -> Path:
    """Writes the picture as PNG and returns its path."""
    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3, 2), squeeze=False).flat
    axes = above.add_subplot()
    draw_curves(axes, {_label(curve): curve.points for curve in curves}, ylabel="accuracy")
    axes.set_ylim(0, 1)
    axes.set_title("The same digits, three ways", fontsize=10)
    measured = read()
    for place, nodes in zip(below.subplots(1, len(SIZES)), SIZES, strict=True):
        thumbnail(place, measured, "digits", nodes)
    below.suptitle(
        f"Which noise and attackers hold together: {WHERE}",
        fontsize=10,
    )
    save(figure, path)
    return path


def characters(curves: Sequence[Curve]) -> str:
    """Returns the curves in characters: in colours on a terminal, in letters elsewhere."""
    lines = {curve.name: dict(curve.points) for curve in curves}
    return drawing("accuracy, by round", lines, width=WIDTH, height=HEIGHT)


def map_in_words() -> Table:
    """Returns the map's thumbnail as a table: the best set-up of groups under its worst attack."""
    measured = read()
    rows = []
    for nodes in SIZES:
        for epsilon, found in zip(EPSILONS, best_table(measured, "digits", nodes), strict=True):
            cells = [
                "not computed"
                if best is None
                else f"{best.accuracy:.2f} {'holds' if best.holds else 'FAILS'}"
                for best in found
            ]
            rows.append((f"{nodes:,}", epsilon_words(epsilon), *cells))
    headings = [">nodes", "noise", *(f">{percent} % hostile" for percent in PERCENTS)]
    return table(headings, rows)


def _label(curve: Curve) -> str:
    noise = "epsilon: none" if curve.epsilon is None else f"epsilon {curve.epsilon:.1f}"
    return f"{curve.name} ({noise})"
