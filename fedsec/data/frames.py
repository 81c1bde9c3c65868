"""Files with columns become one table: text from delimited files, typed columns from Parquet.

pyarrow parses delimited files, a column at a time and without guessing types: a column of text
stays text until `fedsec.data.columns` knows what is wanted of it. pandas parses what is separated
by runs of blanks, which pyarrow cannot.
"""

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, parquet

from fedsec.data.files import named_files
from fedsec.data.places import Places
from fedsec.data.problems import Problems, named_columns, reading
from fedsec.data.settings import Columns, Csv
from fedsec.errors import DataError

MAX_BAD_ROWS = 5  # of one file that are told
BLANKS = "whitespace"
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, eq=False)
class Frame:
    """Records in columns.

    Args:
        columns: By name, each (n,): text, numbers or booleans, with nulls.
        places: Where each record stood (n,).
    """

    columns: Mapping[str, "pa.ChunkedArray"]
    places: Places


def read_frame(settings: Columns, problems: Problems) -> Frame:
    """Returns the records of all files that `settings` name, one file after the other.

    Args:
        settings: A table of `csv` or `parquet`.
        problems: Learns of rows with too few or too many fields.

    Raises:
        DataError: A file is missing or cannot be read, or two files differ in their columns.
    """
    paths = named_files(settings)
    tables: list[pa.Table] = []
    parts: list[tuple[str, NDArray[np.int64]]] = []
    for path in paths:
        with reading(path.name):
            table, rows = _read(path, settings, problems)
        if tables:
            table = _same_columns(table, path, tables[0], paths[0])
        tables.append(table)
        parts.append((path.name, rows))
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"the files' columns are of different types: {_line(error)}") from error
    columns = {name: whole.column(name) for name in whole.column_names}
    return Frame(columns, Places.join(parts))


def _read(
    path: Path, settings: Columns, problems: Problems
) -> tuple["pa.Table", NDArray[np.int64]]:
    try:
        if not isinstance(settings, Csv):
            table = _named(parquet.read_table(path), settings.columns, path)
            return table, np.arange(1, len(table) + 1, dtype=np.int64)
        _check_text(path, settings.encoding)
        read = _read_blanks if settings.separator == BLANKS else _read_delimited
        table = read(path, settings, problems)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror or _line(error)}") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeError) as error:
        raise DataError(_why(path, settings, error)) from error
    first = settings.skip_rows + settings.header + 1
    rows = np.arange(first, first + len(table), dtype=np.int64)
    kept = ~_empty_lines(table)
    return table.filter(pa.array(kept)), rows[kept]


def _check_text(path: Path, encoding: str) -> None:
    """Returns if the whole file is text; UnicodeError if not."""
    decoder = codecs.getincrementaldecoder(encoding)()
    with pa.input_stream(path) as stream:  # unzips what pyarrow's reader unzips
        while chunk := stream.read(CHUNK):
            decoder.decode(chunk)
    decoder.decode(b"", final=True)


def _read_delimited(path: Path, settings: Csv, problems: Problems) -> "pa.Table":
    names = _names_of(path, settings)
    bad: list[csv.InvalidRow] = []

    def note(row: "csv.InvalidRow") -> str:
        if row.text.strip(f" \t\r{settings.separator}"):
            bad.append(row)
        return "skip"

    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(
            use_threads=False,  # else a bad row has no number
            skip_rows=settings.skip_rows + settings.header,
            column_names=names,
            encoding=settings.encoding,
        ),
        parse_options=_parse_options(settings, note),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    for row in bad[:MAX_BAD_ROWS]:
        problems.add(
            f"{path.name}, row {row.number}: {row.actual_columns} fields, expected "
            f"{row.expected_columns}"
        )
    if len(bad) > MAX_BAD_ROWS:
        problems.add(f"{path.name}: {len(bad) - MAX_BAD_ROWS} more rows of a wrong length")
    return table


def _parse_options(settings: Csv, note: object = None) -> "csv.ParseOptions":
    return csv.ParseOptions(
        delimiter=settings.separator,
        quote_char=settings.quote,
        newlines_in_values=True,
        ignore_empty_lines=False,  # else rows cannot be counted
        invalid_row_handler=note,
    )


def _names_of(path: Path, settings: Csv) -> list[str]:
    """Returns the names of the columns, from the settings or the header."""
    options = csv.ReadOptions(
        skip_rows=settings.skip_rows,
        autogenerate_column_names=not settings.header,
        encoding=settings.encoding,
    )
    parse = _parse_options(settings, lambda _row: "skip")
    with csv.open_csv(path, read_options=options, parse_options=parse) as stream:
        found = [name.strip() for name in stream.schema.names]
    return _checked_names(path, found, settings)


def _checked_names(path: Path, found: Sequence[str], settings: Columns) -> list[str]:
    if settings.columns is not None and len(settings.columns) != len(found):
        raise DataError(
            f"{path.name} has {len(found)} columns, the key `columns` names "
            f"{len(settings.columns)}{_separator_hint(found, settings)}"
        )
    names = list(found) if settings.columns is None else settings.columns
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f'{path.name} has two columns named "{twice[0]}"; name all in `columns`')
    return names


def _separator_hint(found: Sequence[str], settings: Columns) -> str:
    if isinstance(settings, Csv) and len(found) == 1:
        return f'; is separator = "{settings.separator}" the right one?'
    return ""


def _read_blanks(path: Path, settings: Csv, problems: Problems) -> "pa.Table":
    import pandas as pd  # noqa: PLC0415 - for such files only

    try:
        frame = pd.read_csv(
            path,
            sep=r"\s+",
            header=None,
            skiprows=settings.skip_rows,
            dtype=str,
            na_filter=False,
            keep_default_na=False,
            skip_blank_lines=False,
            quotechar=settings.quote,
            encoding=settings.encoding,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        told = _line(error).removeprefix("Error tokenizing data. C error: ")
        raise DataError(f"{path.name}: {told}") from error  # numbers of lines and fields
    cells = frame.fillna("")
    found = [str(name) for name in (cells.iloc[0] if settings.header else cells.columns)]
    names = _checked_names(path, found, settings)
    cells = cells.iloc[int(settings.header) :]
    short = np.flatnonzero((cells == "").any(axis=1) & ~(cells == "").all(axis=1))
    first = settings.skip_rows + settings.header + 1
    for row in short[:MAX_BAD_ROWS]:
        problems.add(f"{path.name}, row {first + row}: too few fields, expected {len(names)}")
    arrays = [pa.array(cells[place], pa.string()) for place in cells.columns]
    return pa.table(arrays, names=names)


def _named(table: "pa.Table", columns: list[str] | None, path: Path) -> "pa.Table":
    if columns is None:
        return table
    if len(columns) != table.num_columns:
        raise DataError(
            f"{path.name} has {table.num_columns} columns, the key `columns` names {len(columns)}"
        )
    return table.rename_columns(columns)


def _empty_lines(table: "pa.Table") -> NDArray[np.bool_]:
    """Returns which rows (n,) hold nothing at all, as a blank line at the end of a file does."""
    empty = np.ones(len(table), bool)
    for column in table.columns:
        if not empty.any():
            break
        bare = pc.equal(pc.utf8_trim_whitespace(column), "")
        empty &= pc.fill_null(bare, fill_value=True).to_numpy(zero_copy_only=False)
    return empty


def _same_columns(table: "pa.Table", path: Path, first: "pa.Table", first_path: Path) -> "pa.Table":
    ours, theirs = table.column_names, first.column_names
    if set(ours) != set(theirs):
        raise DataError(
            f"{path.name} has other columns than {first_path.name}: {named_columns(ours)}"
        )
    return table.select(theirs)


def _why(path: Path, settings: Columns, error: Exception) -> str:
    text = _line(error)
    if isinstance(error, UnicodeError) or "UTF8" in text:
        encoding = settings.encoding if isinstance(settings, Csv) else "utf-8"
        return (
            f'{path.name} is not text in encoding = "{encoding}"; spreadsheets often write '
            '"latin-1" or "utf-16"'
        )
    if "Empty CSV" in text:
        return f"{path.name} is empty"
    if isinstance(settings, Csv):  # pyarrow's own words may hold a piece of the text
        return f'{path.name} cannot be read as text with separator = "{settings.separator}"'
    return f"{path.name} cannot be read: {text}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
