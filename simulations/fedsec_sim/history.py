"""What a simulation leaves: one line of JSON about it, then one for each round.

    {"fedsec-simulation": 1, "name": "digits", "plan": "<digest>", "engine": "loop", ...}
    {"round": 1, "train_loss": 0.91, "accuracy": 0.74, "seconds": 0.05, "updates_per_s": 400.0}

A line is written when its round is done, so that whatever ends a simulation, what is done is kept.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from fedsec.errors import ConfigError
from fedsec.flower.reporting import Json
from fedsec.flower.strategy import ServerState

KEY, SCHEMA = "fedsec-simulation", 1
MAX_BYTES = 1 << 30
FORMATS = (".jsonl", ".csv", ".parquet")
Row: TypeAlias = Mapping[str, Json]


@dataclass(frozen=True, eq=False)
class History:
    """A simulation, round by round.

    Args:
        about: What was simulated and how: name, plan's digest, engine, nodes, seed, versions.
        rounds: What each round's report says, with ``updates_per_s``, in their order.
        state: After the last round; None where the history was read from a file.
        interrupted: Whether somebody ended it before its last round.
    """

    about: Row
    rounds: tuple[Row, ...]
    state: ServerState | None = field(default=None, repr=False)
    interrupted: bool = False

    def series(self, name: str) -> list[tuple[int, float]]:
        """Returns (round, figure) wherever a round's report has a finite figure `name`."""
        found = []
        for row in self.rounds:
            value = row.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                found.append((int(str(row["round"])), float(value)))
        return found

    def last(self, name: str) -> float:
        """Returns the last figure of `name`, e.g. ``"accuracy"``; NaN if there is none."""
        found = self.series(name)
        return found[-1][1] if found else math.nan

    @property
    def accuracy(self) -> float:
        """The last one that was measured."""
        return self.last("accuracy")

    @property
    def figures(self) -> list[str]:
        """The names of all figures that are numbers, in the order in which they first appear."""
        names = dict.fromkeys(name for row in self.rounds for name in row)
        return [name for name in names if name != "round" and self.series(name)]

    def frame(self) -> pd.DataFrame:
        """Returns a table with a line per round and a column per figure; lists are left out."""
        columns = ["round", *self.figures]
        rows = [{name: row.get(name) for name in columns} for row in self.rounds]
        return pd.DataFrame(rows, columns=columns)

    def save(self, path: Path) -> None:
        """Writes JSON lines, CSV or Parquet, as the name of the file ends.

        Raises:
            ConfigError: It ends otherwise, or cannot be written.
        """
        check_format(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".csv":
                self.frame().to_csv(path, index=False)
            elif path.suffix == ".parquet":
                self.frame().to_parquet(path, index=False)
            else:
                lines = [line({KEY: SCHEMA, **self.about}), *map(line, self.rounds)]
                path.write_text("".join(lines), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def check_format(path: Path) -> None:
    """Raises ConfigError unless the file's name ends in one of the formats."""
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: the name must end in {', '.join(FORMATS)}")


def read_history(path: Path) -> History:
    """Returns what a file of JSON lines holds. A last line that is not whole is left out.

    Raises:
        ConfigError: It cannot be read, or is something else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read: {reason}") from error
    about = _parsed(lines[0]) if lines else None
    if about is None or about.get(KEY) != SCHEMA:
        raise ConfigError(f"{path} is no simulation: its first line has no {KEY!r}: {SCHEMA}")
    rounds = []
    for number, text in enumerate(lines[1:], start=2):
        row = _parsed(text)
        if row is None or type(row.get("round")) is not int:
            if number == len(lines):
                break
            raise ConfigError(f"{path}, line {number}: not the report of a round")
        rounds.append(row)
    return History({name: value for name, value in about.items() if name != KEY}, tuple(rounds))


def line(row: Row) -> str:
    """Returns a row as one line of JSON."""
    return json.dumps(row, separators=(",", ":")) + "\n"


def _parsed(text: str) -> dict[str, Json] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class Log:
    """A new file of JSON lines that grows while a simulation runs; made when the first line comes.

    Args:
        path: Must not exist, and end in ``.jsonl``.

    Raises:
        ConfigError: It exists already.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix != FORMATS[0]:
            raise ConfigError(f"{path}: the name must end in {FORMATS[0]}")
        if path.exists():
            raise ConfigError(f"{path} exists; name another file")
        self._path = path

    def begin(self, about: Row) -> None:
        """Makes the file, and writes its first line.

        Raises:
            ConfigError: It cannot be made.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("x", encoding="utf-8") as file:
                file.write(line({KEY: SCHEMA, **about}))
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}") from error

    def write(self, row: Row) -> None:
        """Adds a line, at once."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line(row))


def common_figures(runs: Sequence[History]) -> list[str]:
    """Returns the figures that all `runs` have, in the order of the first."""
    shared = set.intersection(*(set(run.figures) for run in runs)) if runs else set()
    return [name for name in runs[0].figures if name in shared] if runs else []
