"""Real processes: the noise on released models is what the plan states, for every model of privacy.

The nodes' own updates are a millionth of a step, so that what moves the model is noise: its
variance is measured over all entries of two rounds, to about 1 %.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from fedsec.commands.spending import noise_of, noise_of_figures
from fedsec.ledgerfile import LedgerFile
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.ledger import Charge
from fedsec_sim.loopback import LoopbackFederation
from tests.end_to_end import pulls

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIZE, N, ROUNDS, SECONDS = 20_000, 4, 2, 240.0
PLAN = f"""
schema = 1
name = "noise"
[task]
name = "pulling:TASK"
data = "pulls"
options = {{ size = {SIZE} }}
[training]
rounds = {ROUNDS}
local_steps = 1
batch_size = 2
learning_rate = 1e-6
[nodes]
min_available = {N}
wait_s = 60
[round]
evaluate_every = 0
[model]
save_every = 1
[privacy]
epsilon = 50.0
delta = 1e-5
clip = 0.5
"""


@dataclass(frozen=True)
class Case:
    """A model of privacy.

    Attributes:
        keys: Of [privacy].
        tables: Further ones of the plan.
        coordinator: How often its ledger is charged.
        node: How often each node's is.
        rounding: Share by which rounding may add to the variance.
        told: Whether figures are told, under noise.
    """

    keys: str
    tables: str = ""
    coordinator: int = 0
    node: int = 0
    rounding: float = 0.0
    told: bool = False


TRIMMED = '[robust]\nrule = "trimmed-mean"\nbyzantine = 1\n'
SUM = f'[secure_aggregation]\nmode = "semi-honest"\nmax_nodes = {N}\n'
LOSS = """
noise_multiplier = 0.3
metrics_noise = 0.4
metrics = { train-loss = [0.0, 2.0] }"""
FIGURES = """
noise_multiplier = 0.4
metrics_noise = 0.5
metrics = { train-loss = [0.0, 2.0], num-examples = [0, 4] }"""
TRUE = 2.0  # of both: what a node loses is beyond the range
CASES = {
    "central, trimmed mean": Case(
        'model = "central"' + FIGURES, TRIMMED, coordinator=ROUNDS, node=1, told=True
    ),
    "central, drawn in secret, adaptive": Case(
        'model = "central"\nnoise_multiplier = 2.0\nsampling = 0.5\n'
        "clip_quantile = 0.5\nclip_noise = 5.0\nclip_learning_rate = 1e-9",
        coordinator=ROUNDS,
        node=1,
    ),
    "local": Case('model = "local"' + LOSS, coordinator=1, node=ROUNDS, told=True),
    "distributed": Case(
        'model = "distributed"' + FIGURES, SUM, coordinator=1, node=ROUNDS, rounding=0.01, told=True
    ),
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackFederation]:
    directory = tmp_path_factory.mktemp("noise")
    gate = directory / "gate"
    gate.mkdir()
    with LoopbackFederation(
        directory / "federation", environment=pulls.ENVIRONMENT, forked=True
    ) as made:
        made.add_nodes(N, lambda index, _count: pulls.settings(index, gate))
        made.publish_roster()
        yield made


def charged(path: Path, plan: FederationPlan) -> list[Charge]:
    entries = LedgerFile(path).entries() if path.exists() else []
    return [charge for _, charge in entries if charge.plan == plan.digest]


@pytest.mark.parametrize("name", CASES)
def test_the_noise_is_what_the_plan_states(federation: LoopbackFederation, name: str) -> None:
    case = CASES[name]
    text = f"{PLAN}{case.keys}\n{case.tables}"
    plan = FederationPlan.parse(text)
    run_id = federation.submit(text)
    federation.wait_for_run(run_id, SECONDS)
    found = pulls.outcome(federation, run_id)
    models = [np.zeros(SIZE), *(found.model(number) for number in range(1, ROUNDS + 1))]
    noise = np.diff(np.array(models, np.float64), axis=0).ravel()
    stated = noise_of(plan, SIZE).std
    statistic = float((noise**2).sum())
    assert scipy.stats.chi2.sf(statistic / (1 + case.rounding) / stated**2, noise.size) > 1e-5
    assert scipy.stats.chi2.cdf(statistic / stated**2, noise.size) > 1e-5
    # noise for C/n where the sensitivity is larger, or 4 % less of it, would be noticed
    assert scipy.stats.chi2.cdf(0.92 * statistic / stated**2, noise.size) < 1e-3
    for report in found.rounds():
        assert "examples" not in report
        assert ("train_loss" in report) == case.told
        assert ("noised" in report) == case.told
    for figure, std in noise_of_figures(plan, SIZE).items():
        told = [report["noised"][figure] for report in found.rounds()]
        bound = 4.5 * std / ROUNDS**0.5
        assert 0 < abs(np.mean(told) - TRUE) < bound < 0.7 * TRUE  # which tells it from 0

    coordinator = charged(federation.layout.ledger, plan)
    assert len(coordinator) == case.coordinator
    for node in federation.nodes.values():
        mine = charged(node.directory / "privacy.ledger", plan)
        assert len(mine) == case.node
        column = "promised" if case.keys.startswith('model = "central"') else "enforced"
        assert {charge.guarantee.column for charge in mine} == {column}
        assert {charge.price.event for charge in mine} == {terms(plan).price.event}
