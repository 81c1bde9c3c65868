"""One agent per directory, across processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsec.errors import ConfigError, StateError
from fedsec_client.lock import is_running, locked

HOLDER = """
import sys
from pathlib import Path
from fedsec_client.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_agent_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_running(tmp_path)
        with pytest.raises(StateError, match=f"already, as process {holder.pid}"), locked(tmp_path):
            pass
        holder.kill()
    assert not is_running(tmp_path)
    with locked(tmp_path):
        assert (tmp_path / "agent.lock").read_text() == f"{os.getpid()}\n"


def test_nobody_runs_where_nothing_ever_ran(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot open"), locked(tmp_path / "gone"):
        pass
