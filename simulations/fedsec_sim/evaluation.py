"""How good a model is, on central test data or the nodes' own, and how well an attack does."""

import math
from collections.abc import Mapping

import numpy as np

from fedsec.flower.messages import Metrics
from fedsec.flower.replies import mean_metrics
from fedsec.flower.rounds import Evaluation
from fedsec.flower.strategy import ServerState, Weighting
from fedsec.tasks.arrays import set_arrays
from fedsec.tasks.task import Examples, evaluate
from fedsec_sim.attacks.poison import BadNets, success_rate
from fedsec_sim.engines.engine import Bench
from fedsec_sim.population import Parts


def evaluation(bench: Bench, weigh: Weighting, backdoor: BadNets | None) -> Evaluation:
    """Returns how a state is evaluated.

    Args:
        bench: Its task has central test data, or its population tests of its own.
        weigh: How much each node's tests count.
        backdoor: Of the adversaries; then ``attack_success`` is among the figures.
    """
    central, tests = bench.task.central_test(), bench.population.test

    def figures(state: ServerState) -> Mapping[str, float]:
        set_arrays(bench.model, state.arrays())
        if central is not None:
            return evaluate(bench.task, bench.model, central) | _success(bench, central, backdoor)
        if tests is None:
            return {}
        return _pooled(bench, tests, weigh) | _success(bench, tests.pool, backdoor)

    return figures


def _success(bench: Bench, data: Examples, backdoor: BadNets | None) -> dict[str, float]:
    if backdoor is None:
        return {}
    return {"attack_success": success_rate(bench.model, data, backdoor)}


def _pooled(bench: Bench, tests: Parts, weigh: Weighting) -> dict[str, float]:
    """Returns weighted means over the nodes' tests."""
    found = []
    for node, size in enumerate(tests.sizes.tolist()):
        values = evaluate(bench.task, bench.model, tests.examples(node))
        if all(map(math.isfinite, values.values())):
            found.append(Metrics(size, values))
    weights = weigh([each.examples for each in found]) if found else np.zeros(0)
    return mean_metrics(found, weights)
