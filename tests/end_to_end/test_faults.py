"""Real processes, real faults: the round goes on, and its result is the mean of whom it names."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from fedsec.wire.generated import admin_pb2 as pb
from fedsec_sim.processes import wait_until
from tests.end_to_end import pulls
from tests.end_to_end.conftest import Pullers

pytestmark = pytest.mark.slow

ALL = {"node-0", "node-1", "node-2"}


def rounds_done(pullers: Pullers, run_id: int) -> int:
    return pullers.federation.show_run(run_id).run.round


def test_a_node_killed_in_training_is_named_and_left_out(pullers: Pullers) -> None:
    federation, gate, victim = pullers.federation, pullers.gate, pullers.node("node-1").process
    pulls.hold(gate, [1])
    run_id = federation.submit(pulls.plan(rounds=3))
    wait_until(lambda: pulls.is_held(gate, 1), 60, "node-1 to train")
    [_, worker] = victim.family()
    victim.kill()
    assert victim.exit_code == -signal.SIGKILL
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), 5, "its worker to die with it")
    federation.wait_for_run(run_id, 30)
    found = pulls.outcome(federation, run_id)
    assert found.answered(1) == ALL - {"node-1"}
    assert "node-1 was lost" in found.reasons(1)["node-1"]
    assert found.answered(2) == found.answered(3) == ALL - {"node-1"}
    assert found.reasons(2) == {}  # who is not there is not asked
    found.check_means(pullers.partitions)


def test_a_worker_killed_in_training_is_started_again(pullers: Pullers) -> None:
    federation, gate, victim = pullers.federation, pullers.gate, pullers.node("node-1").process
    pulls.hold(gate, [1])
    run_id = federation.submit(pulls.plan(rounds=3))
    wait_until(lambda: pulls.is_held(gate, 1), 60, "node-1 to train")
    agent, worker = victim.family()
    pulls.let_go(gate)
    os.kill(worker, signal.SIGKILL)
    federation.wait_for_run(run_id, 60)
    assert victim.family()[0] == agent
    found = pulls.outcome(federation, run_id)
    assert found.answered(1) == ALL - {"node-1"}
    assert "worker" in found.reasons(1)["node-1"]
    assert "node-1" in found.answered(3)
    found.check_means(pullers.partitions)


def test_kills_at_any_moment(pullers: Pullers) -> None:
    """Kills at moments spread over loading, fetching, training, storing and idling."""
    federation, victim = pullers.federation, pullers.node("node-1").process
    run_id = federation.submit(pulls.plan(rounds=100_000, reconnect=0.1))
    moments = random.Random(1)
    for kill in range(3):
        wait_until(lambda: answers_lately(pullers, run_id), 60, "node-1 to take part")
        time.sleep(moments.uniform(0, 0.2))  # the moment is what the test is about
        victim.kill()
        assert victim.exit_code == -signal.SIGKILL
        count = rounds_done(pullers, run_id)
        wait_until(lambda n=count: rounds_done(pullers, run_id) > n + 2, 30, "rounds without it")
        victim.start()
        if kill == 1:  # once also while its worker loads
            federation.wait_for_nodes(["node-1"])
            victim.kill()
            victim.start()
    wait_until(lambda: answers_lately(pullers, run_id), 60, "node-1 to take part again")
    federation.admin.ask("StopRun", pb.StopRunRequest(run_id=run_id), pb.StopRunReply)
    found = pulls.outcome(federation, run_id)
    assert found.run.state == "stopped"
    absences = [
        number
        for number in range(1, len(found.rounds()) + 1)
        if "node-1" not in found.answered(number)
    ]
    assert len(absences) >= 3
    assert all({"node-0", "node-2"} <= found.answered(n) for n in range(1, len(found.rounds()) + 1))
    found.check_means(pullers.partitions)


def answers_lately(pullers: Pullers, run_id: int) -> bool:
    details = pullers.federation.events(run_id, "round")
    node_id = pullers.federation.node_ids()["node-1"]
    return bool(details) and node_id in list(details[-1]["answered"])


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_node_that_sleeps_for_a_minute(pullers: Pullers) -> None:
    federation, gate, sleeper = pullers.federation, pullers.gate, pullers.node("node-1").process
    pulls.hold(gate, [0, 1])
    run_id = federation.submit(pulls.plan(rounds=3))
    wait_until(lambda: pulls.is_held(gate, 1), 60, "node-1 to train")
    agent = sleeper.pid
    sleeper.stop()
    asleep = time.monotonic()
    wait_until(lambda: is_stopped(agent), 5, "node-1 to be stopped")
    (gate / "hold-0").unlink()
    wait_until(lambda: rounds_done(pullers, run_id) >= 1, 20, "the round to go on without it")
    noticed = time.monotonic() - asleep
    assert noticed < 15 + 1
    pulls.hold(gate, [0])
    wait_until(lambda: time.monotonic() - asleep > 60, 70, "a minute to pass")
    assert "node-1" not in federation.connected()
    sleeper.cont()
    federation.wait_for_nodes(["node-1"])
    assert sleeper.pid == agent
    pulls.let_go(gate)
    federation.wait_for_run(run_id, 30)
    found = pulls.outcome(federation, run_id)
    assert found.answered(1) == ALL - {"node-1"}
    assert "node-1 was lost" in found.reasons(1)["node-1"]
    found.check_means(pullers.partitions)
    again = federation.submit(pulls.plan(rounds=1))
    federation.wait_for_run(again, 60)
    assert pulls.outcome(federation, again).answered(1) == ALL


def test_nodes_return_by_themselves_to_a_coordinator_that_was_killed(pullers: Pullers) -> None:
    federation, gate = pullers.federation, pullers.gate
    pulls.hold(gate, [0])
    run_id = federation.submit(pulls.plan(rounds=2))
    wait_until(lambda: pulls.is_held(gate, 0), 60, "node-0 to train")
    agents = {name: pullers.node(name).process.pid for name in ALL}
    [_, run_process] = federation.coordinator.family()
    federation.coordinator.kill()
    wait_until(lambda: not Path(f"/proc/{run_process}").exists(), 10, "the run's process to end")
    pulls.let_go(gate)
    federation.start_coordinator()
    federation.wait_for_nodes(ALL)
    assert {name: pullers.node(name).process.pid for name in ALL} == agents
    lost = federation.show_run(run_id).run
    assert lost.state == "failed"
    assert "the coordinator ended while the run was active" in lost.reason
    again = federation.submit(pulls.plan(rounds=2, quorum=3))
    federation.wait_for_run(again, 60)
    found = pulls.outcome(federation, again)
    assert found.answered(1) == found.answered(2) == ALL
    found.check_means(pullers.partitions)


def test_an_upload_that_is_cut_goes_on_where_it_stopped(pullers: Pullers) -> None:
    federation, gate, proxy = pullers.federation, pullers.gate, pullers.proxy
    size = 3_000_000  # entries of four bytes
    pulls.hold(gate, [2])
    run_id = federation.submit(pulls.plan(rounds=2, quorum=3, size=size, reconnect=20))
    wait_until(lambda: pulls.is_held(gate, 2), 60, "node-2 to train")
    cuts, before = proxy.cuts, proxy.passed["up"]
    proxy.cut_after(2 * size)
    pulls.let_go(gate)
    federation.wait_for_run(run_id, 60)
    assert proxy.cuts == cuts + 1
    sent = proxy.passed["up"] - before
    assert 2 * 4 * size < sent < 2.6 * 4 * size  # two rounds; nothing but a chunk or two twice
    found = pulls.outcome(federation, run_id)
    assert found.answered(1) == found.answered(2) == ALL
    found.check_means(pullers.partitions)
