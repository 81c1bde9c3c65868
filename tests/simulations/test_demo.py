"""The demo's own part: who is killed when, what is counted, and, once, all of it for real."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from fedsec.errors import ConfigError
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_sim import demo
from fedsec_sim.demo import Report, _Demo
from fedsec_sim.screens import Silence

NAMES = ["node-0", "node-1", "node-2", "node-3", "node-4"]


@dataclass
class FakeProcess:
    calls: list[str] = field(default_factory=list)
    is_running: bool = True

    def kill(self) -> None:
        self.calls.append("kill")
        self.is_running = False

    def start(self) -> None:
        self.calls.append("start")
        self.is_running = True

    def keep_to(self, processors: list[int]) -> None:
        self.calls.append("keep_to")


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command takes SIGTERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def watched(tmp_path: Path) -> _Demo:
    nodes = {name: SimpleNamespace(name=name, process=FakeProcess()) for name in NAMES}
    ids = {name: 100 + index for index, name in enumerate(NAMES)}
    federation = SimpleNamespace(
        nodes=nodes, node_ids=lambda: ids, directory=tmp_path, logs=tmp_path / "logs"
    )
    made = _Demo(federation, 7, Silence())  # type: ignore[arg-type]
    made.run = pb.Run(run_id=7, rounds=12, directory=str(tmp_path / "runs" / "7"))
    return made


def detail(
    number: int, absent: tuple[int, ...] = (), failed: tuple[int, ...] = ()
) -> dict[str, object]:
    return {
        "round": number,
        "rounds": 12,
        "answered": [100 + i for i in range(5) if i not in (*absent, *failed)],
        "failed": {str(100 + i): "was lost" for i in failed},
        "rejected": {},
        "loss": 1.0 / number,
        "accuracy": 0.9 + number / 1000,
        "seconds": 0.1 * number,
        "bytes_down": 1000,
        "bytes_up": 10,
    }


def test_one_node_is_killed_in_round_5_and_started_in_round_10(watched: _Demo) -> None:
    victim = watched.federation.nodes["node-3"].process
    for number in range(1, 13):
        away = {5: {"failed": (3,)}, **{n: {"absent": (3,)} for n in range(6, 12)}}
        watched.on_event("round", detail(number, **away.get(number, {})))
        killed, started = number >= 4, number >= 9
        assert [c for c in victim.calls if c != "keep_to"] == ["kill"] * killed + [
            "start"
        ] * started
    others = [watched.federation.nodes[name].process for name in NAMES if name != "node-3"]
    assert all(process.is_running and "kill" not in process.calls for process in others)
    watched.on_event("model", {"path": "models/round-00012.safetensors"})
    report = watched.report(33.0)
    assert report.killed == "node-3"
    assert report.rounds_without == [5, 6, 7, 8, 9, 10, 11]
    assert report.others_missing == 0
    assert report.accuracy == pytest.approx(0.912)
    assert report.round_s == pytest.approx(0.65)
    assert (report.bytes_down, report.bytes_up, report.rounds) == (12_000, 120, 12)
    assert report.model == str(Path(watched.run.directory) / "models/round-00012.safetensors")


def test_a_disturbed_node_is_counted(watched: _Demo) -> None:
    watched.on_event("round", detail(1))
    watched.on_event("round", detail(2, failed=(0,), absent=(1,)))
    assert watched.report(1.0).others_missing == 2
    assert watched.report(1.0).killed == ""


def test_a_short_demo_kills_nobody(watched: _Demo) -> None:
    watched.run.rounds = 4
    for number in range(1, 5):
        watched.on_event("round", detail(number))
    assert watched.federation.nodes["node-3"].process.calls == []


def test_an_existing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists; name a new directory with --directory"):
        demo.demo_command(directory=tmp_path)


@pytest.mark.parametrize(("minimum", "fails"), [(0.93, False), (0.95, True)])
def test_a_bad_model_is_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minimum: float, fails: bool
) -> None:
    report = Report(
        directory="d", model="m", logs="l", accuracy=0.94, rounds=1, bytes_down=1, bytes_up=1,
        round_s=1.0, total_s=1.0, killed="", rounds_without=[], others_missing=0,
    )  # fmt: skip
    monkeypatch.setattr(demo, "run_demo", lambda *_: report)
    if not fails:
        demo.demo_command(directory=tmp_path / "new", minimum_accuracy=minimum)
        return
    with pytest.raises(typer.Exit) as end:
        demo.demo_command(directory=tmp_path / "new", minimum_accuracy=minimum)
    assert end.value.exit_code == 1


@pytest.mark.slow
def test_the_demo_with_real_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", "from fedsec.cli import main; main()", "demo", "--json"]
    command += ["--directory", str(tmp_path / "demo"), "--nodes", "3", "--rounds", "10"]
    done = subprocess.run(
        [*command, "--minimum-accuracy", "0.8"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["killed"] == "node-2"
    assert report["rounds_without"][:5] == [5, 6, 7, 8, 9]
    assert report["others_missing"] == 0
    assert Path(report["model"]).is_file()
    assert (Path(report["logs"]) / "node-2.log").is_file()


def test_the_plan_of_the_demo_runs_in_simulation(capsys: pytest.CaptureFixture[str]) -> None:
    demo.demo_command(nodes=4, rounds=1, sim=True)
    shown = capsys.readouterr().out
    assert "demo: 4 nodes, 4 in a round, seed 1, engine loop" in shown
    assert "round 1/1  train loss " in shown
    assert "fedsec simulate plan.toml --attack" in shown
