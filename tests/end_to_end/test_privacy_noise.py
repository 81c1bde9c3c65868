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
from fedsec.privacy.events import Gaussian, Skellam
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
MISSING = [f"missing-{number}" for number in range(6)]  # figures that no node of this task has
FIGURES = f"""
noise_multiplier = 0.4
metrics_noise = 0.5
metrics = {{ train-loss = [0.0, 2.0], num-examples = [0, 2], {
    ", ".join(f"{name} = [0.0, 2.0]" for name in MISSING)
} }}"""
TRUE = {"train-loss": 2.0, "num-examples": 2.0} | dict.fromkeys(MISSING, 1.0)
"""A node has as much as the range of the first two allows, or more; the others count as middles."""
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
    "example": Case('model = "example"\nnoise_multiplier = 1.0', node=ROUNDS, rounding=0.01),
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


def stated_of(plan: FederationPlan) -> tuple[float, Gaussian | Skellam]:
    """What the plan states: standard deviation of an entry of a released model, and event."""
    privacy, training = plan.privacy, plan.learning[1]
    assert privacy is not None
    if privacy.model != "example":
        return noise_of(plan, SIZE).std, terms(plan).price.event
    of_a_sum = privacy.noise_multiplier * privacy.clip  # both examples of a node are in each batch
    std = training.learning_rate * of_a_sum / training.batch_size / N**0.5
    return std, Gaussian(privacy.noise_multiplier)


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
    stated, event = stated_of(plan)
    statistic = float((noise**2).sum())
    assert scipy.stats.chi2.sf(statistic / (1 + case.rounding) / stated**2, noise.size) > 1e-5
    assert scipy.stats.chi2.cdf(statistic / stated**2, noise.size) > 1e-5
    # noise for C/n where the sensitivity is larger, or 4 % less of it, would be noticed
    assert scipy.stats.chi2.cdf(0.92 * statistic / stated**2, noise.size) < 1e-3
    for report in found.rounds():
        assert "examples" not in report
        assert ("train_loss" in report) == case.told
        assert ("noised" in report) == case.told
    if case.told:
        check_figures(plan, [report["noised"] for report in found.rounds()])

    coordinator = charged(federation.layout.ledger, plan)
    assert len(coordinator) == case.coordinator
    for node in federation.nodes.values():
        mine = charged(node.directory / "privacy.ledger", plan)
        assert len(mine) == case.node
        column = "promised" if case.keys.startswith('model = "central"') else "enforced"
        assert {charge.guarantee.column for charge in mine} == {column}
        assert {charge.price.event for charge in mine} == {event}


def check_figures(plan: FederationPlan, told: list[dict[str, float]]) -> None:
    """Asserts that means are true, and under no less noise than is stated.

    The second fails honest noise once in a million; a quarter of it, of eight figures, it notices.
    """
    stds = noise_of_figures(plan, SIZE)
    off = {name: [each[name] - TRUE[name] for each in told] for name in stds}
    for name, std in stds.items():
        bound = 4.5 * std / ROUNDS**0.5
        assert abs(np.mean(off[name])) < bound < 1.4  # which tells 2 from 0
    scaled = np.array([np.array(off[name]) / std for name, std in stds.items()])
    assert scipy.stats.chi2.cdf((scaled**2).sum(), scaled.size) > 1e-6
