"""What may be told of a data set to whoever may not see its records: shapes, names, counts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsec.data.records import Records
from fedsec.data.settings import Test
from fedsec.data.splitting import held_out

MAX_CLASSES = 100  # counted; more distinct labels are numbers


@dataclass(frozen=True, slots=True)
class Summary:
    """Shapes, names and counts.

    Args:
        read: Records in the files.
        used: Records that are left.
        shape: Of one record's inputs.
        inputs: Their names; none of images.
        missing: Missing values by column.
        constant: Inputs that are the same in every record, from which nothing can be learned.
        classes: Records of each class 0, 1, ...; empty where the label is a number.
        train: Records that the node trains on, of its part of them.
        test: Records that it keeps for tests.
    """

    read: int
    used: int
    shape: tuple[int, ...]
    inputs: tuple[str, ...]
    missing: Mapping[str, int]
    constant: tuple[str, ...]
    classes: tuple[int, ...]
    train: int
    test: int


def summarise(records: Records, mine: Records, test: Test, *, classes: bool | None) -> Summary:
    """Returns the summary of `records`.

    Args:
        records: All that the files hold.
        mine: The node's part of them.
        test: Which of those it keeps for tests.
        classes: Whether the label is a class; None: it is one where it looks like one.

    Raises:
        DataError: Nothing would be left to train on, or to test on.
    """
    counted = _classes(records)
    kept = held_out(mine, test, classes=bool(counted) if classes is None else classes)
    constant = [
        name
        for name, column in zip(records.names, records.inputs.T, strict=False)
        if np.ptp(column) == 0
    ]
    return Summary(
        read=records.read,
        used=len(records),
        shape=records.inputs.shape[1:],
        inputs=records.names,
        missing=records.missing,
        constant=tuple(constant),
        classes=counted,
        train=int((~kept).sum()),
        test=int(kept.sum()),
    )


def _classes(records: Records) -> tuple[int, ...]:
    """Returns the records of each class; none unless every label is one of few small integers."""
    labels = np.unique(records.targets)
    if not np.array_equal(labels, labels.astype(np.int64)):
        return ()
    if labels[0] < 0 or labels[-1] >= MAX_CLASSES or len(labels) < labels[-1] / 2:
        return ()
    return tuple(np.bincount(records.targets.astype(np.int64)).tolist())
