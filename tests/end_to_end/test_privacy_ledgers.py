"""Real processes: what nodes release is in their own ledgers first, and their caps hold."""

from collections.abc import Iterator

import pytest

from fedsec.ledgerfile import LedgerFile
from fedsec.privacy.ledger import Charge
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_sim.loopback import LoopbackFederation, LoopbackNode
from fedsec_sim.processes import wait_until

pytestmark = pytest.mark.slow

NODES, ROUNDS, STEPS = 3, 2, 5
PLAN = """
schema = 1
name = "examples are hidden"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 2
local_steps = 5
batch_size = 32
[nodes]
min_available = 3
[privacy]
model = "example"
epsilon = 20.0
delta = 1e-5
noise_multiplier = 1.5
clip = 1.0
"""
CAPPED = """[policy]
privacy = "enforced"
budget = { enforced = { epsilon = 0.01, delta = 1e-5 } }
"""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackFederation]:
    """Three nodes without caps, and one whose cap no plan can keep."""
    directory = tmp_path_factory.mktemp("ledgers") / "federation"
    with LoopbackFederation(directory, forked=True) as made:

        def settings(index: int, count: int) -> str:
            text = made.default_settings(index, count)
            return text if index < NODES else text.replace("[policy]\n", CAPPED)

        made.add_nodes(NODES + 1, settings)
        yield made


def charges(node: LoopbackNode) -> list[Charge]:
    entries = LedgerFile(node.directory / "privacy.ledger").entries()
    return [charge for _, charge in entries]


def test_example_level_privacy_is_charged_on_each_node_and_figures_are_withheld(
    federation: LoopbackFederation,
) -> None:
    run_id = federation.submit(PLAN)
    federation.wait_for_run(run_id, seconds=180)
    open_nodes = list(federation.nodes.values())[:NODES]
    for node in open_nodes:
        made = charges(node)
        assert [charge.round for charge in made] == [1, 2]
        for charge in made:
            assert (charge.guarantee.unit, charge.guarantee.column) == ("example", "enforced")
            assert charge.price.count == STEPS
    assert len({charges(node)[0].price.event for node in open_nodes}) == NODES  # by its examples
    reports = federation.events(run_id, "round")
    assert len(reports) == ROUNDS
    for report in reports:
        assert not {"train_loss", "examples"} & set(report)
        assert "accuracy" in report  # on the test set that no node holds
    assert not federation.layout.ledger.exists()  # it is the nodes' own business


def test_a_cap_refuses_the_plan_before_its_node_trains_and_the_coordinator_is_told_no_figure(
    federation: LoopbackFederation,
) -> None:
    capped = federation.nodes[f"node-{NODES}"]
    # With one node more than may train, the run waits; it cannot be over before the refusal.
    waiting = PLAN.replace("min_available = 3", f"min_available = {NODES + 1}")
    run_id = federation.submit(waiting)

    def refusal() -> str | None:
        told = str(federation.show_run(run_id))
        return told if "privacy budget" in told else None

    told = wait_until(refusal, 60, "the refusal", [federation.coordinator])
    federation.admin.ask("StopRun", pb.StopRunRequest(run_id=run_id), pb.StopRunReply)
    federation.wait_for_run(run_id, seconds=60, state="stopped")
    assert charges(capped) == []
    log = capped.directory / "runs" / str(run_id) / "worker.log"
    assert "epsilon would be" in log.read_text("utf-8")
    assert "0.01" not in told


def test_the_coordinator_charges_its_noise_by_round_and_nodes_note_the_promise(
    federation: LoopbackFederation,
) -> None:
    node = federation.nodes["node-0"]
    before = len(charges(node))
    run_id = federation.submit(PLAN.replace('"example"', '"central"'))
    federation.wait_for_run(run_id, seconds=180)
    own = [charge for _, charge in LedgerFile(federation.layout.ledger).entries()]
    assert [charge.round for charge in own] == [1, 2]
    assert {charge.guarantee.column for charge in own} == {"enforced"}
    (promised,) = charges(node)[before:]
    assert promised.guarantee.column == "promised"
    assert promised.price.count == ROUNDS
    stored = list((federation.layout.run(run_id) / "releases").glob("*.release"))
    assert len(stored) == ROUNDS


def test_a_node_charges_its_own_noise_by_round_and_the_coordinator_notes_the_promise(
    federation: LoopbackFederation,
) -> None:
    node = federation.nodes["node-0"]
    before, noted = len(charges(node)), len(LedgerFile(federation.layout.ledger).entries())
    run_id = federation.submit(PLAN.replace('"example"', '"local"'))
    federation.wait_for_run(run_id, seconds=180)
    made = charges(node)[before:]
    assert [charge.round for charge in made] == [1, 2]
    assert {charge.guarantee.column for charge in made} == {"enforced"}
    (entry,) = LedgerFile(federation.layout.ledger).entries()[noted:]
    assert entry[1].guarantee.column == "promised"
    assert entry[1].price.count == ROUNDS
