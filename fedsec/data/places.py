"""Where in a site's files each record stood."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Places:
    """Where each record stood.

    Args:
        files: Names of the files.
        which: Index of its file, per record (n,).
        rows: Its row there (n,), counted as a spreadsheet does: the first line is 1.
    """

    files: tuple[str, ...]
    which: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, record: int) -> str:
        """Returns the place of a record in words."""
        return f"{self.files[self.which[record]]}, row {self.rows[record]}"

    def take(self, kept: NDArray[np.bool_]) -> "Places":
        """Returns the places of the `kept` (n,) records."""
        return Places(self.files, self.which[kept], self.rows[kept])

    @classmethod
    def join(cls, parts: Sequence[tuple[str, NDArray[np.int64]]]) -> "Places":
        """Returns the places of the records of several files, one after the other."""
        sizes = [len(rows) for _, rows in parts]
        which = np.repeat(np.arange(len(parts), dtype=np.int64), sizes)
        rows = np.concatenate([rows for _, rows in parts]) if parts else np.empty(0, np.int64)
        return cls(tuple(name for name, _ in parts), which, rows)
