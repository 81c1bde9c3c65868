"""Byzantine-robust aggregation: rules (n, d) -> (d,) and pre-aggregations (n, d) -> (m, d).

Rows are differences from the model that was sent. A rule is a frozen value of its parameters; to
call it is to aggregate:

>>> import numpy as np
>>> rows = np.array([[1.0, 1.0], [1.0, 1.1], [1.0, 0.9], [9e9, -9e9]])
>>> found = Pipeline(TrimmedMean(byzantine=1), before=(Nnm(byzantine=1),))(rows)
>>> found.vector
array([1., 1.])
>>> [suspect.row for suspect in found.suspects]
[3]

What comes back is in `fedsec.robust.aggregate`, what goes in beside the rows in
`fedsec.robust.options`. To name rules and to check them takes no numpy; to call them does.
"""

from fedsec.robust.coordinate_rules import Meamed, Mean, Median, TrimmedMean
from fedsec.robust.distance_rules import (
    Bulyan,
    Caf,
    Dnc,
    GeometricMedian,
    Krum,
    MinimumDiameter,
    Monna,
    MultiKrum,
)
from fedsec.robust.faults import TooManyFaults
from fedsec.robust.norm_rules import CenteredClipping, Cge, FlTrust
from fedsec.robust.pipeline import Pipeline
from fedsec.robust.premixing import Arc, Bucketing, Clip, Nnm, Premix
from fedsec.robust.rule import Adjacency, Rule
from fedsec.robust.table import PREMIXES, RULES

__all__ = [
    "PREMIXES",
    "RULES",
    "Adjacency",
    "Arc",
    "Bucketing",
    "Bulyan",
    "Caf",
    "CenteredClipping",
    "Cge",
    "Clip",
    "Dnc",
    "FlTrust",
    "GeometricMedian",
    "Krum",
    "Meamed",
    "Mean",
    "Median",
    "MinimumDiameter",
    "Monna",
    "MultiKrum",
    "Nnm",
    "Pipeline",
    "Premix",
    "Rule",
    "TooManyFaults",
    "TrimmedMean",
]
