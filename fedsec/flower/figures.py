"""What a round's event says of the model's quality at the sites: each one's figures, and together.

This is the one place where figures of single sites enter a run's events. A plan that withholds
them has nodes that do not report them.
"""

from collections.abc import Mapping, Sequence

from fedsec.flower.messages import Metrics
from fedsec.flower.replies import Evaluations, mean_metrics
from fedsec.flower.reporting import Json
from fedsec.flower.strategy import Weighting

ALONE = "alone-"
"""Begins the name of a figure of the model that a site trained by itself."""
MAX_SITES = 200  # in an event; of more, the means are told


def figures_of(evaluated: Evaluations, weighting: Weighting) -> dict[str, Json]:
    """Returns the means over the sites, and ``"sites"`` and ``"pooled"`` beside them.

    A mean counts the sites as the plan weighs them. ``"pooled"`` counts every test record alike:
    exact for what is itself a mean over records (loss, accuracy, mean absolute error), while of an
    area under a curve or an F1 it is the mean of the sites' own, by records.
    """
    if not evaluated.nodes:
        return {}
    examples = [each.examples for each in evaluated.metrics]
    figures: dict[str, Json] = dict(mean_metrics(evaluated.metrics, weighting(examples)))
    figures["pooled"] = pooled(evaluated.metrics)
    if len(evaluated.nodes) <= MAX_SITES:
        figures["sites"] = {
            str(node): {"examples": each.examples, **each.values}
            for node, each in zip(evaluated.nodes, evaluated.metrics, strict=True)
        }
    return figures


def pooled(metrics: Sequence[Metrics]) -> Mapping[str, float]:
    """Returns each figure as its mean by records, over those sites that report it.

    >>> pooled([Metrics(30, {"accuracy": 1.0}), Metrics(10, {"accuracy": 0.6, "auc": 0.5})])
    {'accuracy': 0.9, 'auc': 0.5}
    """
    names = dict.fromkeys(name for each in metrics for name in each.values)
    return {name: _mean(name, metrics) for name in names}


def _mean(name: str, metrics: Sequence[Metrics]) -> float:
    told = [(each.values[name], each.examples) for each in metrics if name in each.values]
    total = sum(examples for _, examples in told)
    return sum(value * (examples / total) for value, examples in told)
