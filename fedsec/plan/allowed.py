"""What a field of a pydantic model accepts, in words, read from its annotation.

>>> from typing import Annotated, Literal
>>> from pydantic import BaseModel, Field
>>> class Lamp(BaseModel):
...     watts: Annotated[int, Field(ge=1, le=60)]
...     colour: Literal["warm", "cold"] = "warm"
>>> allowed_values(Lamp, ("watts",))
'an integer in 1..60'
>>> allowed_values(Lamp, ("colour",))
'"warm", "cold"'
>>> allowed_keys(Lamp, ())
['watts', 'colour']
"""

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

NOUNS: dict[object, str] = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
}


def allowed_keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str] | None:
    """Returns the keys of the table at `path`; None where there is no table with fixed keys."""
    here = _at(model, path)
    table = next((bare for bare in map(_bare, _branches(here)) if _is_model(bare)), None)
    if table is None:
        return None
    return [field.alias or name for name, field in table.model_fields.items()]


def allowed_values(model: type[BaseModel], path: Sequence[int | str]) -> str:
    """Returns what may stand at `path`, e.g. ``'an integer in 1..60'``; empty where unknown."""
    here = _at(model, path)
    words = [_words(kind) for kind in _branches(here)] if here is not None else []
    return " or ".join(dict.fromkeys(word for word in words if word))


def _at(model: type[BaseModel], path: Sequence[int | str]) -> object:
    """Returns the annotation at `path`, or None where the path leads nowhere."""
    here: object = model
    for part in path:
        here = _step(here, str(part))
        if here is None:
            return None
    return here


def _step(annotation: object, key: str) -> object:
    for kind in _branches(annotation):
        bare = _bare(kind)
        if _is_model(bare):
            for name, field in bare.model_fields.items():
                if key == (field.alias or name):
                    return _annotation(field)
        elif _is_mapping(bare):
            return get_args(bare)[1]
        elif get_origin(bare) in {list, tuple, frozenset, set}:
            return get_args(bare)[0]
    return None


def _annotation(field: FieldInfo) -> object:
    """Returns the annotation with what pydantic took off its outside: range and description."""
    return Annotated[field.annotation, field]


def _branches(annotation: object) -> list[Any]:
    """Returns the members of a union, without None; anything else is its own only branch."""
    bare, outer = _bare(annotation), _constraints(annotation)
    if get_origin(bare) not in {Union, types.UnionType}:
        return [annotation]
    members = [kind for kind in get_args(bare) if kind is not type(None)]
    return [Annotated[kind, *outer] if outer else kind for kind in members]


def _bare(annotation: object) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _constraints(annotation: object) -> list[object]:
    found: list[object] = []
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        for item in more:
            found.append(item)
            found += item.metadata if isinstance(item, FieldInfo) else []
    return found


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_mapping(kind: object) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _words(annotation: object) -> str:
    bare = _bare(annotation)
    if get_origin(bare) is Literal:
        return ", ".join(f'"{x}"' if isinstance(x, str) else str(x) for x in get_args(bare))
    constraints = _constraints(annotation)
    described = next((c.description for c in constraints if isinstance(c, FieldInfo)), None)
    if described:
        return described
    if _is_model(bare) or _is_mapping(bare):
        return "a table"
    if get_origin(bare) in {list, tuple, set, frozenset}:
        return "a list"
    noun = NOUNS.get(bare, "")
    return f"{noun}{_range(constraints)}" if noun else ""


def _range(constraints: list[object]) -> str:
    """Returns ``" in 1..60"``, ``" > 0 and <= 1"``, ``" that matches ..."`` or nothing."""
    bounds: dict[str, Any] = {}
    for item in constraints:
        for name in ("ge", "gt", "le", "lt", "pattern", "min_length", "max_length"):
            value = getattr(item, name, None)
            if value is not None:
                bounds[name] = value
    if "ge" in bounds and "le" in bounds:
        return f" in {bounds['ge']}..{bounds['le']}"
    if "pattern" in bounds:
        return f" that matches {bounds['pattern']}"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    parts = [f"{sign} {bounds[name]}" for name, sign in signs.items() if name in bounds]
    if not parts and {"min_length", "max_length"} & bounds.keys():
        low, high = bounds.get("min_length", 0), bounds.get("max_length", "any number of")
        return f" of {low}..{high} characters"
    return f" {' and '.join(parts)}" if parts else ""
