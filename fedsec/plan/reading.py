"""From TOML to a checked value; from what is wrong to sentences that say how to mend it.

Each sentence holds the key's path, the value and what is allowed. Used for plans and for the
settings of the programs.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedsec.errors import ConfigError
from fedsec.plan.allowed import allowed_keys, allowed_values

Value = TypeVar("Value", bound=BaseModel)
MAX_SHOWN = 80  # characters of a value in a message
MAX_LISTED = 50  # errors in a message: who sends a plan may send a bad one on purpose
MAX_DOTS = 256  # in a line: the parser's time and memory grow with the square of a key's parts


def read_toml(model: type[Value], text: str, *, what: str, max_bytes: int = 1 << 20) -> Value:
    """Returns the `model` that `text` describes.

    Args:
        model: Its fields carry the ranges that errors quote.
        text: TOML.
        what: Begins the message, e.g. ``"the plan"`` or ``"node.toml"``.
        max_bytes: A longer text is not parsed.

    Raises:
        ConfigError: Not TOML, or keys or values are wrong; the message lists all of them.
    """
    if len(text.encode(errors="replace")) > max_bytes:
        raise ConfigError(f"{what} is longer than {max_bytes} bytes")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MAX_DOTS:
            raise ConfigError(
                f"{what}, line {number}: more than {MAX_DOTS} dots; break a long list into lines"
            )
    try:
        given = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also of an integer of 4301 digits
        raise ConfigError(f"{what} is not TOML: {error}") from error
    return read_mapping(model, given, what=what)


def read_mapping(model: type[Value], given: Mapping[str, object], *, what: str) -> Value:
    """Returns the `model` that `given` describes; see `read_toml`."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
        # A union reports each of its branches; one sentence per key is enough.
        sentences = dict.fromkeys(_sentence(model, details) for details in found[:MAX_LISTED])
        more = max(0, len(found) - MAX_LISTED)
    raise ConfigError(list_problems(what, sentences, more)) from None


def list_problems(what: str, problems: Iterable[str], more: int = 0) -> str:
    """Returns one message for all `problems`: a line if it is one, else a list.

    Args:
        what: Begins the message.
        problems: One sentence each.
        more: How many further ones are not listed.
    """
    lines = list(problems)
    if len(lines) == 1 and not more:
        return f"{what}: {lines[0]}"
    rest = [f"and {more} more"] if more else []
    return "\n  ".join([f"{what} has {len(lines) + more} errors:", *lines, *rest])


def _sentence(model: type[BaseModel], details: ErrorDetails) -> str:
    path = _real_path(model, details["loc"])
    key = ".".join(_plain(str(part)) for part in path) or "the file"
    match details["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key{_guess(model, path)}"
        case "missing":
            allowed = allowed_values(model, path)
            return f"{key}: missing" + (f"; allowed: {allowed}" if allowed else "")
        case "value_error" | "assertion_error":
            return (
                f"{key} = {_show(details['input'])}: {details['msg'].removeprefix('Value error, ')}"
            )
    allowed = allowed_values(model, path) or details["msg"]
    guess = _choice(details)
    return f"{key} = {_show(details['input'])}: allowed: {allowed}{guess}"


def _real_path(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Returns `loc` without what pydantic adds to it for the branches of a union."""
    path: list[int | str] = []
    for part in loc:
        if path and allowed_keys(model, tuple(path)) is None and not _is_entry(model, path):
            break
        path.append(part)
    return tuple(path)


def _is_entry(model: type[BaseModel], path: list[int | str]) -> bool:
    return allowed_values(model, tuple(path)) in {"a table", "a list"}


def _guess(model: type[BaseModel], path: tuple[int | str, ...]) -> str:
    known = allowed_keys(model, path[:-1]) or []
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    if close:
        where = ".".join([*(str(part) for part in path[:-1]), close[0]])
        return f"; did you mean {where}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _choice(details: ErrorDetails) -> str:
    given = details["input"]
    if details["type"] != "literal_error" or not isinstance(given, str):
        return ""
    choices = str(details.get("ctx", {}).get("expected", "")).replace(" or ", ", ").split(", ")
    close = difflib.get_close_matches(given, [choice.strip("'") for choice in choices], n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _show(value: object) -> str:
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, bool):
        return str(value).lower()
    return _plain(f'"{value}"' if isinstance(value, str) else str(value))


def _plain(text: str) -> str:
    """Returns a text of somebody else's on one line, short, without control characters."""
    cut = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
    return cut if cut.isprintable() else cut.encode("unicode_escape").decode()
