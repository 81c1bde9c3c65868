"""The frontier, what several seeds say of it, and the remedies without noise: tables for people."""

import statistics
from collections.abc import Iterable, Iterator, Sequence

from fedsec_sim.three_defences.cell import Cell
from fedsec_sim.three_defences.grid import (
    FACTORS,
    FRONTIER_EPSILON,
    FRONTIER_NODES,
    FRONTIER_PERCENT,
    PERCENTS,
    REMEDIES,
    SEEDS,
    TUNED,
    Way,
    attacked,
    frontier,
    seeds,
)
from fedsec_sim.three_defences.results import Measured

MISSING = "-"
LENGTHS = (0, *sorted({*FACTORS, *TUNED}))


def tables(measured: Measured) -> str:
    """Returns all of them as Markdown."""
    setting = f"{FRONTIER_NODES:,} nodes, digits"
    percent = FRONTIER_PERCENT
    parts = [
        "# The map in tables",
        "",
        f"Accuracy; {MISSING}: not computed. Made by `run.py --draw`.",
        "",
        f"## {setting}, epsilon {FRONTIER_EPSILON:g}, {percent} % hostile in the worst places",
        *_lines(("rule, groups, recipe", *map(_length, LENGTHS)), _frontier(measured)),
        f"## The same with seeds {SEEDS[0]} to {SEEDS[-1]}: mean and standard deviation",
        *_lines(("rule, groups, recipe", *map(_length, LENGTHS)), _seeds(measured)),
        f"## {setting}, no noise: what withstands how much the nodes differ",
        *_lines(("rule, groups, recipe", *_shares()), _remedies(measured)),
    ]
    return "\n".join(parts) + "\n"


def _frontier(measured: Measured) -> Iterator[tuple[str, ...]]:
    found = list(frontier())
    for way in dict.fromkeys(map(Way.of, found)):
        known = {cell.factor: measured.accuracy(cell) for cell in found if Way.of(cell) == way}
        if any(value is not None for value in known.values()):
            yield way.words, *(_number(known.get(length)) for length in LENGTHS)


def _seeds(measured: Measured) -> Iterator[tuple[str, ...]]:
    found = list(seeds())
    for way in dict.fromkeys(map(Way.of, found)):
        mine = [cell for cell in found if Way.of(cell) == way]
        yield (
            way.words,
            *(_spread(measured, [c for c in mine if c.factor == length]) for length in LENGTHS),
        )


def _spread(measured: Measured, cells: Sequence[Cell]) -> str:
    known = [value for cell in cells if (value := measured.accuracy(cell)) is not None]
    if len(known) < len(SEEDS):
        return MISSING
    return f"{statistics.mean(known):.2f} +- {statistics.stdev(known):.2f}"


def _remedies(measured: Measured) -> Iterator[tuple[str, ...]]:
    ways = dict.fromkeys([Way("median", 5), Way("trimmed-mean", 5), *REMEDIES])
    for way in ways:
        known = {
            (cell.hostile, cell.factor): "refused" if cell.refused else _number(found)
            for cell in attacked([way], None, PERCENTS)
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
