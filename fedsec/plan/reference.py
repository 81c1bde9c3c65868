"""Every key of a plan, read from the schema itself: a page that cannot be out of date."""

import inspect
import json
import textwrap
from collections.abc import Collection
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fedsec.plan.allowed import allowed_values
from fedsec.plan.federation import FederationPlan

HEAD = """\
# Every key of a plan

Made from the schema by `fedsec plan reference`. A key that is "left out" by default is not in the
plan's digest until it is written. What may not be combined, and why: `fedsec plan check FILE`.
"""
PATIENCE = """
## Deadlines, quorums and retries

What decides how long a run waits for whom; `[limits]` in a node's `node.toml` bounds, besides, how
long one message may take there (`task_s`) and how long a worker may start (`load_s`).
"""
PATIENT = (
    ("nodes", ("min_available", "quorum", "fraction", "wait_s")),
    ("round", ("deadline_s", "reconnect_s", "attempts", "evaluate_every")),
)
COLUMNS = "\n| key | allowed | default | what it says |\n|---|---|---|---|\n"


def reference_page() -> str:
    """Returns the page, in Markdown."""
    parts = [HEAD, PATIENCE, COLUMNS]
    for section, keys in PATIENT:
        model = _models(FederationPlan.model_fields[section].annotation)[0]
        parts += [_row(model, key, f"{section}.{key}") for key in keys]
    parts += ["\n## The file\n", COLUMNS]
    plain = [key for key, field in FederationPlan.model_fields.items() if not _models(field)]
    parts += [_row(FederationPlan, key, _name(FederationPlan, key)) for key in plain]
    for key, field in FederationPlan.model_fields.items():
        for model in _models(field):
            parts.append(table_of(model, f"[{key}]"))
    return "".join(parts)


def table_of(model: type[BaseModel], title: str, *, without: Collection[str] = ()) -> str:
    """Returns a heading and the keys of a table, then those of the tables inside it.

    Args:
        model: Of the table.
        title: As it stands in a file, e.g. ``"[round]"``.
        without: Keys that are told of elsewhere.
    """
    first, _ = _documented(model)
    keys = [key for key in model.model_fields if key not in without]
    parts = [f"\n## `{title}`\n\n{first}\n{COLUMNS}"]
    parts += [_row(model, key, _name(model, key)) for key in keys]
    for key in keys:
        inner = f"{title.rstrip(']')}.{key}]"
        parts += [table_of(each, inner) for each in _models(model.model_fields[key])]
    return "".join(parts)


def _row(model: type[BaseModel], key: str, shown: str) -> str:
    _, meanings = _documented(model)
    allowed = allowed_values(model, (_name(model, key),)) or "-"
    cells = (f"`{shown}`", allowed, _default(model, key), meanings.get(key, ""))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _name(model: type[BaseModel], key: str) -> str:
    return model.model_fields[key].alias or key


def _default(model: type[BaseModel], key: str) -> str:
    if _name(model, key) in _required(model):
        return "must be written"
    field = model.model_fields[key]
    default: Any = field.get_default(call_default_factory=False)
    if default is PydanticUndefined:
        return "depends, see there"
    if default is None:
        return "left out"
    if isinstance(default, BaseModel):
        return "-"
    return f"`{json.dumps(default, default=lambda value: list(value) or {})}`"


def _required(model: type[BaseModel]) -> set[str]:
    """Returns the keys that an empty table lacks; others without a default are filled in."""
    try:
        model.model_validate({})
    except ValidationError as error:
        return {str(each["loc"][0]) for each in error.errors() if each["type"] == "missing"}
    return set()


def _models(annotation: object) -> list[type[BaseModel]]:
    """Returns the tables that stand in an annotation or a field."""
    if isinstance(annotation, FieldInfo):
        annotation = annotation.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _documented(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """Returns the first line of a table's docstring, and what its Args say of each key."""
    first = ""
    meanings: dict[str, str] = {}
    for kind in reversed(model.__mro__):  # a table tells of its own keys, its parents of theirs
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            first, own = _told(kind)
            meanings |= own
    return first, meanings


def _told(kind: type[BaseModel]) -> tuple[str, dict[str, str]]:
    text = inspect.cleandoc(kind.__doc__ or "")
    first, _, rest = text.partition("\n")
    _, _, arguments = rest.partition("Args:\n")
    block = textwrap.dedent(arguments.split("\n\n")[0])
    meanings: dict[str, str] = {}
    key = ""
    for line in block.splitlines():
        if not line.startswith(" "):
            key, _, line = line.partition(":")  # noqa: PLW2901 - the rest of the line
        meanings[key] = f"{meanings.get(key, '')} {line.strip()}".strip().replace("``", "`")
    return first.replace("``", "`"), meanings
