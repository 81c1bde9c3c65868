"""Pictures of simulations, readable in black and white: lines differ by dash and marker."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fedsec.errors import ConfigError

SUFFIXES = (".png", ".svg", ".pdf")
_STYLES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "x", "P", "*")
_GREYS = ("0.0", "0.45", "0.2", "0.6")
BESIDE = 4  # more lines than this have their names beside the picture
_LETTER = 0.068  # inches of a letter in the names beside a table
_CELL, _WIDEST = 0.9, 1.6  # inches of a column; names that need more stand aslant
_SLOPE = 0.42  # how deep such a name reaches, to its length
_MARKS = 10  # on a line
_DARK = 0.45  # a cell darker than this takes white text

Line = Sequence[tuple[float, float]]


def curves(
    lines: Mapping[str, Line],
    *,
    ylabel: str,
    xlabel: str = "round",
    title: str = "",
    log: bool = False,
) -> Figure:
    """Returns lines of (x, y) by name."""
    many = len(lines) > BESIDE
    figure, axes = _figure(8.4 if many else 6.4, 4.0)
    draw_curves(axes, lines, ylabel=ylabel, xlabel=xlabel, legend=not many and len(lines) > 1)
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    if title:
        axes.set_title(title, fontsize=10)
    if many:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def draw_curves(
    axes: Axes,
    lines: Mapping[str, Line],
    *,
    ylabel: str,
    xlabel: str = "round",
    legend: bool = True,
) -> None:
    """Draws lines of (x, y) by name, as `curves`, into axes of a figure of one's own."""
    for place, (name, line) in enumerate(lines.items()):
        x, y = [point[0] for point in line], [point[1] for point in line]
        axes.plot(
            x,
            y,
            linestyle=_STYLES[place % len(_STYLES)],
            marker=_MARKERS[place % len(_MARKERS)],
            color=_GREYS[place % len(_GREYS)],
            markevery=max(1, len(x) // _MARKS),
            markersize=4,
            linewidth=1.2,
            label=name,
        )
    if all(float(x).is_integer() for line in lines.values() for x, _ in line):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(color="0.9", linewidth=0.6)
    if legend:
        axes.legend(fontsize=8, frameon=False)


def heatmap(
    values: NDArray[np.float64],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    xlabel: str,
    ylabel: str,
    title: str = "",
    refused: Iterable[tuple[int, int]] = (),
    low: float = 0.0,
    high: float = 1.0,
) -> Figure:
    """Returns a table of grey cells with their values; refused and missing ones are hatched.

    Args:
        values: (len(rows), len(columns)); NaN: no value.
        rows: Names, from the top.
        columns: Names, from the left.
        xlabel: What columns are.
        ylabel: What rows are.
        title: Above it.
        refused: Places of the cells that a plan refuses.
        low: Value of a black cell.
        high: Value of a white cell.
    """
    wanted = _LETTER * (_longest(columns) + 2)
    cell = min(max(_CELL, wanted), _WIDEST)
    width = 0.7 + _LETTER * _longest(rows) + cell * len(columns)
    below = _SLOPE * wanted if wanted > _WIDEST else 0.0
    width = max(width, _LETTER * _longest(title.split("\n")))
    figure, axes = _figure(width, 1.4 + 0.5 * len(rows) + below)
    paint(axes, values, rows=rows, columns=columns, refused=refused, low=low, high=high)
    if below:
        for name in axes.get_xticklabels():
            name.set(rotation=25, ha="right", rotation_mode="anchor")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if title:
        axes.set_title(title, fontsize=10)
    return figure


def paint(
    axes: Axes,
    values: NDArray[np.float64],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    refused: Iterable[tuple[int, int]] = (),
    low: float = 0.0,
    high: float = 1.0,
) -> None:
    """Draws a table of grey cells, as `heatmap`, into axes of a figure of one's own."""
    axes.imshow(values, cmap="gray", vmin=low, vmax=high, aspect="auto")
    denied = set(refused)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        if np.isnan(value):
            axes.fill_between(
                [column - 0.5, column + 0.5], row - 0.5, row + 0.5,
                facecolor="white", edgecolor="0.5", hatch="////", linewidth=0,
            )  # fmt: skip
            text = "refused" if (row, column) in denied else ""
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
            axes.text(column, row, text, ha="center", va="center", fontsize=8, bbox=box)
            continue
        dark = (value - low) / (high - low) < _DARK
        colour = "white" if dark else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)


def save(figure: Figure, path: Path) -> None:
    """Writes a picture.

    Raises:
        ConfigError: The name ends in something else than .png, .svg or .pdf, or cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: a picture's name must end in {', '.join(SUFFIXES)}")
    FigureCanvasAgg(figure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _longest(names: Sequence[str]) -> int:
    return max(map(len, names), default=0)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
