"""Columns become numbers: missing values, categories, the label. Each problem names its place.

A value is missing where the file holds nothing, a NaN, or one of the markers. A text is a number if
it reads as one, with the table's decimal sign; a category if it stands in the list, as text or as
the same number ("1.0" is the category "1").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedsec.data.places import Places
from fedsec.data.problems import Problems

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
COMMA = r"^[+-]?\d+,\d+$"
Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Column:
    """A column of a frame, with what is needed to speak of it.

    Args:
        name: Of the column.
        values: Text, numbers or booleans (n,), trimmed.
        missing: Where there is none (n,).
        places: Where each stood (n,).
        problems: Learns what is wrong.
    """

    name: str
    values: "pa.ChunkedArray"
    missing: Mask
    places: Places
    problems: Problems

    @classmethod
    def of(
        cls,
        name: str,
        values: "pa.ChunkedArray",
        markers: Sequence[str],
        places: Places,
        problems: Problems,
    ) -> "Column":
        """Returns the column, its missing values found."""
        if pa.types.is_dictionary(values.type):
            values = pc.cast(values, values.type.value_type)
        missing = pc.is_null(values, nan_is_null=True)
        if _is_text(values.type):
            values = pc.utf8_trim_whitespace(pc.cast(values, pa.string()))
            marked = pc.is_in(values, value_set=pa.array(markers, pa.string()))
            missing = pc.or_(missing, marked)
        return cls(name, values, _bools(missing), places, problems)

    def numbers(self, decimal: str = ".", texts: str = "") -> Numbers:
        """Returns the column as numbers (n,), NaN where missing or, with a problem, where wrong.

        Args:
            decimal: What separates the fraction.
            texts: The setting for a column of texts; ``categories.`` and its name, if not given.
        """
        wanted = (
            "a number is expected; what stands for a missing value goes into missing_markers, "
            f"texts into {texts or f'categories.{self.name}'}"
        )
        values = self.values
        if _is_text(values.type):
            values = pc.if_else(pa.array(self.missing), pa.scalar(None, pa.string()), values)
            if decimal != ".":
                values = pc.replace_substring(values, decimal, ".")
            wrong = ~_bools(pc.fill_null(pc.match_substring_regex(values, NUMBER), True))
            commas = wrong & _bools(pc.fill_null(pc.match_substring_regex(values, COMMA), False))
            self.tell(commas, 'a number is expected; if 1,5 is one here, say decimal = ","')
            self.tell(wrong & ~commas, wanted)
            values = pc.if_else(pa.array(wrong), pa.scalar(None, pa.string()), values)
        elif not _is_number(values.type):
            self.problems.add(f'column "{self.name}" holds {values.type}; numbers are expected')
            return np.full(len(self.places), np.nan)
        found: Numbers = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False).copy()
        infinite = np.isinf(found)
        self.tell(infinite, "a finite number is expected")
        found[infinite | self.missing] = np.nan
        return found

    def codes(self, texts: Sequence[str], key: str) -> Codes:
        """Returns the index (n,) in `texts` of each value; -1 where missing or wrong.

        Args:
            texts: What may stand there.
            key: The setting that lists them, for the problem.
        """
        values = pc.cast(self.values, pa.string())
        found = pc.index_in(values, value_set=pa.array(texts, pa.string()))
        filled = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
        codes: Codes = filled.astype(np.int64)
        rest = (codes < 0) & ~self.missing
        if rest.any():
            codes[rest] = self._same_numbers(values.filter(pa.array(rest)), texts)
        codes[self.missing] = -1
        self.tell((codes < 0) & ~self.missing, f"none of the texts in {key}")
        return codes

    def equals(self, text: str) -> Mask:
        """Returns where (n,) this very text stands."""
        same = pc.equal(pc.cast(self.values, pa.string()), text)
        return _bools(pc.fill_null(same, False))

    def _same_numbers(self, values: "pa.ChunkedArray", texts: Sequence[str]) -> Codes:
        """Returns indices of texts that are the same number in other writing; else -1."""
        numbers = [_number(text) for text in texts]
        known = {x: index for index, x in enumerate(numbers) if not math.isnan(x)}
        return np.array([known.get(_number(text), -1) for text in values.to_pylist()], np.int64)

    def tell(self, wrong: Mask, what: str) -> None:
        """Adds a problem for the first of the `wrong` (n,) values; says how many more there are."""
        rows = np.flatnonzero(wrong)
        if len(rows):
            more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
            place = self.places.of(int(rows[0]))
            self.problems.add(f'{place}, column "{self.name}": {what}{more}')


def one_hot(codes: Codes, count: int) -> NDArray[np.float32]:
    """Returns a column per category (n, count), 1 where the code is its number.

    >>> one_hot(np.array([1, 0, -1]), 2)
    array([[0., 1.],
           [1., 0.],
           [0., 0.]], dtype=float32)
    """
    columns: NDArray[np.float32] = (codes[:, None] == np.arange(count)).astype(np.float32)
    return columns


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_text(kind: "pa.DataType") -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: "pa.DataType") -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    )


def _bools(values: "pa.ChunkedArray") -> Mask:
    made: Mask = values.to_numpy(zero_copy_only=False).astype(bool)
    return made
