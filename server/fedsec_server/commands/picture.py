"""A run as a picture, by matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsec.errors import ConfigError
from fedsec_server.commands.history import History, Series
from fedsec_server.commands.sites import ALONE, LESS_IS_BETTER

MAX_SITES = 12  # drawn one by one; of more, grey lines without names
TOGETHER, APART = "#1f5f99", "#c98a2b"


def draw_picture(history: History, names: Mapping[str, str], output: Path) -> None:
    """Writes loss, figures of the sites, the comparison if there is one, and time.

    Args:
        history: Of the run.
        names: Node id to name.
        output: File; its suffix says the form.

    Raises:
        ConfigError: It cannot be written.
    """
    sites = history.last_sites()
    compared = sites is not None and sites.compared
    style: Any = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "font.size": 9,
        "grid.alpha": 0.25,
        "text.parse_math": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(11, 7 if compared else 3.8), layout="constrained")
        axes = figure.subplots(2, 2).flat if compared else figure.subplots(1, 3)
        loss, quality, *rest = axes
        _lines(loss, history.losses(), "Loss")
        _quality(quality, history, names)
        _bars(rest[-1], history.seconds)
        if compared:
            _comparison(rest[0], history, names)
        run = history.run
        figure.suptitle(f"Run {run.run_id}: {run.name}", fontweight="bold", x=0.01, ha="left")
        try:
            figure.savefig(output, dpi=150)
        except OSError as error:
            raise ConfigError(f"cannot write {output}: {error.strerror or error}") from error


def _lines(axes: Axes, lines: Mapping[str, Series], title: str) -> None:
    for label, series in lines.items():
        axes.plot(list(series), list(series.values()), marker=".", label=label)
    axes.set_title(title)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if lines:
        axes.legend(frameon=False)


def _quality(axes: Axes, history: History, names: Mapping[str, str]) -> None:
    name = history.headline or "loss"
    sites = history.of_sites(name, names)
    title = f"{name.capitalize()} at each site" if sites else name.capitalize()
    if len(sites) <= MAX_SITES:
        _lines(axes, sites or {"all": history.figures.get(name, {})}, title)
        return
    for series in sites.values():
        axes.plot(list(series), list(series.values()), color="0.75", linewidth=0.7)
    _lines(axes, {f"mean of {len(sites)} sites": history.figures.get(name, {})}, title)


def _bars(axes: Axes, seconds: Series) -> None:
    axes.bar(list(seconds), list(seconds.values()), color=TOGETHER)
    axes.set_title("Seconds per round")
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _comparison(axes: Axes, history: History, names: Mapping[str, str]) -> None:
    """Draws, per site, the federated model beside the one that the site trained alone."""
    sites = history.last_sites()
    name = history.headline or "loss"
    if sites is None:
        return
    rows = sorted(
        (names.get(node, node), each[name], each[f"{ALONE}{name}"])
        for node, each in sites.figures.items()
        if name in each and f"{ALONE}{name}" in each
    )
    places = range(len(rows))
    axes.bar([x - 0.2 for x in places], [row[2] for row in rows], 0.38, color=APART, label="alone")
    axes.bar(
        [x + 0.2 for x in places], [row[1] for row in rows], 0.38, color=TOGETHER, label="federated"
    )
    axes.set_xticks(list(places), [row[0] for row in rows])
    better = "less is better" if name in LESS_IS_BETTER else "more is better"
    axes.set_title(f"{name.capitalize()} after the last round, {better}")
    axes.grid(visible=False, axis="x")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.2 * (high - low))  # room for the legend
    axes.legend(frameon=False, ncols=2, loc="upper left")
