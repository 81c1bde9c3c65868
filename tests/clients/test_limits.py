"""What a worker's process may see and use; the limits themselves in a real process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedsec_client.limits import environment

CONFINED = """
import os, resource, sys
from fedsec_client.limits import confine
confine(memory_bytes=int(sys.argv[1]), parent=int(sys.argv[2]))
print(resource.getrlimit(resource.RLIMIT_CORE)[0], flush=True)
print(open("/proc/self/oom_score_adj").read().strip(), flush=True)
try:
    bytearray(300 << 20)
    print("plenty", flush=True)
except MemoryError:
    print("too much", flush=True)
sys.stdin.read()
"""
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], "0", str(os.getpid())],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
for _ in range(3):
    child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


def confined(memory: int, parent: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(memory), str(parent)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(("memory", "verdict"), [(200 << 20, "too much"), (0, "plenty")])
def test_memory_and_core_files_are_limited(memory: int, verdict: str) -> None:
    assert confined(memory, os.getpid()) == ["0", "500", verdict]


def test_a_worker_whose_agent_is_gone_does_not_begin() -> None:
    assert confined(0, parent=1) == []


def test_a_worker_is_killed_when_its_agent_is(tmp_path: Path) -> None:
    agent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CONFINED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with agent:
        assert agent.stdout is not None
        worker = int(agent.stdout.readline())
        assert Path(f"/proc/{worker}/cmdline").read_bytes()
        agent.kill()
    end = time.monotonic() + 5
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        os.sched_yield()
    assert not Path(f"/proc/{worker}").exists()


def test_secrets_of_the_agent_s_environment_stay_there() -> None:
    source = {"PATH": "/bin", "AWS_SECRET": "x", "CUDA_VISIBLE_DEVICES": "0", "HOME": "/h"}
    assert environment(source, threads=4, more=["CUDA_VISIBLE_DEVICES", "UNSET"]) == {
        "PATH": "/bin",
        "HOME": "/h",
        "CUDA_VISIBLE_DEVICES": "0",
        "MKL_NUM_THREADS": "4",
        "NUMEXPR_NUM_THREADS": "4",
        "OMP_NUM_THREADS": "4",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "OPENBLAS_NUM_THREADS": "4",
        "FLWR_TELEMETRY_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
    }
