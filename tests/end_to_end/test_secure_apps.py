"""Secure sums in a Flower app: under Flower's own simulation, and over our coordinator."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsec_sim.flower_runtime import flower_runtime
from fedsec_sim.loopback import LoopbackFederation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

APP = Path(__file__).parent / "apps" / "summing"
NODES = 4


def check(report: Path) -> None:
    """Nodes add 0, 1, 2 and 3, three times; their mean is told, and no number of examples."""
    found = json.loads(report.read_text("utf-8"))
    assert found["first"] == pytest.approx(4.5, abs=1e-4)
    assert found["last"] == pytest.approx(4.5, abs=1e-4)
    assert [set(told) for told in found["told"]] == [{"part"}] * 3
    assert found["told"][0]["part"] == pytest.approx(1.5, abs=1e-6)


def test_under_flower_s_simulation_with_strategy_and_mod(tmp_path: Path) -> None:
    app, report = shutil.copytree(APP, tmp_path / "summing"), tmp_path / "report.json"
    with flower_runtime(tmp_path / "runtime", NODES, simulated=True) as runtime:
        runtime.run(Path(app), {"report": str(report)}, report, 240)
    check(report)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackFederation]:
    """Nodes over our coordinator, whose app is without the mod."""
    directory = tmp_path_factory.mktemp("summing")
    app = Path(shutil.copytree(APP, directory / "summing"))
    client = app / "summing" / "client_app.py"
    client.write_text(client.read_text("utf-8").replace("mods=[secure_mod(PLAN)]", ""), "utf-8")
    with LoopbackFederation(
        directory / "federation", apps={"summing": app}, forked=True
    ) as running:
        running.add_nodes(NODES)
        running.publish_roster()
        yield running


@pytest.mark.parametrize("mode", ["semi-honest", "malicious"])
def test_over_the_coordinator_without_a_mod(
    tmp_path: Path, federation: LoopbackFederation, mode: str
) -> None:
    told, report = tmp_path / "told.toml", tmp_path / "report.json"
    text = (APP / "summing" / "plan.toml").read_text("utf-8").replace("semi-honest", mode)
    config = f'[app.config]\nplan = "{told}"\nreport = "{report}"\n'
    told.write_text(text.replace("[nodes]\n", f"{config}[nodes]\n"), "utf-8")
    federation.wait_for_run(federation.submit(told.read_text("utf-8")), seconds=200)
    check(report)
