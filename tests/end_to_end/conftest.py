"""One federation of real processes for all tests of faults; each leaves it whole."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedsec_sim.faultproxy import FaultProxy
from fedsec_sim.loopback import LoopbackFederation, LoopbackNode
from tests.end_to_end import pulls


@dataclass(frozen=True)
class Pullers:
    """A federation whose nodes do the task `pulling`.

    Attributes:
        gate: Directory of the files that hold nodes.
        proxy: Between node-2 and the coordinator's port for nodes.
        partitions: By name of the node.
    """

    federation: LoopbackFederation
    gate: Path
    proxy: FaultProxy
    partitions: dict[str, int]

    def node(self, name: str) -> LoopbackNode:
        return self.federation.nodes[name]


@pytest.fixture(scope="session")
def session_pullers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pullers]:
    directory = tmp_path_factory.mktemp("pullers")
    gate = directory / "gate"
    gate.mkdir()
    with LoopbackFederation(
        directory / "federation", environment=pulls.ENVIRONMENT, forked_runs=True
    ) as federation:
        nodes = [
            federation.join(f"node-{index}", pulls.settings(index, gate)) for index in range(3)
        ]
        with FaultProxy(fleet_address(nodes[2])) as proxy:
            lead_through(nodes[2], proxy)
            for node in nodes:
                node.process.start()
            names = [node.name for node in nodes]
            federation.wait_for_nodes(names)
            yield Pullers(federation, gate, proxy, {f"node-{i}": i for i in range(3)})


@pytest.fixture
def pullers(session_pullers: Pullers) -> Iterator[Pullers]:
    """The shared federation, whole: every node connected, nobody held."""
    yield session_pullers
    pulls.let_go(session_pullers.gate)
    session_pullers.proxy.heal()
    federation = session_pullers.federation
    if not federation.coordinator.is_running:
        federation.start_coordinator()
    for name in session_pullers.partitions:
        process = federation.nodes[name].process
        if process.is_running:
            process.cont()
        else:
            process.start()
    federation.wait_for_nodes(session_pullers.partitions)


def fleet_address(node: LoopbackNode) -> str:
    return str(_record(node)["fleet_address"])


def lead_through(node: LoopbackNode, proxy: FaultProxy) -> None:
    """Makes a node connect to the proxy instead of the coordinator."""
    record = _record(node) | {"fleet_address": proxy.address}
    _record_file(node).write_text(json.dumps(record), "utf-8")


def _record(node: LoopbackNode) -> dict[str, object]:
    read: dict[str, object] = json.loads(_record_file(node).read_text("utf-8"))
    return read


def _record_file(node: LoopbackNode) -> Path:
    return node.directory / "identity" / "enrolment.json"
