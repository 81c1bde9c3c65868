"""How each node's update came into a round's aggregate, as the run recorded it.

Without central privacy they are events "nodes" of the run, which everybody who sees the run sees.
With it they are files of the run's directory, which no event repeats: the records depend on the
updates, and no noise covers that.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsec.errors import ConfigError, StateError
from fedsec.files import read_private
from fedsec.flower.records import DIRECTORY, file_name, round_of
from fedsec.flower.reporting import NODES
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.layout import Layout
from fedsec_server.state.store import Store

MAX_FILE = 64 << 20  # bytes; an app may write anything into its run's directory
MAX_REASON = 200  # letters: the most nodes that there may be fit into one answer of gRPC


@dataclass(frozen=True, slots=True)
class Found:
    """The records of a round.

    Args:
        round: Which one.
        withheld: Whether they are in no event.
        rows: As JSON.
    """

    round: int
    withheld: bool
    rows: list[object]


def find_records(store: Store, layout: Layout, run_id: int, round_number: int) -> Found:
    """Returns the records of a round; `round_number` 0: of the newest that has any.

    Raises:
        StateError: There is no such run, or it has no such records.
    """
    store.run(run_id)
    for found in (_in_files(layout.run(run_id), round_number), _in_events(store, run_id)):
        for record in found:
            if round_number in {0, record.round}:
                return record
    which = f"of round {round_number} " if round_number else ""
    raise StateError(
        f"run {run_id} has no records of nodes {which}(yet); plans with [robust] make them"
    )


def reply(found: Found) -> pb.ShowRecordsReply:
    """Returns the answer to a person; what is no record is left out."""
    rows = [_row(each) for each in found.rows if isinstance(each, Mapping)]
    return pb.ShowRecordsReply(round=found.round, withheld=found.withheld, row=rows)


def _in_files(run: Path, round_number: int) -> Iterator[Found]:
    """Yields the records that lie in files, the newest first."""
    directory = run / DIRECTORY
    if not directory.is_dir():
        return
    rounds = {round_of(path.name) for path in directory.iterdir()} - {None}
    for number in sorted((n for n in rounds if n is not None), reverse=True):
        if round_number not in {0, number}:
            continue
        path = directory / file_name(number)
        try:
            yield _found(json.loads(read_private(path, limit=MAX_FILE)), withheld=True)
        except (ConfigError, ValueError, RecursionError) as error:
            raise StateError(f"{path} holds no records: {error}") from error


def _in_events(store: Store, run_id: int) -> Iterator[Found]:
    for event in reversed(store.events(run_id=run_id)):
        if event.kind == NODES:
            yield _found(event.detail, withheld=False)


def _found(detail: object, *, withheld: bool) -> Found:
    told = detail if isinstance(detail, Mapping) else {}
    number, rows = told.get("round"), told.get("nodes")
    return Found(
        number if type(number) is int and 0 < number < 1 << 32 else 0,
        withheld,
        rows if isinstance(rows, list) else [],
    )


def _row(record: Mapping[str, object]) -> pb.RowRecord:
    nodes = record.get("nodes")
    ids = nodes if isinstance(nodes, list) else []
    rank = record.get("rank")
    return pb.RowRecord(
        node_id=[node for node in ids if type(node) is int and 0 <= node < 1 << 64],
        weight=_number(record, "weight"),
        rank=rank if type(rank) is int and 0 < rank < 1 << 32 else None,
        norm=_number(record, "norm"),
        cosine=_number(record, "cosine"),
        suspect=str(record.get("suspect") or "")[:MAX_REASON],
        excluded=str(record.get("excluded") or "")[:MAX_REASON],
    )


def _number(record: Mapping[str, object], key: str) -> float | None:
    value = record.get(key)
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:  # JSON's integers have no end
        return None
