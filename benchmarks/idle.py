"""Many connected nodes that do nothing: memory, processor time, and how soon a word reaches all.

A real coordinator with mutual TLS; each node keeps its control stream open, with the keepalive
that nodes and coordinator have. The peer is a bare grpc.aio server in a process of its own, with
the same TLS, channel options and one open stream per client: what the transport itself takes.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import common
from light_fleet import Crowd, crowds, idle_share, resident

from fedsec_sim.loopback import LoopbackFederation
from fedsec_sim.processes import wait_until

APP = Path(__file__).parent / "roundtrip_app"
PAD = "x" * 900
SETTLE_S = 4.0
PLAN = f"""
schema = 1
name = "broadcast"
# {PAD}
[app]
name = "roundtrip"
[nodes]
min_available = {{nodes}}
"""


def main() -> None:
    """Measures, prints and writes."""
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, help="default: 2000, quick: 200")
    parser.add_argument("--seconds", type=float, default=None, help="of idling (40, quick: 10)")
    chosen = parser.parse_args()
    nodes = chosen.nodes or (200 if chosen.quick else 2000)
    seconds = chosen.seconds or (10.0 if chosen.quick else 40.0)
    _allow_files()
    with tempfile.TemporaryDirectory(prefix="fedsec-bench-") as work:
        ours = measure_ours(Path(work), nodes, seconds)
        peer = measure_peer(Path(work), nodes, seconds)
    common.publish([*results(nodes, ours, peer)], chosen.json)


def results(
    nodes: int, ours: Mapping[str, float], peer: Mapping[str, float]
) -> Iterator[common.Result]:
    """Yields what was measured of either side, in pairs."""
    told: tuple[tuple[str, str, common.Metric, str], ...] = (
        ("memory", "memory of the coordinator for each", "memory", "B"),
        ("idle", "processor time per second", "cpu_time", "s"),
        ("broadcast", "1 kB to all of them", "time", "s"),
    )
    for key, words, metric, unit in told:
        yield common.compare(
            f"{nodes} idle nodes, {words}",
            metric,
            unit,
            ours=[max(ours[key], 1e-4)],
            peer=[max(peer[key], 1e-4)],
            peer_name=f"grpcio {version('grpcio')} alone",
        )


def measure_ours(work: Path, nodes: int, seconds: float) -> dict[str, float]:
    """Returns bytes for each node, share of a processor, seconds of a broadcast."""
    with LoopbackFederation(work / "fedsec", apps={"roundtrip": APP}) as federation:
        settings = federation.layout.settings
        text = settings.read_text("utf-8").replace("# max_nodes = 1000", f"max_nodes = {nodes}")
        federation.coordinator.end()
        federation.change_settings(text)
        federation.start_coordinator()
        pid = federation.coordinator.pid
        before = resident(pid)
        with crowds(federation, nodes) as there:
            memory = (resident(pid) - before) / nodes
            _settle(pid)
            idle = idle_share(pid, seconds)
            run_id = federation.submit(PLAN.format(nodes=nodes))
            wait_until(
                lambda: min(crowd.asked("offers")["first"] for crowd in there) > 0,
                60,
                "the offer to reach every node",
            )
            broadcast = _spread(there)
            assert federation.show_run(run_id).run.run_id == run_id
    return {"memory": memory, "idle": idle, "broadcast": broadcast}


def _spread(there: list[Crowd]) -> float:
    """Seconds from the first node that heard to the last."""
    seen = [crowd.asked("offers") for crowd in there]
    return max(each["last"] for each in seen) - min(each["first"] for each in seen)


def measure_peer(work: Path, nodes: int, seconds: float) -> dict[str, float]:
    """Returns the same of a server that does nothing but hold streams."""
    bare = Path(__file__).parent / "bare_grpc.py"
    directory = work / "bare"
    directory.mkdir()
    with subprocess.Popen(
        [sys.executable, str(bare), "serve", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            json.loads(server.stdout.readline())  # it listens
            before = resident(server.pid)
            with _bare_clients(
                [sys.executable, str(bare), "clients", str(directory)], nodes
            ) as bare_crowds:
                memory = (resident(server.pid) - before) / nodes
                _settle(server.pid)
                idle = idle_share(server.pid, seconds)
                server.stdin.write("say\n")
                server.stdin.flush()
                wait_until(
                    lambda: min(each.asked("offers")["first"] for each in bare_crowds) > 0,
                    60,
                    "the word to reach every client",
                )
                time.sleep(0.1)
                return {"memory": memory, "idle": idle, "broadcast": _spread(bare_crowds)}
        finally:
            server.kill()


@contextmanager
def _bare_clients(command: list[str], nodes: int) -> Iterator[list[Crowd]]:
    """Starts processes that hold `nodes` streams together; they end with the block."""
    pipe = subprocess.PIPE
    clients = [
        subprocess.Popen([*command, str(share)], stdin=pipe, stdout=pipe, text=True)
        for share in _shares(nodes)
    ]
    try:
        talking = [Crowd(client) for client in clients]
        for each in talking:
            each.heard()
        yield talking
    finally:
        for client in clients:
            client.kill()
            client.communicate()


def _shares(nodes: int) -> list[int]:
    whole, rest = divmod(nodes, 500)
    return [500] * whole + ([rest] if rest else [])


def _settle(pid: int) -> None:
    """Waits until what the connecting left to do, above all records in the log, is done."""
    before = float("inf")
    while (now := idle_share(pid, SETTLE_S)) < 0.8 * before:
        before = now


def _allow_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
