"""What is recorded of each node in a round: numbers and reasons, never vectors."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsec.files import make_private_directory, write_private
from fedsec.flower.reporting import Json
from fedsec.robust.aggregate import Aggregate, Doubles

DIRECTORY = "records"
"""Of a run, where `RecordFiles` keeps them."""

DIGITS = 6  # significant ones that are kept


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """How one row came into the aggregate.

    Attributes:
        nodes: Ids of the nodes in the row; several where groups are summed in secret.
        weight: Factor of the row; None where each coordinate has factors of its own.
        rank: Place among the rows, 1 for the least suspicious: by the rule's own score, or by
            distance to the aggregate where it has none.
        norm: L2 norm of the row.
        cosine: Of the row to the aggregate.
        suspect: Why it stands out.
        excluded: Why it was left out.
    """

    nodes: tuple[int, ...]
    weight: float | None = None
    rank: int | None = None
    norm: float | None = None
    cosine: float | None = None
    suspect: str | None = None
    excluded: str | None = None

    def to_json(self) -> dict[str, Json]:
        """Returns what is known, by name."""
        values: dict[str, Json] = {
            "weight": _short(self.weight),
            "rank": self.rank,
            "norm": _short(self.norm),
            "cosine": _short(self.cosine),
            "suspect": self.suspect,
            "excluded": self.excluded,
        }
        known = {name: value for name, value in values.items() if value is not None}
        return {"nodes": list(self.nodes), **known}


def records_of(groups: Sequence[tuple[int, ...]], found: Aggregate) -> list[NodeRecord]:
    """Returns a record of each row.

    Args:
        groups: Ids of the nodes in each row (m,).
        found: What the rule made of the rows.
    """
    told = found.diagnostics
    suspects = {each.row: each.reason for each in found.suspects}
    ranks = _ranks(told.distances if told.scores is None else told.scores)
    return [
        NodeRecord(
            nodes=group,
            weight=None if found.weights is None else float(found.weights[row]),
            rank=ranks[row],
            norm=float(told.norms[row]),
            cosine=float(told.cosines[row]),
            suspect=None if row in told.excluded else suspects.get(row),
            excluded=told.excluded.get(row),
        )
        for row, group in enumerate(groups)
    ]


def records_json(round_number: int, records: Sequence[NodeRecord]) -> dict[str, Json]:
    """Returns the records of a round as one JSON object."""
    return {"round": round_number, "nodes": [record.to_json() for record in records]}


@dataclass(frozen=True)
class RecordFiles:
    """Keeps records where only this user reads them: what no privacy guarantee covers.

    Args:
        directory: Made if need be; gets a file for each round.
    """

    directory: Path

    def __call__(self, round_number: int, records: Sequence[NodeRecord]) -> None:
        """Writes the records of a round."""
        if not self.directory.exists():
            make_private_directory(self.directory)
        text = json.dumps(records_json(round_number, records), indent=1)
        write_private(self.directory / file_name(round_number), text.encode())


def file_name(round_number: int) -> str:
    """Returns the name of the file for a round's records."""
    return f"round-{round_number:05d}.json"


def round_of(name: str) -> int | None:
    """Returns the round whose records a file of that name holds; None: it is another file.

    >>> round_of(file_name(12)), round_of("notes.txt")
    (12, None)
    """
    digits = name.removeprefix("round-").removesuffix(".json")
    return int(digits) if digits.isdecimal() and name == file_name(int(digits)) else None


def _ranks(scores: Doubles) -> list[int | None]:
    """Returns the place of each score, the least first; None for NaN."""
    order = np.argsort(scores, kind="stable")
    places = {int(row): place for place, row in enumerate(order, start=1)}
    return [None if math.isnan(score) else places[row] for row, score in enumerate(scores)]


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")
