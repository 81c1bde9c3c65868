"""What is told about each row: numbers, never the row."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from fedsec.robust.aggregate import Aggregate, Diagnostics, Doubles, Suspect
from fedsec.robust.combine import Combined, exact_products
from fedsec.robust.geometry import Measured

FAR = 2.0
"""A row farther from the result than this many times the median distance is suspect."""

_RESOLVED = 1e-3  # of the norms: below it the distances are rounding


def report(
    found: Measured,
    excluded: Mapping[int, str],
    n: int,
    combined: Combined,
    *,
    weights: Doubles | None,
    scores: Doubles | None,
) -> Aggregate:
    """Returns the result with its diagnostics.

    Args:
        found: What was measured of the usable rows.
        excluded: Why, for each other row.
        n: How many rows came in.
        combined: The result.
        weights: Of the usable rows, or None.
        scores: Of the usable rows, or None.
    """
    dots, square = combined.dots, combined.square
    if dots is not None:
        dots, square = exact_products(found.rows, combined, dots, zero=found.squares == 0)
    norms, length = np.sqrt(found.squares), float(np.sqrt(square))
    cosines, distances = _lie(norms, length, dots)
    places = found.rows.used
    return Aggregate(
        combined.vector,
        None if weights is None else _placed(weights, places, n, 0.0),
        _suspects(found, excluded, None if combined.dots is None else distances, length),
        Diagnostics(
            norms=_placed(norms, places, n, np.nan, excluded),
            cosines=_placed(cosines, places, n, np.nan, excluded),
            distances=_placed(distances, places, n, np.nan, excluded),
            scores=None if scores is None else _placed(scores, places, n, np.nan, excluded),
            excluded=MappingProxyType(dict(sorted(excluded.items()))),
            gram=found.precision,
        ),
    )


def _lie(norms: Doubles, length: float, dots: Doubles | None) -> tuple[Doubles, Doubles]:
    """Returns each row's cosine to the result and distance from it; NaN if not measured."""
    if dots is None:
        return np.full(len(norms), np.nan), np.full(len(norms), np.nan)
    with np.errstate(all="ignore"):
        # Not a number: the result or the row is zero.
        cosines = np.nan_to_num(np.clip(dots / (norms * length), -1, 1))
    gaps = norms**2 - 2 * cosines * norms * length + length**2
    return cosines, np.sqrt(np.maximum(gaps, 0.0))


def _placed(
    values: Doubles,
    places: np.ndarray[tuple[int, ...], np.dtype[np.intp]],
    n: int,
    other: float,
    excluded: Mapping[int, str] = MappingProxyType({}),
) -> Doubles:
    """Returns `values` at their `places` among the caller's n rows, and `other` elsewhere."""
    result = np.full(n, other)
    result[places] = values
    result[list(excluded)] = other
    return result


def _suspects(
    found: Measured, excluded: Mapping[int, str], distances: Doubles | None, length: float
) -> tuple[Suspect, ...]:
    if distances is None:
        return tuple(Suspect(row, excluded[row]) for row in sorted(excluded))
    usual = float(np.median(distances))
    floor = _RESOLVED * (np.sqrt(found.squares) + length)
    far = {
        int(found.rows.used[row]): f"is {distances[row] / usual:.1f} times as far as the median row"
        if usual
        else "is far, all others are not"
        for row in np.flatnonzero((distances > FAR * usual) & (distances > floor))
    }
    named = {**far, **excluded}
    return tuple(Suspect(row, named[row]) for row in sorted(named))
