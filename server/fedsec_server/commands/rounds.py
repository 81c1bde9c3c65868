"""The rounds of a run as a table: what each round's event says."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table

from fedsec.console import format_bytes, format_duration, safe, table
from fedsec.flower.reporting import COHORT, NOISED, SECRET
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.sites import Sites

_COLUMNS = (">round", ">nodes", ">loss", ">accuracy", ">time", "missing")
_SHOWN = 3  # missing nodes that are named in one row


@dataclass(frozen=True, slots=True)
class Row:
    """One round. None is what its event did not say.

    Attributes:
        number: Of the round, from 1.
        answered: Nodes whose answers count; None where it is a secret who was drawn.
        missing: Node id to reason: those who failed and those who were rejected.
        loss: Of the evaluation; where there was none, of the training.
        accuracy: Of the evaluation, 0 to 1.
        seconds: That the round took.
        moved: Bytes to and from the nodes together.
        noised: Means of nodes' figures, by name, under the noise of a plan's privacy.
    """

    number: int
    answered: int | None
    missing: Mapping[str, str]
    loss: float | None
    accuracy: float | None
    seconds: float | None
    moved: int
    noised: Mapping[str, float]


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
            None if row.loss is None else f"{row.loss:.4f}",
            None if row.accuracy is None else f"{row.accuracy:.4f}",
            None if row.seconds is None else format_duration(row.seconds),
            self._missing(row.missing) or "",
        )

    def table(self, *, title: str = "", last: int | None = None) -> Table:
        """Returns the rounds as a table, of many rounds the `last` ones."""
        rows = [self.rows[number] for number in sorted(self.rows)]
        shown = rows if last is None else rows[-last:]
        return table(_COLUMNS, [self.cells(row) for row in shown], title=title)

    def summary(self) -> list[tuple[str, object]]:
        """Returns what a reader wants to know at the end, as label and value."""
        rows = [self.rows[number] for number in sorted(self.rows)]
        lines: list[tuple[str, object]] = []
        if losses := [row.loss for row in rows if row.loss is not None]:
            lines.append(("loss", f"{losses[-1]:.4f}"))
        if accuracies := [row.accuracy for row in rows if row.accuracy is not None]:
            lines.append(("accuracy", f"{accuracies[-1]:.4f}"))
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
            if told := self.rows[number].noised:
                figures = ", ".join(f"{safe(name)} {value:.4g}" for name, value in told.items())
                return f"{figures} (round {number})"
        return ""

    def _missing(self, missing: Mapping[str, str]) -> str:
        named = [f"{self.names.get(node, node)}: {why}" for node, why in missing.items()]
        more = len(named) - _SHOWN
        return "; ".join(named[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _nodes(row: Row) -> int | str:
    if row.answered is None:
        return SECRET
    asked = row.answered + len(row.missing)
    return f"{row.answered}/{asked}" if row.missing else row.answered


def _row(detail: Mapping[str, object]) -> Row:
    noised = numbers_of(detail.get(NOISED))
    loss = _number(detail.get("loss", noised.get("loss")))
    answered = detail.get("answered")
    return Row(
        number=int(_number(detail.get("round")) or 0),
        answered=_count(answered) if detail.get(COHORT) != SECRET else None,
        missing={**_reasons(detail.get("failed")), **_reasons(detail.get("rejected"))},
        loss=_number(detail.get("train_loss")) if loss is None else loss,
        accuracy=_number(detail.get("accuracy", noised.get("accuracy"))),
        seconds=_number(detail.get("seconds")),
        moved=sum(int(_number(detail.get(key)) or 0) for key in ("bytes_up", "bytes_down")),
        noised=noised,
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
