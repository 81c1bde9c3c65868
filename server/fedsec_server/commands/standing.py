"""How the nodes of a run stand: what each round's record of them adds up to."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.table import Table

from fedsec.console import table
from fedsec.wire.generated import admin_pb2 as pb

KIND = "nodes"
_COLUMNS = ("node", ">rounds", ">stood out", ">left out", ">rank", ">cosine", ">norm", "why")
_SHOWN = 30  # nodes in the table
_NAMED = 10  # in one sentence


@dataclass
class Node:
    """One node's records so far.

    Attributes:
        rounds: In which it answered.
        suspect: Rounds in which it stood out, those in which it was left out among them.
        excluded: Rounds in which it was left out.
        reason: The last one.
        ranks: Its places, 1 for the least suspicious.
        cosines: To the aggregates.
        norms: Of its updates.
    """

    rounds: int = 0
    suspect: int = 0
    excluded: int = 0
    reason: str = ""
    ranks: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def add(self, record: Mapping[str, object]) -> None:
        """Takes the record of a round."""
        self.rounds += 1
        excluded, suspect = record.get("excluded"), record.get("suspect")
        if excluded or suspect:
            self.suspect += 1
            self.excluded += bool(excluded)
            self.reason = str(excluded or suspect)
        for key, values in (("rank", self.ranks), ("cosine", self.cosines), ("norm", self.norms)):
            value = record.get(key)
            if isinstance(value, int | float):
                values.append(float(value))


@dataclass
class Standing:
    """Collects the records of nodes from events.

    Attributes:
        nodes: By id, as text.
        names: Node id to name, where known.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def add(self, event: pb.Event) -> None:
        """Takes an event; looks at those that hold records of nodes."""
        if event.kind != KIND:
            return
        records = json.loads(event.detail_json).get("nodes")
        for record in records if isinstance(records, list) else ():
            if not isinstance(record, Mapping):
                continue
            ids = record.get("nodes")
            for node in ids if isinstance(ids, list) else ():
                self.nodes.setdefault(str(node), Node()).add(record)

    def table(self, *, title: str = "") -> Table:
        """Returns the nodes as a table, the most suspicious first."""
        ranked = self._ranked()
        rows: list[tuple[object, ...]] = [
            (
                self._name(name),
                node.rounds,
                node.suspect,
                node.excluded,
                _median(node.ranks, ".0f"),
                _median(node.cosines, ".2f"),
                _median(node.norms, ".3g"),
                node.reason,
            )
            for name, node in ranked[:_SHOWN]
        ]
        if len(ranked) > _SHOWN:
            rows.append((f"and {len(ranked) - _SHOWN} more", *[""] * 7))
        return table(_COLUMNS, rows, title=title)

    def summary(self) -> list[tuple[str, object]]:
        """Returns who stood out in at least half of the rounds, as label and value."""
        often = [
            f"{self._name(name)} ({node.suspect} of {node.rounds} rounds: {node.reason})"
            for name, node in self._ranked()
            if 2 * node.suspect >= node.rounds
        ]
        if not often:
            return [("stand out", "none")] if self.nodes else []
        more = f"; and {len(often) - _NAMED} more" if len(often) > _NAMED else ""
        return [("stand out", "; ".join(often[:_NAMED]) + more)]

    def _ranked(self) -> list[tuple[str, Node]]:
        def suspicion(item: tuple[str, Node]) -> tuple[float, float, str]:
            name, node = item
            rank = statistics.median(node.ranks) if node.ranks else 0.0
            return -node.suspect / node.rounds, -rank, self._name(name)

        return sorted(self.nodes.items(), key=suspicion)

    def _name(self, node: str) -> str:
        return self.names.get(node, node)


def _median(values: list[float], form: str) -> str | None:
    return format(statistics.median(values), form) if values else None
