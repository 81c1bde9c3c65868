"""Disks that are full or read-only, under real programs: said in a sentence, and gone when mended."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedsec.errors import StateError
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_client.enrolment import Enrolment
from fedsec_sim.loopback import LoopbackFederation
from fedsec_sim.processes import wait_until
from tests.end_to_end import pulls
from tests.server.commandrig import MAIN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SMALL_MB = 4


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Gives a file system of its own at `path`; needs the right to mount one."""
    path.mkdir(mode=0o700, parents=True)
    options = f"size={SMALL_MB}m,mode=700"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no right to mount a file system: {made.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Fills it to the last byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return filler


def set_read_only(disk: Path, *, read_only: bool) -> None:
    subprocess.run(["mount", "-o", f"remount,{'ro' if read_only else 'rw'}", str(disk)], check=True)


def fedsec(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_the_coordinators_disk_runs_full_under_a_run_and_is_emptied(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    federation = LoopbackFederation(tmp_path / "federation", environment=pulls.ENVIRONMENT)
    (tmp_path / "federation").mkdir(mode=0o700)
    with small_disk(federation.layout.directory) as disk, federation:
        federation.add_nodes(2, lambda index, _: pulls.settings(index, gate))
        pulls.hold(gate, [1])
        run_id = federation.submit(pulls.plan(rounds=3, nodes=2, quorum=2, size=100_000))
        wait_until(lambda: pulls.is_held(gate, 1), 90, "node-1 to train")
        filler = fill(disk)
        pulls.let_go(gate)
        wait_until(lambda: "No space left" in run_log(federation, run_id), 30, "the run to fail")
        with pytest.raises(StateError, match=r"database cannot be written.*full"):
            federation.submit(pulls.plan(rounds=1, nodes=2))
        status = federation.admin.ask("Status", pb.StatusRequest(), pb.StatusReply)
        assert status.nodes_connected == 2  # it works on, as far as it can
        filler.unlink()
        again = federation.submit(pulls.plan(rounds=2, nodes=2, quorum=2))
        federation.wait_for_run(again, 90)
        found = pulls.outcome(federation, again)
        found.check_means({"node-0": 0, "node-1": 1})
        assert federation.show_run(run_id).run.state != "finished"
        assert federation.connected() == {"node-0", "node-1"}


def run_log(federation: LoopbackFederation, run_id: int) -> str:
    """What the run process printed, and what the coordinator says of the run."""
    log = federation.layout.run(run_id) / "run.log"
    printed = log.read_text("utf-8", "replace") if log.exists() else ""
    return printed + federation.show_run(run_id).run.reason + federation.coordinator.tail(200)


def test_a_coordinator_does_not_start_where_it_cannot_write(tmp_path: Path) -> None:
    federation = LoopbackFederation(tmp_path / "federation")
    (tmp_path / "federation").mkdir(mode=0o700)
    with small_disk(federation.layout.directory) as disk:
        federation.make()
        set_read_only(disk, read_only=True)
        status, told = fedsec("server", "start", str(disk))
        assert status == 2
        assert "server.lock cannot be written: Read-only file system" in told
        assert "Traceback" not in told
        set_read_only(disk, read_only=False)
        fill(disk)
        status, told = fedsec("server", "start", str(disk))
        assert status == 2
        assert "No space left on device" in told
        assert "Traceback" not in told


def test_a_node_works_on_a_full_disk_and_says_when_it_is_read_only(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    federation = LoopbackFederation(tmp_path / "federation", environment=pulls.ENVIRONMENT)
    with small_disk(tmp_path / "federation" / "nodes" / "node-0") as disk:
        for parent in (tmp_path / "federation", tmp_path / "federation" / "nodes"):
            parent.chmod(0o700)
        with federation:
            nodes = federation.add_nodes(2, lambda index, _: pulls.settings(index, gate))
            filler = fill(disk)
            run_id = federation.submit(pulls.plan(rounds=2, nodes=2, quorum=2))
            federation.wait_for_run(run_id, 90)
            pulls.outcome(federation, run_id).check_means({"node-0": 0, "node-1": 1})
            nodes[0].process.end()
            nodes[0].process.start()  # it needs no room to start either
            federation.wait_for_nodes(["node-0"])
            nodes[0].process.end()
            filler.unlink()
            set_read_only(disk, read_only=True)
            status, told = fedsec("node", "start", str(disk))
            assert status == 2
            assert "Read-only file system" in told
            assert "Traceback" not in told
            assert Enrolment.load(disk).record.name == "node-0"  # what it is, it still is
            set_read_only(disk, read_only=False)
            nodes[0].process.start()
            federation.wait_for_nodes(["node-0"])
