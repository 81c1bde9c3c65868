"""The whole map by its worst cases, the frontier, seeds, the remedies without noise: tables."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from fedsec_sim.three_defences.cell import Cell
from fedsec_sim.three_defences.grid import (
    DATA,
    EPSILONS,
    FACTORS,
    FRONTIER_EPSILON,
    FRONTIER_NODES,
    FRONTIER_PERCENT,
    HEADLINE,
    NODES,
    PERCENTS,
    REMEDIES,
    SEEDS,
    TUNED,
    Way,
    attacked,
    frontier,
    mnist_frontier,
    seeds,
    setup,
    table,
)
from fedsec_sim.three_defences.results import Measured

MISSING = "-"
LENGTHS = (0, *sorted({*FACTORS, *TUNED}))


def tables(measured: Measured) -> str:
    """Returns all of them as Markdown."""
    setting = f"{FRONTIER_NODES:,} nodes, digits"
    percent, head = FRONTIER_PERCENT, ("rule, groups, recipe", *map(_length, LENGTHS))
    parts = [
        "# The map in tables",
        "",
        f"Accuracy; {MISSING}: not computed. Made by `run.py --draw`.",
        "",
        f"## {setting}, epsilon {FRONTIER_EPSILON:g}, {percent} % hostile in the worst places",
        *_lines(head, _frontier(measured, list(frontier()))),
        "## The same with MNIST",
        *_lines(head, _frontier(measured, list(mnist_frontier()))),
        f"## Digits with seeds {SEEDS[0]} to {SEEDS[-1]}: mean and standard deviation",
        *_lines(head, _seeds(measured, list(seeds()))),
        "## The same with MNIST",
        *_lines(head, _seeds(measured, list(seeds((HEADLINE,), "mnist")))),
        f"## {setting}, no noise: what withstands how much the nodes differ",
        *_lines(("rule, groups, recipe", *_shares()), _remedies(measured)),
        "## The same with MNIST",
        *_lines(("rule, groups, recipe", *_shares()), _remedies(measured, "mnist")),
        *_whole(measured),
    ]
    return "\n".join(parts) + "\n"


def _whole(measured: Measured) -> Iterator[str]:
    """Yields a table for each data set, number of nodes and noise: the worse of both lengths."""
    for data, nodes, epsilon in product(DATA, NODES, EPSILONS):
        found = list(table(data, nodes, placements=("worst",), epsilons=(epsilon,)))
        if not any(measured.accuracy(cell) is not None for cell in found):
            continue
        rows = [
            (words, *(_worst(measured, found, words, percent) for percent in PERCENTS))
            for words in dict.fromkeys(setup(cell) for cell in found)
        ]
        noise = "no noise" if epsilon is None else f"epsilon {epsilon:g}"
        yield f"## {nodes:,} nodes, {data}, {noise}: the worse of both lengths, in the worst places"
        yield from _lines(("set-up", *(f"{percent} %" for percent in PERCENTS)), rows)


def _worst(measured: Measured, cells: Sequence[Cell], words: str, percent: int) -> str:
    mine = [c for c in cells if setup(c) == words and c.hostile == c.nodes * percent // 100]
    if all(cell.refused for cell in mine):
        return "refused"
    found = [measured.accuracy(cell) for cell in mine if not cell.refused]
    known = [value for value in found if value is not None]
    return _number(min(known)) if len(known) == len(found) else MISSING


def _frontier(measured: Measured, cells: Sequence[Cell]) -> Iterator[tuple[str, ...]]:
    share = FRONTIER_NODES * FRONTIER_PERCENT // 100
    found = [cell for cell in cells if cell.hostile in {0, share}]
    for way in dict.fromkeys(map(Way.of, found)):
        known = {cell.factor: measured.accuracy(cell) for cell in found if Way.of(cell) == way}
        if any(value is not None for value in known.values()):
            yield way.words, *(_number(known.get(length)) for length in LENGTHS)


def _seeds(measured: Measured, cells: Sequence[Cell]) -> Iterator[tuple[str, ...]]:
    for way in dict.fromkeys(map(Way.of, cells)):
        mine = [cell for cell in cells if Way.of(cell) == way]
        yield (
            way.words,
            *(_spread(measured, [c for c in mine if c.factor == length]) for length in LENGTHS),
        )


def _spread(measured: Measured, cells: Sequence[Cell]) -> str:
    known = [value for cell in cells if (value := measured.accuracy(cell)) is not None]
    if len(known) < len(SEEDS):
        return MISSING
    return f"{statistics.mean(known):.2f} +- {statistics.stdev(known):.2f}"


def _remedies(measured: Measured, data: str = "digits") -> Iterator[tuple[str, ...]]:
    ways = dict.fromkeys([Way("median", 5), Way("trimmed-mean", 5), *REMEDIES])
    for way in ways:
        known = {
            (cell.hostile, cell.factor): "refused" if cell.refused else _number(found)
            for cell in attacked([way], None, PERCENTS, data=data)
            for found in [measured.accuracy(cell)]
        }
        if set(known.values()) - {MISSING, "refused"}:
            yield way.words, *known.values()


def _shares() -> Iterator[str]:
    for cell in attacked([Way("median", 5)], None, PERCENTS):
        share = f"{100 * cell.hostile // cell.nodes} % x{cell.factor}"
        yield share if cell.hostile else _length(0)


def _length(factor: int) -> str:
    return f"x{factor}" if factor else "no attack"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields a table, line by line, between empty lines."""
    yield ""
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
