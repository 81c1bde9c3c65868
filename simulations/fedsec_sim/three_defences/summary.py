"""The map in one table: how well the best set-up with all three defences does at its worst."""

from dataclasses import dataclass, replace

from fedsec_sim.three_defences.cell import Cell
from fedsec_sim.three_defences.grid import EPSILONS, FACTORS, PERCENTS
from fedsec_sim.three_defences.recipes import SEED
from fedsec_sim.three_defences.results import Measured

HOLDS = 0.80
"""Accuracy from which the map calls a set-up one that holds."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best set-up of groups for some nodes, epsilon and attackers.

    Attributes:
        accuracy: Under the worst of the attacks that were computed.
        cell: That of the worst attack.
    """

    accuracy: float
    cell: Cell

    @property
    def holds(self) -> bool:
        """Whether the accuracy, to two digits as it is shown, is enough."""
        return round(self.accuracy, 2) >= HOLDS

    @property
    def words(self) -> str:
        """What it is, in a few words."""
        cell = self.cell
        learned = "" if cell.recipe == "plain" else f", {cell.recipe}"
        return f"{cell.combined} of groups of {cell.size}{learned}"


def best(
    measured: Measured, data: str, nodes: int, epsilon: float | None, hostile: int
) -> Best | None:
    """Returns the set-up whose worst accuracy is highest; None where none was computed.

    Each is judged by all attacks that were computed of it with as many groups spoilt as can be; at
    least those of every length of `FACTORS`.
    """
    found: dict[Cell, list[tuple[float, Cell]]] = {}
    for key, cell in measured.cells.items():
        groups = 1 < cell.size < cell.nodes
        wanted = (cell.data, cell.nodes, cell.epsilon, cell.hostile)
        groups = groups and cell.placement != "random" and cell.seed == SEED
        if groups and wanted == (data, nodes, epsilon, hostile):
            setup = replace(cell, factor=0)
            found.setdefault(setup, []).append((measured.outcomes[key].accuracy, cell))
    asked = set(FACTORS) if hostile else {0}
    whole = [
        min(known, key=lambda pair: pair[0])
        for known in found.values()
        if asked <= {cell.factor for _, cell in known}
    ]
    if not whole:
        return None
    return Best(*max(whole, key=lambda pair: pair[0]))


def table(measured: Measured, data: str, nodes: int) -> list[list[Best | None]]:
    """Returns the best set-ups: a row for each epsilon, a column for each share of attackers."""
    return [
        [best(measured, data, nodes, epsilon, nodes * percent // 100) for percent in PERCENTS]
        for epsilon in EPSILONS
    ]
