"""Thirty nodes that join, leave, crash, freeze and misbehave at random, under one long run.

    python -m tests.end_to_end.soaking --seconds 300 --seed 7

Three nodes are real programs with workers, the others speak the protocol from a thread of their
own, so that thirty fit on two cores. Which blow falls on whom is drawn from the seed; when it
falls depends on the machine. At the end the whole history is held to what must be true of it.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedsec.console import say
from fedsec.wire.content import Manifest
from fedsec.wire.generated import admin_pb2 as pb
from fedsec.wire.generated import fleet_pb2
from fedsec_server.layout import Listening
from fedsec_sim.loopback import LoopbackFederation
from fedsec_sim.processes import Process, wait_until
from tests.end_to_end import pulls
from tests.end_to_end.hostile import Answer, Asked, HostileNode, update_reply

NODES, REAL, AT_FIRST = 30, 3, 12
LEAST_UP = 8  # light nodes that are there at any time, so that quorum is a matter of the others
QUORUM = 6
DEADLINE_S = 3.0
ATTEMPTS = 100  # a busy machine misses the deadline with many nodes at once
MOST_LEFT = 6  # that leave for good


@dataclass
class Light:
    """A node without a program: `node` while it is connected."""

    name: str
    partition: int
    directory: Path
    loop: asyncio.AbstractEventLoop
    node: HostileNode | None = None

    def start(self) -> None:
        self.node = HostileNode(self.directory, self.honest, {}, self.loop).__enter__()

    def stop(self) -> None:
        if self.node is not None:
            self.node.__exit__(None, None, None)
            self.node = None
            gc.collect()  # a connection ends with the last that refers to it

    async def honest(self, node: HostileNode, asked: Asked) -> None:
        await node.send(update_reply(asked, pulls.update(asked.weights, self.partition)))

    async def poisonous(self, node: HostileNode, asked: Asked) -> None:
        await node.send(update_reply(asked, np.full(len(asked.weights), np.nan, np.float32)))

    async def twice(self, node: HostileNode, asked: Asked) -> None:
        await self.honest(node, asked)
        await self.honest(node, asked)

    async def silent(self, node: HostileNode, asked: Asked) -> None:
        """Works for ever."""

    async def cut_off(self, node: HostileNode, asked: Asked) -> None:
        """Begins its upload, and never goes on."""
        reply = update_reply(asked, pulls.update(asked.weights, self.partition))
        begin = fleet_pb2.StoreBegin(
            reply_to=asked.header.message_id, manifest=Manifest.of(reply.bulk).to_proto()
        )
        call = node._channel.stream_stream("/fedsec.v1.Fleet/Store")()
        await call.write(fleet_pb2.ContentFrame(begin=begin).SerializeToString())
        await call.read()
        node._call.cancel()


@dataclass
class Soak:
    """A federation under churn. `blows` counts what was done to it."""

    federation: LoopbackFederation
    gate: Path
    rng: random.Random
    loop: asyncio.AbstractEventLoop
    light: list[Light] = field(default_factory=list)
    partitions: dict[str, int] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    blows: Counter[str] = field(default_factory=Counter)
    cut_off: int = 0  # nodes that went, or were to go, perhaps in the middle of an upload
    seen: set[int] = field(default_factory=set)  # process ids
    frozen: list[tuple[float, Process]] = field(default_factory=list)

    def begin(self) -> None:
        federation = self.federation
        for _ in range(REAL):
            number = len(self.partitions)
            node = federation.join(f"node-{number}", pulls.settings(number, self.gate))
            self.partitions[node.name] = number
            node.process.start()
        federation.wait_for_nodes(list(federation.nodes))
        for _ in range(AT_FIRST):
            self.join()

    @property
    def up(self) -> list[Light]:
        return [each for each in self.light if each.node is not None]

    @property
    def down(self) -> list[Light]:
        return [each for each in self.light if each.node is None and each.name not in self.left]

    def programs(self) -> list[Process]:
        return [self.federation.nodes[f"node-{number}"].process for number in range(REAL)]

    # --- blows -------------------------------------------------------------------------------

    def join(self) -> None:
        if len(self.partitions) < NODES:
            number = len(self.partitions)
            name = f"light-{number}"
            directory = self.federation.join(name, pulls.settings(number, self.gate)).directory
            self.partitions[name] = number
            self.light.append(Light(name, number, directory, self.loop))
            self.light[-1].start()

    def crash(self) -> None:
        if len(self.up) > LEAST_UP:
            self.rng.choice(self.up).stop()
            self.cut_off += 1

    def come_back(self) -> None:
        if self.down:
            self.rng.choice(self.down).start()

    def leave(self) -> None:
        """Is revoked, while it works."""
        if len(self.up) > LEAST_UP and len(self.left) < MOST_LEFT:
            gone = self.rng.choice(self.up)
            request = pb.RevokeNodeRequest(name=gone.name, reason="the soak says so")
            self.federation.admin.ask("RevokeNode", request, pb.RevokeNodeReply)
            self.left.add(gone.name)
            gone.stop()
            self.cut_off += 1

    def misbehave(self) -> None:
        each = self.rng.choice(self.up)
        manners: list[Callable[[Light], Answer]] = [
            lambda who: who.poisonous,
            lambda who: who.twice,
            lambda who: who.silent,
            lambda who: who.cut_off,
            lambda who: who.honest,
            lambda who: who.honest,
        ]
        if each.node is not None:
            each.node.usual = self.rng.choice(manners)(each)
            self.cut_off += each.node.usual == each.cut_off

    def behave(self) -> None:
        for each in self.up:
            if each.node is not None:
                each.node.usual = each.honest

    def kill_a_program(self) -> None:
        process = self.rng.choice(self.programs())
        if process.is_running:
            self.note_families()
            process.kill()
            self.cut_off += 1

    def kill_a_worker(self) -> None:
        process = self.rng.choice(self.programs())
        for worker in process.family()[1:] if process.is_running else ():
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    def start_a_program(self) -> None:
        for process in self.programs():
            if not process.is_running:
                process.start()
                return

    def freeze(self) -> None:
        process = self.rng.choice(self.programs())
        if process.is_running and process not in [each for _, each in self.frozen]:
            process.stop()
            self.frozen.append((time.monotonic() + self.rng.uniform(0.5, 6.0), process))

    def thaw(self, *, all_of_them: bool = False) -> None:
        now = time.monotonic()
        for entry in list(self.frozen):
            if all_of_them or now >= entry[0]:
                self.frozen.remove(entry)
                if entry[1].is_running:
                    entry[1].cont()

    def churn(self, seconds: float, look: Callable[[], object]) -> None:
        blows = [self.join, self.crash, self.come_back, self.misbehave, self.behave]
        rare = [self.leave, self.kill_a_program, self.kill_a_worker, self.freeze]
        weights = [3, 3, 3, 4, 2, 1, 1, 1, 1, 2]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            [blow] = self.rng.choices([*blows, *rare, self.start_a_program], weights)
            blow()
            self.blows[blow.__name__] += 1
            self.thaw()
            self.federation.coordinator.check()
            if self.blows.total() % 20 == 0:
                look()
            time.sleep(self.rng.uniform(0.02, 0.3))
        while len(self.partitions) < NODES:  # whom the draw has left out
            self.join()
        self.thaw(all_of_them=True)

    def end(self) -> None:
        self.cut_off += len(self.up)
        for each in self.light:
            each.stop()
        self.thaw(all_of_them=True)

    def note_families(self) -> None:
        for process in (self.federation.coordinator, *self.programs()):
            if process.is_running:
                self.seen.update(process.family())


def soak(directory: Path, *, seconds: float, seed: int) -> str:
    """Does it; returns a line of what happened. AssertionError where something is not as it must."""
    gate = directory / "gate"
    gate.mkdir()
    federation = LoopbackFederation(directory / "federation", environment=pulls.ENVIRONMENT)
    with running_loop() as loop, federation:
        here = Soak(federation, gate, random.Random(seed), loop)
        alone = descriptors(federation.coordinator.pid)
        ports = [int(each.rpartition(":")[2]) for each in _addresses(federation)]
        try:
            here.begin()
            run_id = federation.submit(
                pulls.plan(
                    rounds=100_000,
                    nodes=QUORUM,
                    quorum=QUORUM,
                    deadline=DEADLINE_S,
                    attempts=ATTEMPTS,
                )
            )
            first = [federation.coordinator, *here.programs()]
            wait_until(
                lambda: federation.show_run(run_id).run.round, 120, "round 1", first, step=0.2
            )
            here.churn(seconds, lambda: running(federation, run_id))
            here.note_families()
            here.behave()
            done = running(federation, run_id).round
            wait_until(lambda: running(federation, run_id).round > done, 60, "one more round")
            federation.admin.ask("StopRun", pb.StopRunRequest(run_id=run_id), pb.StopRunReply)
        finally:
            here.end()
        rounds = check_history(here, run_id)
        for node in here.programs():
            node.end()
        check_coordinator(federation, alone, here.cut_off)
    check_machine(here, ports)
    done = ", ".join(f"{name} {count}" for name, count in sorted(here.blows.items()))
    return f"{rounds} rounds with {len(here.partitions)} nodes under: {done}"


def running(federation: LoopbackFederation, run_id: int) -> pb.Run:
    """Returns the run, which no blow may have ended."""
    run = federation.show_run(run_id).run
    assert run.state == "running", f"{run.state}: {run.reason}"
    return run


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Gives the loop of a thread, where all light nodes live."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="light-nodes")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def check_history(here: Soak, run_id: int) -> int:
    """Every round is the mean of whom it names, no round is below quorum; returns their number."""
    found = pulls.outcome(here.federation, run_id)
    rounds = found.rounds()
    assert rounds, "no round was completed"
    for number, detail in enumerate(rounds, start=1):
        answered = detail["answered"]
        assert len(answered) == len(set(answered)) >= QUORUM, (number, answered)
        out = {*detail["failed"], *detail["rejected"]}
        assert not out & {str(each) for each in answered}, (number, detail)
    assert any(detail["failed"] for detail in rounds), "no blow has hit"
    found.check_means(here.partitions)
    for name in here.left:
        events = here.federation.admin.ask(
            "ShowNode", pb.ShowNodeRequest(name=name), pb.ShowNodeReply
        ).event
        revoked = [event.at for event in events if event.kind == "node-revoked"]
        assert len(revoked) == 1
        late = [e.at for e in found.events if e.kind == "round" and e.at > revoked[0] + DEADLINE_S]
        after = [number for number, event in enumerate(rounds_at(found), 1) if event in late]
        assert all(name not in found.answered(number) for number in after)
    return len(rounds)


def rounds_at(found: pulls.Outcome) -> list[float]:
    return [event.at for event in found.events if event.kind == "round"]


def check_coordinator(federation: LoopbackFederation, alone: int, cut_off: int) -> None:
    """It still answers; nothing of the run is left in it."""
    pid = federation.coordinator.pid
    wait_until(lambda: not federation.connected(), 30, "the last session to end", step=0.1)
    wait_until(lambda: federation.coordinator.family() == [pid], 15, "its run process to be gone")
    wait_until(
        lambda: descriptors(pid) <= alone + cut_off + 8,  # libraries open some of their own once
        15,
        f"the descriptors to be closed: {alone} at first, {descriptors(pid)} now",
    )
    contents = [each for each in _links(pid) if "memfd:fedsec" in str(each.readlink())]
    assert len(contents) <= cut_off  # which are kept for a while, to be taken up again
    log = [json.loads(line) for line in federation.layout.log.read_text("utf-8").splitlines()]
    broken = [line for line in log if line["level"].lower() in {"error", "critical"}]
    assert not broken, broken[:3]


def check_machine(here: Soak, ports: list[int]) -> None:
    """Every process is gone and every port is free again."""
    wait_until(lambda: not any(map(_ours, here.seen)), 10, "every process to be gone")
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


def descriptors(pid: int) -> int:
    return len(_links(pid))


def _links(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


def _ours(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and b"fedsec" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _addresses(federation: LoopbackFederation) -> list[str]:
    return list(Listening.read(federation.layout).addresses.values())


def main() -> None:
    """Soaks for as long as one likes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    say(f"seed {seed}, {chosen.seconds:g} s")
    with tempfile.TemporaryDirectory(prefix="fedsec-soak-") as directory:
        say(soak(Path(directory), seconds=chosen.seconds, seed=seed))


if __name__ == "__main__":
    sys.exit(main())
