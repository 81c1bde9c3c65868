"""What may be told of a data set to whoever may not see its records: shapes, names, counts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsec.data.records import Records

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
    """

    read: int
    used: int
    shape: tuple[int, ...]
    inputs: tuple[str, ...]
    missing: Mapping[str, int]
    constant: tuple[str, ...]
    classes: tuple[int, ...]


def summarise(records: Records) -> Summary:
    """Returns the summary of `records`."""
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
        classes=_classes(records),
    )


def _classes(records: Records) -> tuple[int, ...]:
    """Returns the records of each class; none unless every label is one of few small integers."""
    labels = np.unique(records.targets)
    if not np.array_equal(labels, labels.astype(np.int64)):
        return ()
    if labels[0] < 0 or labels[-1] >= MAX_CLASSES or len(labels) < labels[-1] / 2:
        return ()
    return tuple(np.bincount(records.targets.astype(np.int64)).tolist())
