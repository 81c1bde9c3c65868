"""Ten real nodes over mutual TLS, three of which lie: the mean is lost, a robust rule is not."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsec_sim.loopback import LoopbackFederation
from tests.end_to_end import pulls
from tests.end_to_end.test_by_commands import fedsec

pytestmark = pytest.mark.slow

ATTACKS = {7: "sign-flip", 8: "nan", 9: "alie"}
LIARS = {f"node-{index}" for index in ATTACKS}

PLAN = """
schema = 1
name = "three of ten lie"
[task]
name = "poisoned:TASK"
data = "digits"
[training]
rounds = {rounds}
local_epochs = 2
learning_rate = 0.05
momentum = 0.9
[nodes]
min_available = 10
quorum = {quorum}
[round]
deadline_s = 100
evaluate_every = 10
"""
ROBUST = '[robust]\nrule = "trimmed-mean"\nbyzantine = 3\nbefore = ["nnm"]\n'
TRUSTING = '[robust]\nrule = "fltrust"\nbyzantine = 3\nroot = "clean"\n'
CLEAN = """
[data.clean]
connector = "digits"
split = "iid"
partition = 0
partitions = 10
seed = 5
"""


@pytest.fixture(scope="module")
def den(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("den")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, den: Path) -> Iterator[LoopbackFederation]:
    def settings(index: int, count: int) -> str:
        liar = f'attack = "{ATTACKS[index]}"\nden = "{den}"\n' if index in ATTACKS else ""
        return (
            'schema = 1\n[limits]\nthreads = 1\n[policy]\nallowed_tasks = ["poisoned:TASK"]\n'
            '[data.digits]\nconnector = "digits"\nsplit = "dirichlet"\nalpha = 5.0\nseed = 1\n'
            f"partition = {index}\npartitions = {count}\n{liar}"
        )

    directory = tmp_path_factory.mktemp("byzantine") / "federation"
    made = LoopbackFederation(directory, environment=pulls.ENVIRONMENT, forked=True)
    try:
        made.make()
        made.change_settings(made.layout.settings.read_text("utf-8") + CLEAN)
        made.start_coordinator()
        made.add_nodes(10, settings)
        yield made
    finally:
        made.end()


def train(federation: LoopbackFederation, plan: str) -> tuple[int, list[dict]]:
    run_id = federation.submit(plan)
    federation.wait_for_run(run_id, 150)
    return run_id, [each for each in federation.events(run_id, "round") if "accuracy" in each]


@pytest.mark.timeout(360)
def test_three_liars_of_ten_spoil_the_mean_and_not_the_robust_rule(
    federation: LoopbackFederation, den: Path
) -> None:
    (den / "attack").write_text("11")
    run_id, (undisturbed, collapsed) = train(federation, PLAN.format(rounds=15, quorum=9))
    assert undisturbed["accuracy"] >= 0.90
    assert collapsed["accuracy"] < 0.5

    for file in den.glob("*.npy"):
        file.unlink()
    (den / "attack").write_text("1")
    run_id, (withstood,) = train(federation, PLAN.format(rounds=10, quorum=9) + ROBUST)
    assert withstood["accuracy"] >= undisturbed["accuracy"] - 0.02

    command = ("run", "watch", str(run_id), "--dir", federation.layout.directory)
    (named,) = [line for line in fedsec(*command).splitlines() if line.startswith("stand out")]
    assert {word for word in re.split(r"[ ;]+", named) if word.startswith("node-")} == LIARS


def test_clean_data_at_the_coordinator_tell_liars_and_operators_see_how(
    federation: LoopbackFederation, den: Path, tmp_path: Path
) -> None:
    (den / "attack").write_text("1")
    run_id, _ = train(
        federation, PLAN.format(rounds=2, quorum=9).replace("every = 10", "every = 2") + TRUSTING
    )
    at = ("--dir", str(federation.layout.directory))
    for role in ("operator", "auditor"):
        fedsec("person", "add", role, "--role", role, "-o", tmp_path / role, *at)
    as_operator = ("--credentials", str(tmp_path / "operator"))
    found = json.loads(fedsec("run", "records", str(run_id), "--json", *as_operator))
    names = {str(node): name for name, node in federation.node_ids().items()}
    weights = {names[node]: row.get("weight") for row in found["rows"] for node in row["nodes"]}
    assert len(weights) == 10
    assert not weights["node-7"]  # it points away from the clean data
    assert weights["node-8"] is None  # not finite
    assert all(weights[f"node-{honest}"] > 0 for honest in range(7))
    as_auditor = ("--credentials", str(tmp_path / "auditor"))
    refused = fedsec("run", "records", str(run_id), *as_auditor, code=2)
    assert '"show records" is for admin, operator, not for auditor' in refused
