"""How far f hostile rows move a rule whose honest rows carry privacy noise.

    rows    n, of which n - f are honest: one vector, plus noise of standard deviation s per entry
    bias    L2 distance of the result from that vector, the noise of the result itself aside

Without noise, honest rows that agree leave hostile ones nothing to hide behind. With noise they
have its spread: the median moves to a quantile of the noise, in every one of d coordinates at once.
That is what privacy costs robustness, whatever the rule.

Sources: Allouah, Guerraoui, Gupta, Pinot, Stephan, "On the Privacy-Robustness-Utility Trilemma in
Distributed Learning", ICML 2023 (the coupling). Allouah, Farhadkhani, Guerraoui, Gupta, Pinot,
Stephan, "Fixing by Mixing", AISTATS 2023, table 1 and lemma 1 (kappa). The quantiles and the pull
on a geometric median are worked out here, for many coordinates and hostile rows that are far away.
"""

import math
from statistics import NormalDist

from fedsec.robust.coordinate_rules import Mean, Median, TrimmedMean
from fedsec.robust.distance_rules import GeometricMedian, Krum
from fedsec.robust.faults import count_byzantine
from fedsec.robust.norm_rules import CenteredClipping
from fedsec.robust.pipeline import Pipeline
from fedsec.robust.premixing import Bucketing, Nnm
from fedsec.robust.rule import Rule

_NORMAL = NormalDist()


def noise_bias(
    pipeline: Pipeline, rows: int, byzantine: int, std: float, size: int
) -> float | None:
    """Returns the most that hostile rows move the result; None where no bound is known.

    Args:
        pipeline: Rule and pre-aggregations.
        rows: n.
        byzantine: f, 2f < n.
        std: s, of the noise of a row per entry, in the unit of the updates.
        size: d, entries of a row.

    >>> from fedsec.robust import Median
    >>> round(noise_bias(Pipeline(Median()), 100, 2, 1.0, 10_000), 2)  # 100 times a quantile
    2.56
    """
    if byzantine == 0:
        return 0.0
    mixed = False
    for stage in pipeline.before:
        match stage:
            case Bucketing(size=many) if not mixed:
                rows, std = stage.rows(rows), std / math.sqrt(many)
            case Nnm() if not mixed:
                mixed = True
            case _:
                return None
    if 2 * byzantine >= rows:
        return math.inf
    if mixed:
        kappa = _kappa(pipeline.rule, rows, byzantine)
        if kappa is None:
            return None
        kappa = 8 * byzantine / (rows - byzantine) * (kappa + 1)
        return math.sqrt(kappa * size) * std
    return _bias(pipeline.rule, rows, byzantine, std * math.sqrt(size))


def _bias(rule: Rule, rows: int, byzantine: int, spread: float) -> float | None:
    """Returns the bias where honest rows lie `spread` from what they are about."""
    honest = rows - byzantine
    match rule:
        case Mean():
            return math.inf
        case Median():
            return spread * _NORMAL.inv_cdf(rows / 2 / honest)
        case TrimmedMean():
            trimmed = count_byzantine(rule.byzantine, rows) / honest
            return spread * _NORMAL.pdf(_NORMAL.inv_cdf(trimmed)) / (1 - trimmed)
        case GeometricMedian():
            pull = byzantine / honest  # of unit vectors, against those of the honest rows
            return spread * pull / math.sqrt(1 - pull**2)
        case CenteredClipping():
            return rule.iterations * rule.radius * byzantine / rows
    kappa = _kappa(rule, rows, byzantine)
    return None if kappa is None else math.sqrt(kappa) * spread


def _kappa(rule: Rule, rows: int, byzantine: int) -> float | None:
    """Returns kappa: bias squared over the mean squared distance of honest rows to their mean."""
    ratio = byzantine / (rows - 2 * byzantine)
    match rule:
        case TrimmedMean():
            return 6 * ratio * (1 + ratio)
        case Median() | GeometricMedian():
            return 4 * (1 + ratio) ** 2
        case Krum():
            return 6 * (1 + ratio)
    return None
