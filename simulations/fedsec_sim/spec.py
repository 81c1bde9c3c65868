"""Values named in a word: ``alie:z=1.5`` on a command line, ``{ name = "alie", z = 1.5 }`` in TOML.

>>> parse_spec("gamma:gamma=0.33")
('gamma', {'gamma': 0.33})
"""

import inspect
import tomllib
from collections.abc import Callable, Mapping
from typing import TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from fedsec.errors import ConfigError

Made = TypeVar("Made")


def parse_spec(word: str) -> tuple[str, dict[str, object]]:
    """Returns name and parameters.

    Args:
        word: ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``; values as in TOML, or plain text.

    Raises:
        ConfigError: A parameter has no "=".
    """
    name, _, rest = word.partition(":")
    return name, read_settings(rest.split(",") if rest else [], word)


def read_settings(words: list[str], where: str) -> dict[str, object]:
    """Returns what words ``KEY=VALUE`` say.

    Raises:
        ConfigError: A word has no "="; begins with `where`.

    >>> read_settings(["alpha=0.1", "split=iid"], "--data")
    {'alpha': 0.1, 'split': 'iid'}
    """
    found: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f'{where}: want KEY=VALUE, e.g. "alpha=0.1", got "{word}"')
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


def read_table(given: object, where: str) -> tuple[str, dict[str, object]]:
    """Returns name and parameters of a value in TOML: a word, or a table with a ``name``.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(given, str):
        return parse_spec(given)
    if isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return str(given["name"]), {k: v for k, v in given.items() if k != "name"}
    raise ConfigError(f"{where}: want a name or a table with a name, got {str(given)[:60]}")


def build(what: str, made_by: Callable[..., Made], parameters: Mapping[str, object]) -> Made:
    """Returns what a word asks for; ranges are the business of `made_by`.

    Args:
        what: Begins the message.
        made_by: A class or function whose parameters have types.
        parameters: By name; all of them are known to `made_by`.

    Raises:
        ConfigError: A parameter is missing or of another type.
    """
    hints = get_type_hints(made_by)
    for key, value in parameters.items():
        try:
            TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            want = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise ConfigError(f"{what}: {key} = {str(value)[:40]!r}: want {want}") from None
    for each in inspect.signature(made_by).parameters.values():
        if each.default is each.empty and each.name not in parameters:
            raise ConfigError(f"{what}: {each.name} is missing")
    return made_by(**parameters)
