"""Lines over rounds in characters, by plotext: in colours on a terminal, in letters elsewhere."""

import sys
from collections.abc import Mapping

import plotext

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ALONE = "*"  # of a line that has no other beside it
LARGEST = 1e300  # that is drawn: of longer ones the distance may be infinite
MARKS = 10  # on the axis of rounds, about


def drawing(
    title: str, lines: Mapping[str, Mapping[int, float]], *, width: int, height: int
) -> str:
    """Returns the lines, each by its label; a line whose label is empty is not named.

    Args:
        title: Above them; says how many values are left out since they are infinite, or no numbers.
        lines: Label to value by round, or by whatever else is counted in whole numbers.
        width: Columns.
        height: Lines of text.
    """
    colours = sys.stdout.isatty()
    drawn = {label: _finite(series) for label, series in lines.items()}
    missing = sum(map(len, lines.values())) - sum(map(len, drawn.values()))
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, height)
    figure.title(title + (f" ({missing} not finite, left out)" if missing else ""))
    letters = LETTERS if len(lines) > 1 else ALONE
    for number, (label, series) in enumerate(drawn.items()):
        marker = "hd" if colours else letters[number % len(letters)]
        signal = figure.signal(list(series), list(series.values()), marker=marker)
        signal.lines()
        if label:
            signal.label(label)
        figure.draw(signal)
    rounds = sorted({at for series in drawn.values() for at in series})
    if rounds:
        figure.ruler("x").ticks(marks(rounds))
    text = str(figure.build())
    return text if colours else str(plotext.uncolorize(text))


def _finite(series: Mapping[int, float]) -> dict[int, float]:
    return {at: value for at, value in series.items() if abs(value) <= LARGEST}  # NaN is not


def marks(rounds: list[int]) -> list[int]:
    """Returns about ten of the rounds, the first and the last among them.

    >>> marks([1, 2, 3]), marks(list(range(1, 101)))
    ([1, 2, 3], [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100])
    """
    step = max(1, -(-len(rounds) // MARKS))
    return sorted({*rounds[::step], rounds[-1]})
