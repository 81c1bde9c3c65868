"""Unmodified Flower apps: the same numbers from Flower's own simulation and from our coordinator."""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from fedsec_sim.flower_runtime import FlowerRuntime, flower_runtime
from fedsec_sim.loopback import LoopbackFederation
from fedsec_sim.processes import wait_until

pytestmark = pytest.mark.slow

APPS = Path(__file__).parent / "apps"
NODES = 3

PLAN = """
schema = 1
name = "{name}"
[app]
name = "{name}"
[app.config]
{config}
[nodes]
min_available = 3
wait_s = 60
"""


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The apps, copied: Python writes its caches beside what it imports."""
    copies = tmp_path_factory.mktemp("apps")
    return {
        name: Path(shutil.copytree(APPS / name, copies / name))
        for name in ("everyday", "legacy", "guarded", "tooling")
    }


@pytest.fixture(scope="module")
def federation(
    apps: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoopbackFederation]:
    directory = tmp_path_factory.mktemp("apps-federation")
    with LoopbackFederation(directory / "federation", apps=apps, forked=True) as running:
        running.add_nodes(NODES)
        yield running


@pytest.fixture(scope="module")
def simulated(
    apps: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[object]]]:
    """What the apps report from Flower's simulation, which runs while our federation starts."""
    directory = tmp_path_factory.mktemp("flower")
    with (
        flower_runtime(directory / "runtime", NODES, simulated=True) as runtime,
        ThreadPoolExecutor(max_workers=1) as one_after_the_other,
    ):
        yield {
            name: one_after_the_other.submit(simulate, runtime, apps[name], directory)
            for name in ("everyday", "legacy", "guarded")
        }


def simulate(runtime: FlowerRuntime, app: Path, directory: Path) -> object:
    report = directory / f"{app.name}.json"
    runtime.run(app, {"report": str(report)}, report, 90)
    return json.loads(report.read_text("utf-8"))


def plan(name: str, **config: str) -> str:
    lines = [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in config.items()]
    return PLAN.format(name=name, config="\n".join(lines))


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def assert_same(ours: object, theirs: object) -> None:
    """Numbers are equal to 1e-6, all else exactly."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_same(ours[key], value)
    elif isinstance(theirs, list):
        assert isinstance(ours, list)
        assert len(ours) == len(theirs)
        for mine, their in zip(ours, theirs, strict=True):
            assert_same(mine, their)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    else:
        assert ours == theirs


def test_an_everyday_app(
    apps: dict[str, Path],
    simulated: dict[str, Future[object]],
    federation: LoopbackFederation,
    tmp_path: Path,
) -> None:
    """Train, evaluate, query; mods, state, config, lifespan, errors, time to live.

    Over our coordinator a worker is killed in between: what the app keeps in its state survives.
    """
    before = hashes(apps["everyday"])
    assert before == hashes(APPS / "everyday")
    ours, gate = tmp_path / "ours.json", tmp_path / "go"
    run_id = federation.submit(plan("everyday", report=str(ours), wait_for=str(gate)))
    ready = tmp_path / "go.ready"
    wait_until(ready.exists, 60, "the app to have trained", [federation.coordinator])
    workers = json.loads(ready.read_text("utf-8"))
    os.kill(workers[1], signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{workers[1]}").exists(), 5, "the worker to be gone")
    gate.touch()
    federation.wait_for_run(run_id, 60)

    mine, their = json.loads(ours.read_text("utf-8")), simulated["everyday"].result(120)
    assert isinstance(their, dict)
    processes, _ = mine.pop("processes"), their.pop("processes")
    reasons, _ = mine.pop("reasons"), their.pop("reasons")
    assert processes[0] == workers[0]
    assert processes[1] != workers[1]
    assert mine["failing"] == their["failing"], reasons
    assert_same(mine, their)
    assert len(reasons) == 5
    assert "ValueError: this node has no such thing" in reasons[1]
    assert mine["failing"] == {"answered": [0, 2], "errors": 1}
    assert mine["slow"] == {"answered": [0, 1], "errors": 1}
    assert hashes(apps["everyday"]) == before


def test_a_legacy_app(
    apps: dict[str, Path],
    simulated: dict[str, Future[object]],
    federation: LoopbackFederation,
    tmp_path: Path,
) -> None:
    before, ours = hashes(apps["legacy"]), tmp_path / "ours.json"
    run_id = federation.submit(plan("legacy", report=str(ours)))
    federation.wait_for_run(run_id, 60)
    assert_same(json.loads(ours.read_text("utf-8")), simulated["legacy"].result(120))
    assert hashes(apps["legacy"]) == before


def test_an_app_with_a_robust_strategy(
    simulated: dict[str, Future[object]], federation: LoopbackFederation, tmp_path: Path
) -> None:
    """One node of three is far off: the median is not, on either runtime."""
    ours = tmp_path / "ours.json"
    run_id = federation.submit(plan("guarded", report=str(ours)))
    federation.wait_for_run(run_id, 60)
    mine = json.loads(ours.read_text("utf-8"))
    assert_same(mine, simulated["guarded"].result(120))
    assert max(map(abs, mine["weights"])) < 1
    assert mine["count"] == 7  # an integer: it stays as it was sent
    assert mine["train"]["1"]["robust-suspects"] == 1


def test_an_app_that_drives_flowers_own_tooling_is_refused(
    federation: LoopbackFederation,
) -> None:
    run_id = federation.submit(plan("tooling"))
    run = federation.wait_for_run(run_id, 60, state="failed")
    assert "flwr.cli.build" in run.reason
    assert "\n" not in run.reason
    assert all(node.process.is_running for node in federation.nodes.values())
