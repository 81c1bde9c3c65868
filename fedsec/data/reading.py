"""From a table ``[data.NAME]`` to `Records`: the one entry to a site's files."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsec.data.biopsies import as_csv
from fedsec.data.columns import Column, Mask, Numbers, one_hot
from fedsec.data.frames import Frame, read_frame
from fedsec.data.images import read_folder, read_idx, read_npz
from fedsec.data.problems import Problems, is_header, named_columns
from fedsec.data.records import Records
from fedsec.data.settings import (
    BreastCancer,
    Columns,
    Connector,
    Csv,
    Folder,
    Idx,
    Npz,
    read_settings,
)
from fedsec.errors import ConfigError, DataError


def read(options: Mapping[str, Any]) -> tuple[Connector, Records]:
    """Returns the settings and the records of a data set.

    Args:
        options: The table ``[data.NAME]``.

    Raises:
        DataError: The table is wrong, or the files are not what it says; lists what was found.
    """
    try:
        settings = read_settings(options)
        return settings, _records(settings)
    except (DataError, MemoryError):
        raise
    except ConfigError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # what others say may hold a piece of the file
        raise DataError(f"the files cannot be read ({type(error).__name__})") from error


def _records(settings: Connector) -> Records:
    match settings:
        case Columns():
            return read_columns(settings)
        case BreastCancer():
            return read_columns(as_csv(settings))
        case Idx():
            return read_idx(settings)
        case Npz():
            return read_npz(settings)
        case Folder():
            return read_folder(settings)
    raise ConfigError(f'connector = "{settings.connector}": nothing reads it')


def read_columns(settings: Columns) -> Records:
    """Returns the records of files of columns.

    Raises:
        DataError: The files are not what the settings say.
    """
    problems = Problems()
    frame = read_frame(settings, problems)
    _check_names(settings, frame)
    problems.end()
    return _Reader(settings, frame, problems).records()


class _Reader:
    """Turns one frame into records; the steps share the frame and the list of problems."""

    def __init__(self, settings: Columns, frame: Frame, problems: Problems) -> None:
        self._settings = settings
        self._frame = frame
        self._problems = problems
        self._decimal = settings.decimal if isinstance(settings, Csv) else "."
        self._missing: dict[str, int] = {}
        self._dropped = np.zeros(len(frame.places), bool)

    def records(self) -> Records:
        targets = self._label()
        blocks: list[NDArray[np.float32]] = []
        names: list[str] = []
        for name in self._inputs():
            block, made = self._input(name)
            blocks.append(block)
            names += made
        test = self._test()
        if not names:
            self._problems.add("no column is left for inputs: keep, drop and label take all")
        kept = ~self._dropped
        if not kept.any():
            why = f"no record is left of {len(kept)}: each lacks a value" if len(kept) else ""
            self._problems.add(why or "the files hold no record")
        self._problems.end()
        return Records(
            inputs=np.concatenate(blocks, axis=1)[kept],
            targets=targets[kept],
            names=tuple(names),
            test=None if test is None else test[kept],
            read=len(kept),
            missing=self._missing,
        )

    def _inputs(self) -> Iterator[str]:
        settings = self._settings
        for name in self._frame.columns:
            wanted = settings.keep is None or name in settings.keep
            if wanted and name not in {*settings.drop, settings.label, settings.test.column}:
                yield name

    def _column(self, name: str) -> Column:
        settings = self._settings
        markers = [*settings.missing_markers, *settings.column_markers.get(name, ())]
        places = self._frame.places
        column = Column.of(name, self._frame.columns[name], markers, places, self._problems)
        if column.missing.any():
            self._missing[name] = int(column.missing.sum())
        return column

    def _input(self, name: str) -> tuple[NDArray[np.float32], list[str]]:
        """Returns what becomes of a column: its inputs (n, k), and their names."""
        column, fill = self._column(name), self._settings.fill.get(name)
        if fill is None:
            self._lacks(column, f"fill.{name} says what stands in for it")
        if name not in self._settings.categories:
            numbers = column.numbers(self._decimal)
            if fill is not None:
                numbers[column.missing] = float(fill)
            return self._single(column, numbers), [name]
        known, texts = self._settings.category(name)
        codes = column.codes(texts, f"categories.{name}")
        if fill is not None:
            codes[column.missing] = known.index(str(fill))
        return one_hot(codes, len(known)), [f"{name}={each}" for each in known]

    def _single(self, column: Column, numbers: Numbers) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            narrow = numbers.astype(np.float32)
        column.tell(np.isinf(narrow), "a number below 3e38 is expected")
        return narrow[:, None]

    def _label(self) -> Numbers:
        settings = self._settings
        column = self._column(settings.label)
        self._lacks(column, "a record without its label teaches nothing")
        if settings.label_map is not None:
            texts = list(settings.label_map)
            codes = column.codes(texts, "label_map")
            return np.array([*settings.label_map.values(), 0], np.float64)[codes]
        numbers = column.numbers(self._decimal, texts="label_map")
        if settings.label_threshold is not None:
            return (numbers > settings.label_threshold).astype(np.float64)
        return numbers

    def _lacks(self, column: Column, hint: str) -> None:
        if self._settings.missing == "drop":
            self._dropped |= column.missing
        else:
            advice = f'missing = "drop" leaves such records out; {hint}'
            column.tell(column.missing, f"missing; {advice}")

    def _test(self) -> Mask | None:
        wanted = self._settings.test
        if wanted.column is None or wanted.value is None:
            return None
        return self._column(wanted.column).equals(wanted.value)


def _check_names(settings: Columns, frame: Frame) -> None:
    """Returns if the files have every column that the settings name; DataError if not."""
    problems = Problems()
    there = list(frame.columns)
    named: list[tuple[str, Sequence[str]]] = [
        ("label", [settings.label]),
        ("keep", settings.keep or []),
        ("drop", settings.drop),
        ("fill", list(settings.fill)),
        ("categories", list(settings.categories)),
        ("column_markers", list(settings.column_markers)),
        ("test.column", [settings.test.column] if settings.test.column else []),
    ]
    for key, names in named:
        for name in names:
            if name not in there:
                near = difflib.get_close_matches(name, there, n=1)
                guess = f'did you mean "{near[0]}"?' if near else named_columns(there)
                hint = ""
                if len(there) == 1 and isinstance(settings, Csv):
                    hint = f'; is separator = "{settings.separator}" the right one?'
                problems.add(f'{key}: the files have no column "{name}"; {guess}{hint}')
                if hint or not (near or is_header(there)):
                    problems.end()  # one mistake behind all of them
    problems.end()
