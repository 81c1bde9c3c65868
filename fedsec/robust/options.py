"""What a call of a rule takes: updates, and options beside them."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from fedsec.robust.premixing import Premix

Row: TypeAlias = NDArray[Any]
Updates: TypeAlias = NDArray[Any] | Sequence[Row]
"""One matrix (n, d), which may be a memory map, or n rows (d,); float16, float32 or float64."""


class Options(TypedDict, total=False):
    """What a call may be given beside the updates.

    Attributes:
        before: Pre-aggregations, applied in this order.
        weights: Share of each row (n,), > 0; only mean, trimmed mean and geometric median.
        weight_cap: No row counts more than this many times 1/n; >= 1. Default 3.
        reference: A vector (d,) that the rule wants: where centred clipping starts; the update
            on root data that FLTrust, and MoNNA without a trusted row, go by.
        rng: Source of chance, where a rule or pre-aggregation draws.
        unusable: ``"drop"`` leaves unusable rows out; ``"zero"`` puts the zero row in their place
            and keeps n, as central privacy wants.
        threads: Over how many the column blocks are spread. The result does not depend on it.
        diagnose: False leaves out what costs a pass of its own: cosines and distances are NaN,
            norms too where the rule needs none, and only unusable rows are suspects.
    """

    before: tuple[Premix, ...]
    weights: NDArray[np.float64] | None
    weight_cap: float
    reference: Row | None
    rng: np.random.Generator | None
    unusable: Literal["drop", "zero"]
    threads: int
    diagnose: bool
