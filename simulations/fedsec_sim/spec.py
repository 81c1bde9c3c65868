"""Values named in a word: ``alie:z=1.5`` on a command line, ``{ name = "alie", z = 1.5 }`` in TOML.

>>> parse_spec("gamma:gamma=0.33")
('gamma', {'gamma': 0.33})
>>> spec_text("gamma", {"gamma": 0.33})
'gamma:gamma=0.33'
"""

import tomllib
from collections.abc import Mapping

from fedsec.errors import ConfigError


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


def spec_text(name: str, parameters: Mapping[str, object]) -> str:
    """Returns the word for a value."""
    rest = ",".join(f"{key}={value}" for key, value in parameters.items())
    return f"{name}:{rest}" if rest else name
