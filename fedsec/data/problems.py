"""What is wrong with a site's files: collected, so that one look shows all of it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fedsec.errors import DataError, FedsecError

MAX_LISTED = 20
NUMBER = re.compile(r"[+-]?[0-9.,]+([eE][+-]?[0-9]+)?$")


@contextmanager
def reading(file: str) -> Iterator[None]:
    """Has whatever a library raises over `file` end as a `DataError` without the library's words.

    They may hold a piece of the file, as Pillow's "broken PNG file (chunk ...)" does. Which types
    a decoder raises is not to be known beforehand, so all are taken; memory is not the file's.

    Raises:
        DataError: Names the file and the type of what was raised.
    """
    try:
        yield
    except (FedsecError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__})") from error


class Problems:
    """Sentences, in the order in which they were found.

    Each names file, row and column and what was expected; none holds a value.
    """

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Takes note of a problem."""
        self.sentences.append(sentence)

    def end(self) -> None:
        """Returns if there was none.

        Raises:
            DataError: Lists the first of them.
        """
        count = len(self.sentences)
        if count == 1:
            raise DataError(self.sentences[0])
        if count:
            rest = [f"and {count - MAX_LISTED} more"] if count > MAX_LISTED else []
            listed = [f"{count} problems:", *self.sentences[:MAX_LISTED], *rest]
            raise DataError("\n  ".join(listed))


def is_header(names: Sequence[str]) -> bool:
    """Says whether these can be names of columns; what reads as a number must be a value."""
    return not any(NUMBER.match(name) for name in names)


def named_columns(names: Sequence[str]) -> str:
    """Returns the names of columns, for a problem; not those that must be values.

    >>> named_columns(["age", "sex"])
    'the columns are "age", "sex"'
    >>> named_columns(["63", "1", "145"])
    'the first row holds numbers: has the file no header (header = false)?'
    """
    if not is_header(names):
        return "the first row holds numbers: has the file no header (header = false)?"
    more = len(names) - MAX_LISTED
    shown = ", ".join(f'"{name}"' for name in names[:MAX_LISTED])
    return f"the columns are {shown}" + (f" and {more} more" if more > 0 else "")
