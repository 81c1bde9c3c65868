"""Which records are kept for tests: the same ones for the same records and seed."""

import numpy as np
from numpy.typing import NDArray

from fedsec.data.records import Records
from fedsec.data.settings import Test
from fedsec.errors import DataError

Mask = NDArray[np.bool_]


def held_out(records: Records, settings: Test, *, classes: bool) -> Mask:
    """Returns which records (n,) are for tests.

    Args:
        records: Of one site.
        settings: The table ``test``.
        classes: Whether the target is a class; then each gives its share, if `stratified`.

    Raises:
        DataError: Nothing would be left to train on, or to test on.
    """
    if records.test is not None:
        mask = records.test
    elif classes and settings.stratified:
        mask = np.zeros(len(records), bool)
        for label in np.unique(records.targets):
            rows = np.flatnonzero(records.targets == label)
            mask[rows] = _drawn(len(rows), settings, int(label))
    else:
        mask = _drawn(len(records), settings, 0)
    if mask.all() or not mask.any():
        how = (
            f'test.value = "{settings.value}" in column "{settings.column}"'
            if settings.column
            else f"test.fraction = {_fraction(settings):g}"
        )
        what = "train" if mask.all() else "test"
        raise DataError(f"of {len(mask)} records none is left to {what} on, by {how}")
    return mask


def _fraction(settings: Test) -> float:
    return 0.2 if settings.fraction is None else settings.fraction


def _drawn(count: int, settings: Test, stream: int) -> Mask:
    """Returns a mask (count,) with `fraction` of `count` set, rounded; at least 1 of 2."""
    wanted = round(_fraction(settings) * count)
    if count > 1:
        wanted = min(max(wanted, 1), count - 1)
    mask = np.zeros(count, bool)
    order = np.random.default_rng((settings.seed, stream)).permutation(count)
    mask[order[:wanted]] = True
    return mask
