"""Workers that are forked: they live, work and end as those that an agent starts by itself."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsec_sim import forkserver
from fedsec_sim.forkserver import ForkServer
from fedsec_sim.processes import wait_until

pytestmark = pytest.mark.skipif(not forkserver.available(), reason="this system has no pidfd")

PROGRAM = """
import json, os, random, sys, time
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
print(json.dumps({
    "module": __name__,
    "arguments": sys.argv[1:],
    "parent": os.getppid(),
    "pid": os.getpid(),
    "group": os.getpgid(0),
    "directory": os.getcwd(),
    "secret": os.environ.get("SECRET"),
    "threads": torch and torch.get_num_threads(),
    "python": random.random(),
    "numpy": numpy and float(numpy.random.random()),
    "OpenSSL": X25519PrivateKey.generate().public_key().public_bytes_raw().hex(),
    "tasks of the server": len(os.listdir(f"/proc/{os.getppid()}/task")),
    "descriptors": sorted(int(each) for each in os.listdir("/proc/self/fd")),
}), flush=True)
match os.environ.get("END"):
    case "code":
        sys.exit(7)
    case "error":
        raise ValueError("no good")
    case "signal":
        os.kill(os.getpid(), 11)
    case "wait":
        time.sleep(600)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "of the server")
        made = ForkServer()
    with made:
        yield made
    assert not made.is_running
    assert not Path(made.address).exists()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "worker_under_test.py").write_text(PROGRAM)
    return tmp_path


def start(server: ForkServer, site: Path, end: str) -> tuple[subprocess.Popen[bytes], int]:
    """Starts the stand-in as an agent does; returns it and the number of its socket."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-P", "-m", "fedsec_sim.stand_in", server.address]
    process = subprocess.Popen(
        [*command, "worker_under_test", str(theirs), "0", str(os.getpid())],
        cwd=site,
        env={"PYTHONPATH": str(site), "END": end, "OMP_NUM_THREADS": "2", "PATH": "/usr/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(theirs,),
        start_new_session=True,
    )
    os.close(theirs)
    return process, theirs


def surroundings(process: subprocess.Popen[bytes]) -> dict[str, object]:
    assert process.stdout is not None
    told: dict[str, object] = json.loads(process.stdout.readline())
    return told


def is_gone(pid: object) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_worker_has_the_surroundings_that_its_agent_gave_it(
    server: ForkServer, site: Path
) -> None:
    process, descriptor = start(server, site, "")
    with process:
        told = surroundings(process)
    assert process.returncode == 0
    assert told["module"] == "__main__"
    assert told["arguments"] == [str(descriptor), "0", str(told["parent"])]
    assert told["directory"] == str(site)
    assert told["group"] == told["pid"]  # so that ending it ends what it starts
    assert told["secret"] is None  # of the fork server's own environment
    assert told["threads"] == 2
    assert told["tasks of the server"] == 1
    further = set(told["descriptors"]) - {0, 1, 2, descriptor}  # type: ignore[call-overload]
    assert len(further) == 1  # the directory that was listed


def test_siblings_have_no_chance_in_common(server: ForkServer, site: Path) -> None:
    drawn = []
    for _ in range(2):
        process, _ = start(server, site, "")
        with process:
            drawn.append(surroundings(process))
    for kind in ("python", "numpy", "OpenSSL"):
        assert drawn[0][kind] != drawn[1][kind]


@pytest.mark.parametrize(("end", "code"), [("", 0), ("code", 7), ("error", 1), ("signal", -11)])
def test_the_stand_in_ends_as_the_worker_did(
    server: ForkServer, site: Path, end: str, code: int
) -> None:
    process, _ = start(server, site, end)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert ("ValueError: no good" in errors.decode()) == (end == "error")


def test_whoever_kills_the_stand_in_kills_the_worker(server: ForkServer, site: Path) -> None:
    process, _ = start(server, site, "wait")
    with process:
        worker = surroundings(process)["pid"]
        process.kill()
    wait_until(lambda: is_gone(worker), 10, "the worker to be gone")
    assert server.is_running


def test_both_may_end_at_once(site: Path) -> None:
    with ForkServer(()) as made:
        process, _ = start(made, site, "wait")
        with process:
            told = surroundings(process)
            server, worker = int(str(told["parent"])), int(str(told["pid"]))
            os.kill(server, signal.SIGSTOP)
            os.kill(worker, signal.SIGKILL)
            process.kill()
        os.kill(server, signal.SIGCONT)
        wait_until(lambda: is_gone(worker), 10, "the worker to be gone")
        process, _ = start(made, site, "code")
        process.communicate(timeout=60)
        assert process.returncode == 7


def test_workers_end_with_the_server(site: Path) -> None:
    with ForkServer(()) as made:
        process, _ = start(made, site, "wait")
        with process:
            worker = surroundings(process)["pid"]
            made.end()
            assert process.wait(10) == 1
    wait_until(lambda: is_gone(worker), 10, "the worker to be gone")


def test_the_server_ends_with_the_process_that_started_it() -> None:
    program = (
        "import os; from fedsec_sim.forkserver import ForkServer\n"
        "made = ForkServer(()); print(made._process.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    wait_until(lambda: is_gone(int(done.stdout)), 10, "the server to be gone")


def test_there_is_one_for_all_and_another_when_it_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forkserver, "ForkServer", lambda: ForkServer(()))
    forkserver.shared().end()
    first = forkserver.shared()
    assert forkserver.shared() is first
    first.end()
    second = forkserver.shared()
    assert second is not first
    assert second.is_running
    second.end()


def test_an_environment_that_is_too_large_is_refused(server: ForkServer, site: Path) -> None:
    command = [sys.executable, "-P", "-m", "fedsec_sim.stand_in", server.address]
    done = subprocess.run(
        [*command, "worker_under_test", "1", "0", str(os.getpid())],
        env={"LONG": "x" * 100_000, "LONGER": "x" * 100_000},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"the environment is too large for a forked program" in done.stderr
