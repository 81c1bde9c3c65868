"""What a rule gives back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Doubles: TypeAlias = NDArray[np.float64]
Precision: TypeAlias = Literal["none", "float32", "float64"]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row that did not belong.

    Attributes:
        row: Its place among the rows that came in.
        reason: Why, in a few words.
    """

    row: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Diagnostics:
    """Numbers about each row, none of which is the row. NaN where a row was unusable.

    Attributes:
        norms: L2 norm of each row as it came in (n,).
        cosines: Of each row to the result (n,); 0 where either is zero.
        distances: Of each row to the result (n,), good to about 1e-3 of its norm.
        scores: What the rule itself held against each row (n,), high is bad; None if it has no
            such score, or if pre-aggregation made other rows of them.
        excluded: Why, for each unusable row.
        gram: In which precision the products among the rows were formed.
    """

    norms: Doubles
    cosines: Doubles
    distances: Doubles
    scores: Doubles | None
    excluded: Mapping[int, str]
    gram: Precision


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """One vector, and how each row came into it.

    Attributes:
        vector: The result (d,), in the dtype of the updates.
        weights: Factor of each row (n,), so that ``vector`` is ``weights @ updates`` (plus
            what is left to 1 of the reference of centred clipping or MoNNA); None where each
            coordinate has factors of its own: median, trimmed mean, Meamed and Bulyan, which
            picks rows first and says so in its scores.
        suspects: Unusable rows, and those more than twice as far from the result as the median row.
        diagnostics: Numbers about each row.
    """

    vector: NDArray[Any]
    weights: Doubles | None
    suspects: tuple[Suspect, ...]
    diagnostics: Diagnostics


@dataclass(frozen=True, slots=True, eq=False)
class Mixed:
    """What pre-aggregations make of the rows.

    Attributes:
        rows: The mixed rows (m, d), in the dtype of the updates.
        matrix: The factors (m, n): ``rows`` is ``matrix @ updates``, unusable rows left out.
        excluded: Why, for each unusable row.
    """

    rows: NDArray[Any]
    matrix: Doubles
    excluded: Mapping[int, str]
