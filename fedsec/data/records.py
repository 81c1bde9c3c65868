"""What a connector returns: inputs and targets as numbers, row by row."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Records:
    """A data set of one site.

    Args:
        inputs: float32 (n, columns), or (n, channels, height, width) for images.
        targets: What is to be learned (n,): classes from 0, or numbers.
        names: Of the columns of `inputs`, in order; empty for images.
        test: Which records are for tests (n,), where the files say it; else None.
        read: Records in the files.
        missing: Missing values found, by column.
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.float64]
    names: tuple[str, ...] = ()
    test: NDArray[np.bool_] | None = None
    read: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: NDArray[np.int64]) -> "Records":
        """Returns the records at `rows` (k,)."""
        test = None if self.test is None else self.test[rows]
        return replace(self, inputs=self.inputs[rows], targets=self.targets[rows], test=test)

    @property
    def dropped(self) -> int:
        """Records that were left out, since a value is missing."""
        return self.read - len(self)
