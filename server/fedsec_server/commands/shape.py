"""Answers of the coordinator as JSON for programs, and as words for people."""

import json
from collections.abc import Iterable, Mapping

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.table import Table

from fedsec.console import format_duration, format_time, table
from fedsec.identity.authorities import show_fingerprint
from fedsec.wire.generated import admin_pb2 as pb

_WHOLE = frozenset({"run_id", "sequence"})  # 64 bits on the wire, small enough for any reader


def as_mapping(message: Message) -> dict[str, object]:
    """Returns a message with every field, by its name in the schema.

    Times that have not come are null. Node ids are text: many readers of JSON keep only 53 bits.
    The detail of an event is an object.
    """
    values = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _mend(values)


def _mend(values: Mapping[str, object]) -> dict[str, object]:
    mended: dict[str, object] = {}
    for name, value in values.items():
        match value:
            case str() if name == "detail_json":
                mended["detail"] = json.loads(value)
            case str() if name in _WHOLE:
                mended[name] = int(value)
            case float() | int() if name.endswith("_at") and not value:
                mended[name] = None
            case Mapping():
                mended[name] = _mend(value)
            case list():
                mended[name] = [
                    _mend(each) if isinstance(each, Mapping) else each for each in value
                ]
            case _:
                mended[name] = value
    return mended


def moment(unix: float, *, now: float) -> str:
    """Returns a time and how far it is away; "-" for 0."""
    if not unix:
        return "-"
    far = format_duration(abs(unix - now))
    return f"{format_time(unix)} ({f'in {far}' if unix >= now else f'{far} ago'})"


def event_table(events: Iterable[pb.Event]) -> Table:
    """Returns events as a table under the heading "Lately"."""
    rows = [(format_time(each.at), each.kind, detail_words(each.detail_json)) for each in events]
    return table(["when", "what", "detail"], rows, title="\nLately")


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Returns labels and values as a table without headings."""
    made = table(["", ""], rows)
    made.show_header = False
    return made


def detail_words(detail_json: str) -> str:
    """Returns the detail of an event on one line."""
    detail = json.loads(detail_json)
    return ", ".join(f"{key}={value}" for key, value in detail.items() if value not in ("", None))


def authority_facts(authorities: Iterable[pb.Authority], *, now: float) -> list[tuple[str, str]]:
    """Returns one line per issuing CA: until when it lives, and what goes on."""
    lines = []
    for each in authorities:
        shown = show_fingerprint(each.fingerprint)[:9]
        text = f"{shown} ... until {moment(each.expires_at, now=now)}"
        if each.change_ends_at:
            text += f"; being replaced, both count until {format_time(each.change_ends_at)}"
        lines.append((f"CA for {each.name}", text))
    return lines
