"""A coordinator that lies about groups to a real node, program against program over mutual TLS.

It is fedsec's own but for its run process, `site/lying_run.py`. The lies without processes, and those
that the coordinator itself would notice: tests/flower/test_group_lies.py.
"""

from pathlib import Path

import numpy as np
import pytest

from fedsec_sim.loopback import LoopbackFederation, LoopbackNode
from tests.end_to_end import pulls
from tests.end_to_end.site.lying_run import LIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

N, SIZE, SECONDS = 10, 100, 240.0
ROUNDS = len(LIES) + 1  # the last one is honest
PLAN = f"""
schema = 1
name = "lies about groups"
visibility = "groups"
[task]
name = "pulling:TASK"
data = "pulls"
options = {{ size = {SIZE} }}
[training]
rounds = {ROUNDS}
local_steps = 1
batch_size = 2
learning_rate = 0.5
[nodes]
min_available = {N}
quorum = 5
wait_s = 60
[round]
evaluate_every = 0
[model]
save_every = 1
[secure_aggregation]
mode = "malicious"
clip = 100.0
group_size = 5
corrupt_per_group = 1
"""
IN_NO_GROUP = "this node is in no group"
REASONS = (
    ("bad-nonce: its nonce breaks its commitment", IN_NO_GROUP),
    ("equivocation: other entries than those that this node signed", IN_NO_GROUP),
    ("this node's group stands, for the whole run",),
    ("bad-signature: the key offer is not signed by its key",),
    ("not-mine: this node's own offer is missing",),
    ("4 nodes in a group, less than this node's policy.min_group = 5",),
    ("equivocation: the roster with nonces has other offers than the first",),
    ("equivocation: the roster with nonces has other offers than the first",),
    ("not-a-neighbour: shares of a node that is not in the neighbourhood",),
    ("bad-survivors: the survivors are wrong: one of them is no member",),
    ("bad-survivors: the survivors are wrong: one of them is no member",),
    ("bad-survivors: the survivors are wrong: one of them is no member",),
    ("too-few-signatures: 0 signatures of holders, the threshold is 4",),
)
"""What the victim says to its own operator: for each lie, in order."""
GIVEN = 9
"""Lies after so many reach a node that has sent its masked vector."""


def refusals(node: LoopbackNode) -> list[str]:
    """Returns what a node's operator reads."""
    (log,) = (node.directory / "runs").glob("*/worker.log")
    return [line for line in log.read_text("utf-8").splitlines() if "WARNING" in line]


def want_whole_groups(node: LoopbackNode) -> None:
    """Has the site of `node` want as many nodes in a group as the plan promises."""
    settings = node.directory / "node.toml"
    wanting = settings.read_text("utf-8").replace("[policy]\n", "[policy]\nmin_group = 5\n")
    settings.write_text(wanting, "utf-8")


def test_every_lie_is_refused_by_its_victim_and_costs_nobody_else(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    with LoopbackFederation(
        tmp_path / "federation",
        environment=pulls.ENVIRONMENT,
        forked=True,
        run_module="lying_run",
    ) as federation:
        nodes = [federation.join(f"node-{i}", pulls.settings(i, gate)) for i in range(N)]
        ids = federation.node_ids()
        victim = min(nodes, key=lambda node: ids[node.name])  # as `site/lying_run.py` has it
        want_whole_groups(victim)
        for node in nodes:
            node.process.start()
        federation.wait_for_nodes(node.name for node in nodes)
        federation.publish_roster()
        run_id = federation.submit(PLAN)
        federation.wait_for_run(run_id, SECONDS)
        found = pulls.outcome(federation, run_id)
    said = refusals(victim)
    wanted = [reason for reasons in REASONS for reason in reasons]
    assert len(said) == len(wanted)
    for line, reason in zip(said, wanted, strict=True):
        assert reason in line
    others = federation.nodes.keys() - {victim.name}
    assert not [line for name in others for line in refusals(federation.nodes[name])]

    before = np.zeros(SIZE, np.float32)
    for number in range(1, ROUNDS + 1):  # nothing of the victim is in a sum that it refused
        answered = set(others) if number <= GIVEN else {*others, victim.name}
        assert found.answered(number) == answered
        if number <= GIVEN:
            assert REASONS[number - 1][-1] in found.reasons(number)[victim.name]
        targets = (int(name.removeprefix("node-")) for name in answered)
        mean = np.mean([pulls.update(before, target) for target in targets], axis=0)
        after = found.model(number)
        np.testing.assert_allclose(after, before + mean, atol=1e-4)
        before = after
