"""What was measured: a line of JSON for each cell, added as it is done, so that a run goes on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fedsec.errors import ConfigError
from fedsec_sim.three_defences.cell import Cell, Outcome

MEASURED = Path(__file__).with_name("measured.jsonl")
"""The published map; made by `simulations/experiments/three_defences/run.py`."""


@dataclass(frozen=True)
class Measured:
    """Cells that are done, by key.

    Args:
        outcomes: What came out.
        cells: Which they are.
    """

    outcomes: Mapping[str, Outcome]
    cells: Mapping[str, Cell]

    def accuracy(self, cell: Cell) -> float | None:
        """Returns the accuracy of a cell; None where it was not computed."""
        found = self.outcomes.get(cell.key)
        return None if found is None else found.accuracy


def read(path: Path = MEASURED) -> Measured:
    """Returns what stands in a file; nothing where there is none.

    Raises:
        ConfigError: A line is none of ours; says which.
    """
    outcomes: dict[str, Outcome] = {}
    cells: dict[str, Cell] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            told = json.loads(line)
            cell, outcome = Cell(**told["cell"]), Outcome(**told["outcome"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}, line {number}: no cell of the map: {error}") from error
        outcomes[cell.key], cells[cell.key] = outcome, cell
    return Measured(outcomes, cells)


def add(path: Path, cell: Cell, outcome: Outcome) -> None:
    """Appends what a cell came to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        line = json.dumps({"cell": asdict(cell), "outcome": asdict(outcome)})
        file.write(line + "\n")
