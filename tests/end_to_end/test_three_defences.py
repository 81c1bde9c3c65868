"""Real processes: groups, a robust rule and privacy in the same round.

Twelve nodes in three groups of four, a coordinator that is not trusted; one of the nodes pulls far the
other way. All other cells: tests/flower/test_combinations.py.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedsec.commands.coupling import coupling_of
from fedsec.flower.private import central_mechanism
from fedsec.ledgerfile import LedgerFile
from fedsec.plan import FederationPlan
from fedsec_sim.loopback import LoopbackFederation
from tests.end_to_end import pulls

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIZE, N, SECONDS = 2000, 12, 240.0
HOSTILE = 11
PLAN = f"""
schema = 1
name = "three defences"
visibility = "groups"
[task]
name = "pulling:TASK"
data = "pulls"
options = {{ size = {SIZE} }}
[training]
rounds = 1
local_steps = 1
batch_size = 2
learning_rate = 0.5
[nodes]
min_available = {N}
wait_s = 60
[round]
evaluate_every = 0
[model]
save_every = 1
[secure_aggregation]
mode = "malicious"
group_size = 4
"""
PRIVACY = (
    '[privacy]\nepsilon = 50.0\ndelta = 1e-5\nnoise_multiplier = 1.0\nclip = 1.0\nmodel = "{}"\n'
)
MEDIAN = '[robust]\nrule = "median"\nbyzantine = 1\n'
TRIMMED = '[robust]\nrule = "trimmed-mean"\nbyzantine = 1\n'


CELLS = {
    "central": PRIVACY.format("central") + TRIMMED,
    "distributed": PRIVACY.format("distributed") + MEDIAN,
}
MIDDLE_OF_THREE = 1 - math.sqrt(3) / math.pi
"""Variance of the median of three normal numbers over theirs."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackFederation]:
    directory = tmp_path_factory.mktemp("three")
    gate = directory / "gate"
    gate.mkdir()

    def settings(index: int, _count: int) -> str:
        asks = 'allowed_tasks = ["pulling:TASK"]\nvisibility = "groups"\nmin_group = 4\n'
        asks += 'secure_aggregation = "malicious"\n'
        given = pulls.settings(-61 if index == HOSTILE else index, gate)
        return given.replace('allowed_tasks = ["pulling:TASK"]\n', asks)

    with LoopbackFederation(
        directory / "federation", environment=pulls.ENVIRONMENT, forked=True
    ) as made:
        made.add_nodes(N, settings)
        made.publish_roster()
        yield made


def charged(path: Path, plan: FederationPlan) -> int:
    entries = LedgerFile(path).entries() if path.exists() else []
    return sum(charge.plan == plan.digest for _, charge in entries)


def stated(plan: FederationPlan) -> float:
    """Returns the standard deviation that the plan's noise has on the model, per entry."""
    coupling = coupling_of(plan, SIZE)
    if coupling is None:
        return central_mechanism(plan, 1.0).std(SIZE)
    return coupling.std * math.sqrt(MIDDLE_OF_THREE)


@pytest.mark.parametrize("name", CELLS)
def test_a_hostile_node_spoils_its_group_and_not_the_model(
    federation: LoopbackFederation, name: str
) -> None:
    text = PLAN + CELLS[name]
    plan = FederationPlan.parse(text)
    run_id = federation.submit(text)
    federation.wait_for_run(run_id, SECONDS)
    found = pulls.outcome(federation, run_id)
    assert found.answered(1) == set(federation.nodes)

    # Clipped to norm 1 all honest updates are one vector; two groups of three say nothing else.
    honest = np.linspace(0, 1, SIZE)
    honest /= np.linalg.norm(honest)
    off, std = found.model(1) - honest, stated(plan)
    assert np.std(off) == pytest.approx(std, rel=0.08)  # five times its own deviation
    assert abs(off @ honest) < 5 * std

    told = [each.detail["nodes"] for each in found.events if each.kind == "nodes"]
    sizes = [sorted(len(row["nodes"]) for row in rows) for rows in told]
    assert sizes == ([] if name == "central" else [[4, 4, 4]])  # then they are the coordinator's
    assert charged(federation.layout.ledger, plan) == 1
    for node in federation.nodes.values():
        assert charged(node.directory / "privacy.ledger", plan) == 1
