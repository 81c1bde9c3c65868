"""A run drawn in characters."""

from collections.abc import Iterator, Mapping

from fedsec.commands.characters import drawing
from fedsec_server.commands.history import History, Series

WIDTH, HEIGHT = 100, 15  # columns and lines of one drawing
MAX_SITES = 8  # drawn one by one; of more, the lowest, the middle and the highest


def drawings(history: History, names: Mapping[str, str]) -> Iterator[str]:
    """Yields the drawings: loss, the headline figure of each site, seconds per round.

    Args:
        history: Of the run.
        names: Node id to name.
    """
    yield _drawing("loss", history.losses())
    name = history.headline
    if name:
        sites = history.of_sites(name, names)
        lines = sites if len(sites) <= MAX_SITES else spread(sites)
        title = f"{name} at each site" if lines else name
        yield _drawing(title, lines or {"all": history.figures[name]})
    yield _drawing("seconds", {"": history.seconds})


def spread(sites: Mapping[str, Series]) -> dict[str, Series]:
    """Returns the lowest, the middle and the highest of many sites, round by round."""
    rounds = sorted({at for series in sites.values() for at in series})
    lines: dict[str, Series] = {"lowest": {}, "middle": {}, "highest": {}}
    for at in rounds:
        values = sorted(series[at] for series in sites.values() if at in series)
        lines["lowest"][at] = values[0]
        lines["middle"][at] = values[len(values) // 2]
        lines["highest"][at] = values[-1]
    return lines


def _drawing(title: str, lines: Mapping[str, Series]) -> str:
    return drawing(f"{title}, by round", lines, width=WIDTH, height=HEIGHT)
