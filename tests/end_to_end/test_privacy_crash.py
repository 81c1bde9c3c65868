"""A node dies while it sends what it has paid for: the same bytes go again, and nothing is paid."""

import signal

import numpy as np
import pytest

from fedsec.ledgerfile import LedgerFile
from fedsec.plan import FederationPlan
from fedsec_sim.loopback import LoopbackNode
from fedsec_sim.processes import wait_until
from tests.end_to_end import pulls
from tests.end_to_end.conftest import Pullers

pytestmark = pytest.mark.slow

SIZE = 200_000
PRIVACY = """
[privacy]
model = "local"
epsilon = 50.0
delta = 1e-5
noise_multiplier = 2.0
clip = 1.0
"""


def released(node: LoopbackNode, run_id: int) -> list[np.ndarray]:
    """What the node has stored of the run, each a release (d,)."""
    files = (node.directory / "runs" / str(run_id)).rglob("*.release")
    return [np.frombuffer(each.read_bytes()[-4 * SIZE :], np.float32) for each in files]


def charged(node: LoopbackNode, digest: str) -> list[int]:
    path = node.directory / "privacy.ledger"
    entries = LedgerFile(path).entries() if path.exists() else []
    return [charge.round for _, charge in entries if charge.plan == digest]


def test_a_node_killed_in_its_upload_sends_the_same_noise_again(pullers: Pullers) -> None:
    federation, gate, proxy = pullers.federation, pullers.gate, pullers.proxy
    nodes = [pullers.node(name) for name in pullers.partitions]
    pulls.hold(gate, [2])
    text = pulls.plan(rounds=1, quorum=3, size=SIZE, attempts=2) + PRIVACY
    digest = FederationPlan.parse(text).digest
    run_id = federation.submit(text)
    wait_until(lambda: pulls.is_held(gate, 2), 60, "node-2 to train")
    proxy.stall()  # nothing more comes through, whatever the node sends
    pulls.let_go(gate)
    wait_until(lambda: charged(nodes[2], digest) == [1], 30, "node-2 to pay")
    [stored] = released(nodes[2], run_id)
    victim = nodes[2].process
    victim.kill()
    assert victim.exit_code == -signal.SIGKILL
    proxy.heal()
    wait_until(lambda: federation.events(run_id, "note"), 30, "the attempt to be missed")
    [others] = zip(*(released(node, run_id) for node in nodes[:2]), strict=True)
    victim.start()
    federation.wait_for_run(run_id, 60)
    found = pulls.outcome(federation, run_id)
    [report] = found.rounds()
    assert report["attempt"] == 2
    mean = np.mean([*others, stored], axis=0, dtype=np.float64)
    np.testing.assert_allclose(found.model(1), mean, rtol=1e-4, atol=1e-4)
    assert [charged(node, digest) for node in nodes] == [[1], [1], [1]]
