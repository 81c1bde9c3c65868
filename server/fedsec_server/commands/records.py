"""`fedsec run records`: how each node's update came into a round's aggregate."""

from typing import Annotated

import typer

from fedsec.console import Json, emit_json, say, show, table
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.progress import node_names
from fedsec_server.commands.reach import CredentialsFile, Directory, reach
from fedsec_server.commands.run import RunId, find

_EPILOG = """\b
Examples:
  fedsec run records last
  fedsec run records 4711 --round 12 --json

Weight: the factor of the update in the aggregate; none where each coordinate has its own. Rank: 1
is the least suspicious. Cosine: to the aggregate. For admins and operators alone; under central
privacy nobody else sees these figures, for its guarantee does not cover them.
"""
_COLUMNS = ("node", ">weight", ">rank", ">norm", ">cosine", "stands out", "left out")


def fill(group: typer.Typer) -> None:
    """Adds the command to the group `run`."""
    group.command("records", epilog=_EPILOG)(records)


def records(
    run_id: RunId,
    *,
    after: Annotated[
        int, typer.Option("--round", min=0, help="Of this round; 0: of the newest.")
    ] = 0,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Show how each node's update came into a round's aggregate; never the update."""
    way = reach(directory, credentials)
    request = pb.ShowRecordsRequest(run_id=find(way, run_id), round=after)
    reply = way.ask("ShowRecords", request, pb.ShowRecordsReply)
    if json:
        rows = [as_record(row) for row in reply.row]
        emit_json({"round": reply.round, "withheld": reply.withheld, "rows": rows})
        return
    names = node_names(way)
    title = f"Round {reply.round}"
    show(table(_COLUMNS, [_cells(as_record(row), names) for row in reply.row], title=title))
    if reply.withheld:
        say("\nNo privacy guarantee covers these figures; the log says that you have read them.")


def as_record(row: pb.RowRecord) -> dict[str, object]:
    """Returns what is known of a row; node ids as text, for JSON keeps only 53 bits."""
    known: dict[str, object] = {"nodes": [str(node) for node in row.node_id]}
    known |= {key: getattr(row, key) for key in ("weight", "rank", "norm", "cosine")
              if row.HasField(key)}  # fmt: skip
    return known | {key: getattr(row, key) for key in ("suspect", "excluded") if getattr(row, key)}


def _cells(record: dict[str, object], names: dict[str, str]) -> tuple[object, ...]:
    nodes = record["nodes"]
    who = [names.get(each, each) for each in map(str, nodes)] if isinstance(nodes, list) else []
    numbers = (record.get(key) for key in ("weight", "rank", "norm", "cosine"))
    return (
        ", ".join(who),
        *(f"{value:.3g}" if isinstance(value, int | float) else None for value in numbers),
        record.get("suspect"),
        record.get("excluded"),
    )
