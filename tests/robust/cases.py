"""Every rule and pre-aggregation of the tables, made for 11 rows of which 2 may be hostile."""

from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from fedsec.robust import (
    Arc,
    Bucketing,
    Bulyan,
    Caf,
    CenteredClipping,
    Cge,
    Clip,
    Dnc,
    FlTrust,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    Median,
    MinimumDiameter,
    Monna,
    MultiKrum,
    Nnm,
    Premix,
    Rule,
    TrimmedMean,
)
from fedsec.robust.options import Options

N, F, D = 11, 2, 7

RULES: dict[str, Rule] = {
    "mean": Mean(F),
    "median": Median(),
    "trimmed-mean": TrimmedMean(F),
    "meamed": Meamed(F),
    "krum": Krum(F),
    "multi-krum": MultiKrum(F),
    "bulyan": Bulyan(F),
    "geometric-median": GeometricMedian(F),
    "minimum-diameter": MinimumDiameter(F),
    "monna": Monna(F, trusted=N - 1),
    "centered-clipping": CenteredClipping(F, radius=0.5, iterations=3),
    "cge": Cge(F),
    "caf": Caf(F),
    "dnc": Dnc(F),
    "fltrust": FlTrust(F),
}
PREMIXES: dict[str, Premix] = {
    "nnm": Nnm(F),
    "bucketing": Bucketing(size=2, byzantine=F),
    "clip": Clip(norm=2.0),
    "arc": Arc(F),
}


def rows_of(seed: int = 0, n: int = N, d: int = D, shift: float = 1.0) -> NDArray[np.float64]:
    """Returns honest rows around `shift` in each coordinate."""
    return shift + np.random.default_rng(seed).standard_normal((n, d))


def options_for(rule: Rule, d: int = D, **more: Unpack[Options]) -> Options:
    """Returns what `rule` must be given, and `more`."""
    if isinstance(rule, FlTrust):
        more["reference"] = np.ones(d)
    return more
