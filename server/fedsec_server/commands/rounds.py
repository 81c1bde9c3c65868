"""The rounds of a run as a table: what each round's event says."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table

from fedsec.console import format_bytes, format_duration, safe, table
from fedsec.flower.reporting import COHORT, NOISED, NOISED_OVER, SECRET
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.sites import Sites

HEADS = ("round", "nodes", "loss", "accuracy", "train loss", "time", "missing")
_COLUMNS = tuple(head if head == "missing" else f">{head}" for head in HEADS)
_SHOWN = 3  # missing nodes that are named in one row
_MOST = 40  # rounds of which none is left out of an excerpt
_FIRST, _LAST = 5, 15  # rounds that an excerpt of more begins and ends with


@dataclass(frozen=True, slots=True)
class Row:
    """One round. None is what its event did not say.

    Attributes:
        number: Of the round, from 1.
        answered: Nodes whose answers count; None where it is a secret who was drawn.
        missing: Node id to reason: those who failed and those who were rejected.
        loss: Of the evaluation.
        accuracy: Of the evaluation, 0 to 1.
        trained: Loss of the training.
        seconds: That the round took.
        moved: Bytes to and from the nodes together.
        noised: Means of nodes' figures, by name, under the noise of a plan's privacy.
        over: Number of nodes that these are over.
    """

    number: int
    answered: int | None
    missing: Mapping[str, str]
    loss: float | None
    accuracy: float | None
    trained: float | None
    seconds: float | None
    moved: int
    noised: Mapping[str, float]
    over: float | None


@dataclass
class Rounds:
    """Collects rounds from events.

    Attributes:
        rows: By the number of the round; one that is repeated counts as it was at last.
        models: Paths of stored models, in the run's directory on the coordinator.
        names: Node id to name, where known.
        sites: Of the last evaluation at the sites.
    """

    rows: dict[int, Row] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    names: Mapping[str, str] = field(default_factory=dict)
    sites: Sites | None = None

    def add(self, event: pb.Event) -> Row | None:
        """Takes an event; returns the row if it told of a round."""
        if event.kind not in {"round", "model"}:
            return None
        detail = json.loads(event.detail_json)
        if event.kind == "model":
            self.models.append(str(detail.get("path", "")))
            return None
        row = _row(detail)
        self.rows[row.number] = row
        self.sites = Sites.of(detail) or self.sites
        return row

    def cells(self, row: Row) -> tuple[object, ...]:
        """Returns what the table shows of a round."""
        return (
            row.number,
            _nodes(row),
            *(
                None if value is None else f"{value:.4f}"
                for value in (row.loss, row.accuracy, row.trained)
            ),
            None if row.seconds is None else format_duration(row.seconds),
            self._missing(row.missing) or "",
        )

    def table(self, *, title: str = "", last: int | None = None) -> Table:
        """Returns the rounds as a table, of many rounds the `last` ones."""
        rows = self._sorted() if last is None else self._sorted()[-last:]
        return table(_COLUMNS, [self.cells(row) for row in rows], title=title)

    def excerpt(self, *, title: str = "") -> Table:
        """Returns the rounds as a table; of very many the first and the last, and what is between.

        What is between is counted, and so are those of it in which nodes were missing.
        """
        rows = self._sorted()
        if len(rows) <= _MOST:
            return self.table(title=title)
        between = rows[_FIRST:-_LAST]
        missed = sum(bool(row.missing) for row in between)
        more = f"{len(between)} rounds more" + (f", {missed} with missing nodes" * (missed > 0))
        cells = [self.cells(row) for row in rows]
        gap = ("...", *[""] * (len(HEADS) - 2), more)
        return table(_COLUMNS, [*cells[:_FIRST], gap, *cells[-_LAST:]], title=title)

    def _sorted(self) -> list[Row]:
        return [self.rows[number] for number in sorted(self.rows)]

    def summary(self) -> list[tuple[str, object]]:
        """Returns what a reader wants to know at the end, as label and value."""
        rows = self._sorted()
        lines: list[tuple[str, object]] = []
        told = {
            "loss": [row.loss for row in rows],
            "accuracy": [row.accuracy for row in rows],
            "train loss": [row.trained for row in rows],
        }
        for name, values in told.items():
            if known := [value for value in values if value is not None]:
                lines.append((name, f"{known[-1]:.4f}{self._of_whom(name, known[-1])}"))
        if noised := self.noised():
            lines.append(("noised figures", noised))
        if times := [row.seconds for row in rows if row.seconds is not None]:
            median = format_duration(statistics.median(times))
            lines.append(("time of a round", f"{median} (median)"))
        if moved := sum(row.moved for row in rows):
            lines.append(("moved", format_bytes(moved)))
        if self.sites and (verdict := self.sites.verdict()):
            lines.append(("federated or alone", verdict))
        if missed := sum(bool(row.missing) for row in rows):
            lines.append(("rounds with missing nodes", missed))
        return lines

    def noised(self) -> str:
        """Returns the last noised means of nodes' figures, in words; empty where none are told."""
        for number in sorted(self.rows, reverse=True):
            row = self.rows[number]
            if row.noised:
                figures = ", ".join(f"{safe(name)} {each:.4g}" for name, each in row.noised.items())
                return f"{figures} (round {number}{_over(row)})"
        return ""

    def _of_whom(self, name: str, value: float) -> str:
        """Says of what a figure is the mean, where there is another mean that differs from it."""
        pooled = None if self.sites is None else self.sites.pooled.get(name)
        if pooled is None or f"{pooled:.4f}" == f"{value:.4f}":
            return ""
        if self.sites is not None and name in self.sites.central:
            return f" (of the central tests; {pooled:.4f} of all the sites' tests)"
        return f" (mean of the sites, weighed as the plan says; {pooled:.4f} of all their tests)"

    def _missing(self, missing: Mapping[str, str]) -> str:
        named = [f"{self.names.get(node, node)}: {why}" for node, why in missing.items()]
        more = len(named) - _SHOWN
        return "; ".join(named[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _nodes(row: Row) -> int | str:
    if row.answered is None:
        return SECRET
    asked = row.answered + len(row.missing)
    return f"{row.answered}/{asked}" if row.missing else row.answered


def _over(row: Row) -> str:
    """Says which nodes noised means are over, where the event does."""
    if row.over is None:
        return ""
    if row.answered is None:
        return f"; over the {row.over:g} drawn on average, the missing as the middle of a range"
    refused = "" if row.over == row.answered else ", the rejected as the middle of a range"
    return f"; over the {row.over:g} that answered{refused}"


def _row(detail: Mapping[str, object]) -> Row:
    noised = numbers_of(detail.get(NOISED))
    answered = detail.get("answered")
    return Row(
        number=int(_number(detail.get("round")) or 0),
        answered=_count(answered) if detail.get(COHORT) != SECRET else None,
        missing={**_reasons(detail.get("failed")), **_reasons(detail.get("rejected"))},
        loss=_number(detail.get("loss", noised.get("loss"))),
        accuracy=_number(detail.get("accuracy", noised.get("accuracy"))),
        trained=_number(detail.get("train_loss")),
        seconds=_number(detail.get("seconds")),
        moved=sum(int(_number(detail.get(key)) or 0) for key in ("bytes_up", "bytes_down")),
        noised=noised,
        over=_number(detail.get(NOISED_OVER)),
    )


def numbers_of(value: object) -> dict[str, float]:
    """Returns the numbers of what should be a mapping from names to them."""
    found = value.items() if isinstance(value, Mapping) else ()
    numbers = {
        str(name): _number(each)
        for name, each in found
        if isinstance(each, int | float) and not isinstance(each, bool)
    }
    return {name: number for name, number in numbers.items() if number is not None}


def _number(value: object) -> float | None:
    """Returns a number; an app may report anything, and NaN comes as text."""
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):  # a whole number may be beyond any float
        return None


def _count(value: object) -> int:
    return len(value) if isinstance(value, Sequence) else 0


def _reasons(value: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, Mapping) else {}
