"""Real processes, real faults: the round goes on, and its result is the mean of whom it names."""

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedsec.wire.generated import admin_pb2 as pb
from fedsec_sim.loopback import LoopbackFederation
from fedsec_sim.processes import wait_until
from tests.end_to_end import pulls
from tests.end_to_end.conftest import Pullers

pytestmark = pytest.mark.slow

ALL = {"node-0", "node-1", "node-2"}


@dataclass(frozen=True)
class Sleeping:
    """A federation of two nodes, of which one sleeps since `since`, Unix seconds."""

    federation: LoopbackFederation
    run_id: int
    since: float


@pytest.fixture(scope="module", autouse=True)
def sleeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sleeping]:
    """Its minute of sleep passes while the other tests run."""
    directory = tmp_path_factory.mktemp("sleeping")
    gate = directory / "gate"
    gate.mkdir()
    with LoopbackFederation(
        directory / "federation", environment=pulls.ENVIRONMENT, forked_runs=True
    ) as federation:
        federation.add_nodes(2, lambda index, _: pulls.settings(index, gate))
        pulls.hold(gate, [0, 1])
        run_id = federation.submit(pulls.plan(rounds=2, nodes=2, quorum=1))
        wait_until(lambda: pulls.is_held(gate, 0) and pulls.is_held(gate, 1), 60, "both to train")
        process = federation.nodes["node-1"].process
        process.stop()
        since = time.time()
        wait_until(lambda: all(map(is_stopped, process.family())), 5, "node-1 to be stopped")
        pulls.let_go(gate)
        yield Sleeping(federation, run_id, since)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


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
    for kill in range(2):
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
    assert len(absences) >= 2
    assert all({"node-0", "node-2"} <= found.answered(n) for n in range(1, len(found.rounds()) + 1))
    found.check_means(pullers.partitions)


def answers_lately(pullers: Pullers, run_id: int) -> bool:
    details = pullers.federation.events(run_id, "round")
    node_id = pullers.federation.node_ids()["node-1"]
    return bool(details) and node_id in list(details[-1]["answered"])


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


def test_a_node_that_sleeps_for_a_minute(sleeping: Sleeping) -> None:
    federation, sleeper = sleeping.federation, sleeping.federation.nodes["node-1"].process
    federation.wait_for_run(sleeping.run_id, 30)
    found = pulls.outcome(federation, sleeping.run_id)
    assert found.answered(1) == found.answered(2) == {"node-0"}
    assert "node-1 was lost" in found.reasons(1)["node-1"]
    [lost] = [event for event in found.events if event.kind == "answer-failed"]
    assert lost.at - sleeping.since < 15 + 1  # noticed within 15 s, and reconnect_s later given up
    wait_until(lambda: time.time() - sleeping.since > 60, 70, "a minute to pass")
    assert "node-1" not in federation.connected()
    awake = federation.nodes["node-0"].process.log.read_text("utf-8")
    assert awake.count(" connected to ") == 1  # the one that was quiet meanwhile was not cut off
    agent = sleeper.pid
    sleeper.cont()
    federation.wait_for_nodes(["node-1"])
    assert sleeper.pid == agent
    again = federation.submit(pulls.plan(rounds=2, nodes=2))
    federation.wait_for_run(again, 60)
    after = pulls.outcome(federation, again)
    assert after.answered(1) == after.answered(2) == {"node-0", "node-1"}
    for each in (found, after):
        each.check_means({"node-0": 0, "node-1": 1})
