"""Reading settings and options of a task: each error names the key, the value and the range.

>>> given = Settings({"partition": 3, "split": "iid"})
>>> given.integer("partition", low=0, high=9)
3
>>> given.choice("split", ("dirichlet", "shards", "iid"), default="dirichlet")
'iid'
>>> given.end()
"""

import difflib
from collections.abc import Mapping, Sequence

from fedsec.errors import ConfigError

LARGEST = 1e300


class Settings:
    """A table that is read key by key; `end` refuses keys that nobody asked for.

    Args:
        given: Keys and values, as an operator wrote them.
        where: Begins each message, e.g. ``"task.options."``.
    """

    def __init__(self, given: Mapping[str, object], where: str = "") -> None:
        self._given = given
        self._where = where
        self._known: list[str] = []

    def integer(self, key: str, *, low: int, high: int, default: int | None = None) -> int:
        """Returns a whole number in low..high."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._refuse(key, value, f"an integer in {low}..{high}")
        return value

    def number(
        self, key: str, *, above: float, most: float = LARGEST, default: float | None = None
    ) -> float:
        """Returns a number > above and <= most."""
        value = self._take(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool) and above < value <= most:
            return float(value)  # NaN is in no range
        limit = f" and <= {most:g}" if most < LARGEST else ""
        raise self._refuse(key, value, f"a number > {above:g}{limit}")

    def choice(self, key: str, choices: Sequence[str], *, default: str | None = None) -> str:
        """Returns one of `choices`."""
        value = self._take(key, default)
        if not isinstance(value, str) or value not in choices:
            close = difflib.get_close_matches(str(value), choices, n=1)
            guess = f'; did you mean "{close[0]}"?' if close else ""
            allowed = ", ".join(f'"{choice}"' for choice in choices)
            raise self._refuse(key, value, allowed + guess)
        return value

    def end(self) -> None:
        """Raises when a key was given that no one read.

        Raises:
            ConfigError: Names the key and the nearest known one.
        """
        for key in self._given:
            if key not in self._known:
                close = difflib.get_close_matches(str(key), self._known, n=1)
                known = ", ".join(self._known) or "none"
                guess = f"did you mean {self._where}{close[0]}?" if close else f"known: {known}"
                raise ConfigError(f"{self._where}{key}: unknown key; {guess}")

    def _take(self, key: str, default: object) -> object:
        self._known.append(key)
        if key not in self._given and default is None:
            raise ConfigError(f"{self._where}{key}: missing")
        return self._given.get(key, default)

    def _refuse(self, key: str, value: object, allowed: str) -> ConfigError:
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        return ConfigError(f"{self._where}{key} = {shown[:80]}: allowed: {allowed}")
