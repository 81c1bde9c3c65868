"""One large update on its way from a node to the coordinator: rate, and memory of each process.

Three measurements, mutual TLS on loopback:

    agent -> coordinator   content of a reply in 1 MiB chunks, from one process to another; beside
                           one unary gRPC call over the same TLS
    ndarray -> ndarray     the whole way of an unmodified app's reply, from the array in the worker
                           to the array in the ServerApp; beside Flower's SuperLink
    memory of a process    the most above what it had before, in payloads, from the moment at which
                           the app has its array until the Message is delivered. Private memory and
                           memory files that the process holds; a file that two processes hold
                           counts for both.

``--large`` sends 2 GB once over the whole way, to see that it goes. ``--steps`` measures what the
whole way is made of, step by step, and nothing else.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Self

import common
from bulk_steps import steps

from fedsec_sim.flower_runtime import flower_runtime
from fedsec_sim.loopback import LoopbackFederation

APP = Path(__file__).parent / "bulk_app"
MB = 1_000_000
PLAN = """
schema = 1
name = "bulk"
[app]
name = "bulk"
config = {{ size = {size}, rounds = {rounds}, report = "{report}" }}
[nodes]
min_available = 1
[round]
deadline_s = 600
"""
_STEP_S = 0.01
_KIB = 1024


def main() -> None:
    """Measures, prints and writes."""
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, help="size of the update (default: 400, quick: 50)")
    parser.add_argument("--runs", type=int, help="default: 5, quick: 3")
    parser.add_argument("--large", action="store_true", help="2 GB once over the whole way")
    parser.add_argument("--steps", action="store_true", help="what the whole way is made of")
    chosen = parser.parse_args()
    size = (chosen.mb or (50 if chosen.quick else 400)) * MB
    runs = chosen.runs or (3 if chosen.quick else 5)
    if chosen.steps:
        common.publish(steps(size, runs), chosen.json)
        return
    with tempfile.TemporaryDirectory(prefix="fedsec-bench-") as name:
        work = Path(name)
        if chosen.large:
            rates, memory = whole_way(work, 2000 * MB, 1)
            print(f"2 GB went through: {rates[0]:.0f} MB/s; memory in payloads: {memory}")
            return
        wire = measure_wire(size, runs)
        ours, memory = whole_way(work, size, runs)
        theirs = flowers_way(work, size, runs)
    case = f"{size // MB} MB"
    whole = common.compare(
        f"{case}, worker's ndarray -> ServerApp's ndarray",
        "rate",
        "MB/s",
        ours=ours,
        peer=theirs,
        peer_name=f"flwr {version('flwr')} SuperLink, TLS",
    )
    results = [*beside_unary(case, wire), whole, *within_limit(case, memory)]
    common.publish(results, chosen.json)


def beside_unary(case: str, wire: Mapping[str, list[float]]) -> Iterator[common.Result]:
    """Yields the rate of the wire alone, and what it costs, beside one call of gRPC."""
    told: tuple[tuple[str, str, common.Metric, str], ...] = (
        ("", "", "rate", "MB/s"),
        ("_cpu", ", both ends, for each GB", "cpu_time", "s"),
    )
    for key, words, metric, unit in told:
        yield common.compare(
            f"{case}, agent -> coordinator{words}",
            metric,
            unit,
            ours=wire[f"store{key}"],
            peer=wire[f"unary{key}"],
            peer_name=f"grpcio {version('grpcio')} unary call",
        )


def within_limit(case: str, memory: Mapping[str, float]) -> Iterator[common.Result]:
    """Yields the most memory of each process, in payloads."""
    for process, most in memory.items():
        yield common.compare(
            f"{case}, most memory of the {process}, in payloads (limit: 2.5)",
            "memory",
            "payloads",
            ours=[max(most, 0.01)],  # of a small payload too little to be seen
            peer=[2.5],
            peer_name="the limit",
        )


# --- the wire alone ------------------------------------------------------------------------------


def measure_wire(size: int, runs: int) -> dict[str, list[float]]:
    """Returns MB/s of each run, both ways, by the sender's clock."""
    script = str(Path(__file__).parent / "bulk_wire.py")
    with subprocess.Popen(
        [sys.executable, script, "serve", str(size)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            told = server.stdout.readline()
            done = subprocess.run(
                [sys.executable, script, "send", str(size), str(runs)],
                input=told,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rates: dict[str, list[float]] = json.loads(done.stdout)
            return rates
        finally:
            server.kill()


# --- the whole way -------------------------------------------------------------------------------


def whole_way(work: Path, size: int, runs: int) -> tuple[list[float], dict[str, float]]:
    """Returns MB/s of each run, and the most memory of each process in payloads."""
    report = work / "ours.json"
    with LoopbackFederation(work / "fedsec", apps={"bulk": APP}) as federation:
        federation.add_nodes(1, lambda *each: _alone(federation.default_settings(*each)))
        plan = PLAN.format(size=size // 4, rounds=runs, report=report)
        with Watch(federation) as watch:
            run_id = federation.submit(plan)
            federation.wait_for_run(run_id, seconds=240)
        rounds = json.loads(report.read_text("utf-8"))
    rates = [size / MB / (each["array"] - each["made"]) for each in rounds]
    return rates, watch.most(rounds, size)


def _alone(settings: str) -> str:
    """Returns a `node.toml` of a node that works without others, and takes large messages."""
    large = "[limits]\nmax_content_mb = 4096\ncontent_total_mb = 8192\n"
    settings = settings.replace("[limits]\n", large)
    return settings.replace("[policy]\n", "[policy]\nmin_nodes = 1\n")


def flowers_way(work: Path, size: int, runs: int) -> list[float]:
    """Returns MB/s of each run over Flower's own deployment."""
    report = work / "flower.json"
    with flower_runtime(work / "flower", 1) as runtime:
        config = {"size": size // 4, "rounds": runs, "report": str(report)}
        runtime.run(APP, config, report, seconds=600 + 60 * runs)
    rounds = json.loads(report.read_text("utf-8"))
    return [size / MB / (each["array"] - each["made"]) for each in rounds]


class Watch:
    """Looks at the memory of a federation's four processes, again and again (Linux)."""

    def __init__(self, federation: LoopbackFederation) -> None:
        self._federation = federation
        self._seen: dict[str, list[tuple[float, int]]] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def most(self, rounds: list[dict[str, float]], size: int) -> dict[str, float]:
        """Returns, by process, the median over the rounds of the most memory, in payloads."""
        found = {}
        for process, seen in self._seen.items():
            base = min(h for at, h in seen if rounds[0]["made"] <= at <= rounds[-1]["array"])
            per_round = [
                max((h for at, h in seen if each["made"] <= at <= each["delivered"]), default=base)
                for each in rounds
            ]
            found[process] = round((statistics.median(per_round) - base) / size, 2)
        return found

    def _look_on(self) -> None:
        [node] = self._federation.nodes.values()
        while not self._done.wait(_STEP_S):
            coordinator = self._federation.coordinator.family()
            agent = node.process.family()
            found = {"coordinator": coordinator[:1], "run process": coordinator[1:2]}
            found |= {"agent": agent[:1], "worker": agent[1:2]}
            for process, pids in found.items():
                for pid in pids:
                    self._note(process, pid)

    def _note(self, process: str, pid: int) -> None:
        try:
            held = private_bytes(pid) + memory_files(pid)
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            return
        self._seen.setdefault(process, []).append((time.time(), held))


def private_bytes(pid: int) -> int:
    """Returns the memory that is a process's own."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * _KIB
    return 0


def memory_files(pid: int) -> int:
    """Returns the bytes of the memory files that a process has open or mapped; each file once."""
    found = {}
    for line in Path(f"/proc/{pid}/maps").read_text("utf-8").splitlines():
        if "/memfd:" in line:
            span, _, _, _, inode, _ = line.split(maxsplit=5)
            start, end = (int(each, 16) for each in span.split("-"))
            found[int(inode)] = end - start
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "memfd:" in str(link.readlink()):
                status = link.stat()
                found[status.st_ino] = status.st_blocks * 512
        except (FileNotFoundError, OSError):  # closed meanwhile
            continue
    return sum(found.values())


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    main()
