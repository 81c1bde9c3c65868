"""Programs are started, stopped, killed and cleaned up, with their children."""

import signal
import sys
from pathlib import Path

import pytest

from fedsec.errors import StateError
from fedsec_sim.processes import Family, Process, wait_until

PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print('child', child.pid, flush=True)\n"
    "time.sleep(600)\n"
)


def python(tmp_path: Path, script: str, name: str = "program") -> Process:
    return Process(name, [sys.executable, "-c", script], tmp_path / f"{name}.log")


def state(pid: int) -> str:
    """Returns the letter of /proc: R and S run, T is stopped, Z and "" are gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def with_child(tmp_path: Path, family: Family) -> tuple[Process, int]:
    process = family.add(python(tmp_path, PARENT))
    process.start()
    line = wait_until(process.tail, 10, "the child", [process])
    return process, int(line.split()[1])


def test_stop_and_cont_reach_the_children(tmp_path: Path) -> None:
    with Family() as family:
        process, child = with_child(tmp_path, family)
        assert process.family() == [process.pid, child]
        process.stop()
        wait_until(lambda: state(process.pid) == state(child) == "T", 5, "both to stop")
        process.cont()
        wait_until(lambda: state(process.pid) != "T" != state(child), 5, "both to go on")


def test_all_end_with_the_block_even_by_an_exception(tmp_path: Path) -> None:
    started: list[tuple[Process, int]] = []

    def fail() -> None:
        with Family() as family:
            started.append(with_child(tmp_path, family))
            started[0][0].stop()  # a stopped program must end too
            raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):
        fail()
    [(process, child)] = started
    assert not process.is_running
    assert process.exit_code == -signal.SIGTERM
    wait_until(lambda: state(child) in {"", "Z"}, 5, "the child to end")


def test_kill_is_sigkill_and_a_restart_keeps_the_log(tmp_path: Path) -> None:
    process = python(tmp_path, "import time; print('up', flush=True); time.sleep(600)")
    with Family() as family:
        family.add(process).start()
        wait_until(process.tail, 10, "the first line", [process])
        with pytest.raises(StateError, match=f"program runs already, as process {process.pid}"):
            process.start()
        process.kill()
        assert process.exit_code == -signal.SIGKILL
        process.start()
        wait_until(lambda: process.tail() == "up\nup", 10, "the second line", [process])


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\ntime.sleep(600)\n"
    )
    with Family() as family:
        process = family.add(python(tmp_path, script))
        process.start()
        wait_until(process.tail, 10, "the first line", [process])
        assert process.end(grace=0.2) == -signal.SIGKILL


def test_an_early_end_is_told_with_the_log(tmp_path: Path) -> None:
    process = python(tmp_path, "import sys; sys.exit('no such port')")
    process.start()
    with pytest.raises(StateError, match=r"(?s)program ended with 1; its log:\nno such port"):
        wait_until(lambda: None, 10, "it to listen", [process])


def test_waiting_ends_with_what_was_waited_for(tmp_path: Path) -> None:
    with Family() as family:
        process = family.add(python(tmp_path, PARENT))
        process.start()
        wait_until(process.tail, 10, "the child", [process])
        with pytest.raises(StateError, match=r"(?s)the moon: not within 0 s\n--- program:\nchild"):
            wait_until(lambda: None, 0, "the moon", [process])


def test_never_started(tmp_path: Path) -> None:
    process = python(tmp_path, "")
    assert (process.end(), process.is_running, process.tail()) == (0, False, "")
    process.kill()
    with pytest.raises(StateError, match="program was not started"):
        process.stop()
