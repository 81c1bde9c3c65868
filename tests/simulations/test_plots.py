"""Pictures: names beside a table can be read."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fedsec_sim.plots import curves, heatmap

LONG = ["gamma:gamma=0.0", "gamma:gamma=0.33", "dirichlet:alpha=0.5"]


@pytest.mark.parametrize(
    "columns", [["1", "3"], LONG, [f"optimised-alie evaluations={i}" for i in LONG]]
)
def test_names_of_columns_do_not_overlap(columns: list[str]) -> None:
    rows = ["geometric median, s=2", "krum"]
    values = np.full((len(rows), len(columns)), 0.5)
    figure = heatmap(values, rows=rows, columns=columns, xlabel="split", ylabel="rule")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call] # matplotlib's
    (axes,) = figure.axes
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == columns
    boxes = [label.get_window_extent(renderer) for label in labels]
    aslant = labels[0].get_rotation() > 0
    for one, other in pairwise(boxes):
        # Aslant the boxes may overlap: the lines of text are as far apart as their ends.
        assert one.x1 < other.x0 or (aslant and other.x1 - one.x1 > 2 * labels[0].get_fontsize())
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0


@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 40])
def test_there_are_no_halves_of_rounds(rounds: int) -> None:
    line = [(number, 0.5 / number) for number in range(1, rounds + 1)]
    figure = curves({"accuracy": line}, ylabel="accuracy")
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    low, high = axes.get_xlim()
    assert any(low <= tick <= high for tick in axes.get_xticks())
