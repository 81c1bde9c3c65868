"""Real processes: every accepted cell of what may be combined, and one node that pulls the other way.

Twelve nodes, a coordinator that is not trusted where there are sums. Refused cells, and the same ones
without processes: tests/flower/test_combinations.py.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedsec.artifacts import read_model
from fedsec.flower.perturb import Perturb
from fedsec.flower.private import central_mechanism
from fedsec.flower.sums import noisy_sum
from fedsec.ledgerfile import LedgerFile
from fedsec.plan import FederationPlan
from fedsec.privacy.ledger import Charge
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.table import load_task
from fedsec_sim.loopback import LoopbackFederation
from tests.cells import ACCEPTED, CLIP, CLIP_IN_SUMS, NOISE, RULES, cell
from tests.end_to_end import pulls

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIZE, N, SECONDS = 2000, 12, 240.0
HOSTILE, ITS_TARGET = 11, -61
RATE, BATCH = 0.5, 2
HEAD = f"""
schema = 1
name = "a cell"
VISIBILITY
[task]
TASK
[training]
rounds = 1
local_steps = 1
batch_size = {BATCH}
learning_rate = {RATE}
[nodes]
min_available = {N}
wait_s = 60
[round]
evaluate_every = 0
[model]
save_every = 1
"""
PULLING = f'name = "pulling:TASK"\ndata = "pulls"\noptions = {{ size = {SIZE} }}'
DIGITS = 'name = "digits"\noptions = { model = "logistic" }'
WAY = np.linspace(0, 1, SIZE)
LONG = float(np.linalg.norm(WAY))
WAY /= LONG
PULLS = np.array([RATE * LONG * (node + 1) for node in [*range(HOSTILE), ITS_TARGET]])
"""How far each node's update reaches along `WAY`, before it is clipped."""
SEEN = {"each": {1}, "groups": {4}, "sum": {12}}
"""Nodes of a row that the coordinator sees."""
HIDDEN = {"mean": {"central", "distributed"}, "any": {"central"}}
"""Models of privacy under which nobody is told of rows: by rule."""
CHARGES = {  # of the coordinator's ledger, and of each node's: its column
    "none": (0, None),
    "central": (1, "promised"),
    "distributed": (1, "enforced"),
    "local": (1, "enforced"),
    "example": (0, "enforced"),
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackFederation]:
    directory = tmp_path_factory.mktemp("three")
    gate = directory / "gate"
    gate.mkdir()

    def settings(index: int, count: int) -> str:
        own = pulls.settings(ITS_TARGET if index == HOSTILE else index, gate)
        tasks = 'allowed_tasks = ["pulling:TASK"]\n'
        assert tasks in own
        return own.replace(tasks, 'allowed_tasks = ["pulling:TASK", "digits"]\n') + (
            f'[data.digits]\nconnector = "digits"\npartition = {index}\npartitions = {count}\n'
        )

    with LoopbackFederation(
        directory / "federation", environment=pulls.ENVIRONMENT, forked=True
    ) as made:
        made.add_nodes(N, settings)
        made.publish_roster()
        yield made


def combined(rows: np.ndarray, rule: str) -> np.ndarray:
    """Returns the rule, entry by entry of rows (n, ...)."""
    ordered = np.sort(rows, axis=0)
    match rule:
        case "mean":
            return ordered.mean(axis=0)
        case "trimmed-mean":
            return ordered[1:-1].mean(axis=0)
    return np.median(ordered, axis=0)


def spread(rows: int, rule: str) -> float:
    """Returns the standard deviation of a rule over normal rows."""
    return float(combined(np.random.default_rng(1).normal(size=(rows, 100_000)), rule).std())


def noise_in(plan: FederationPlan, seen: str, private: str, rule: str) -> float:
    """Returns the standard deviation of the noise in an entry of the model."""
    assert plan.privacy is not None
    if private == "central":
        return central_mechanism(plan, CLIP).std(SIZE)
    (of,) = SEEN[seen]
    if private == "local":
        row = Perturb.of(plan.privacy).mechanism.std(SIZE) / math.sqrt(of)
    else:
        row = noisy_sum(plan, SIZE).std(of) / of
    return row * spread(N // of, rule)


def without_noise(seen: str, private: str, rule: str) -> float:
    """Returns how far the model goes along `WAY`.

    Where nodes are clipped all honest updates are one vector, so that it is the same in which group
    the hostile node is.
    """
    clip = CLIP if private != "none" else math.inf if seen == "each" else CLIP_IN_SUMS
    (of,) = SEEN[seen]
    rows = np.clip(PULLS, -clip, clip).reshape(-1, of).mean(axis=1)
    return float(combined(rows, rule))


def moves_of_digits(found: pulls.Outcome) -> np.ndarray:
    """Returns what the round added to the model that the digits' task begins with."""
    path = Path(found.run.directory) / "models" / "round-00001.safetensors"
    after, _ = read_model(path)
    before = get_arrays(load_task("digits").make_model({"model": "logistic"}, 1))
    return np.concatenate([(after[name] - before[name]).ravel() for name in before])


def noise_of_training(size: int, seen: str, rule: str) -> float:
    """Returns the standard deviation of an entry after a noised step of each node.

    A node's update is a learning rate times noise over the batch; a sum clips it.
    """
    node = RATE * NOISE * CLIP / BATCH
    if seen != "each":
        node = min(node, CLIP_IN_SUMS / math.sqrt(size))
    (of,) = SEEN[seen]
    return node / math.sqrt(of) * spread(N // of, rule)


def charged(path: Path, plan: FederationPlan) -> list[Charge]:
    entries = LedgerFile(path).entries() if path.exists() else []
    return [charge for _, charge in entries if charge.plan == plan.digest]


@pytest.mark.parametrize(("seen", "private", "rule"), ACCEPTED)
def test_an_accepted_cell_runs(
    federation: LoopbackFederation, seen: str, private: str, rule: str
) -> None:
    head = HEAD.replace("TASK\n", (DIGITS if private == "example" else PULLING) + "\n", 1)
    text = cell(head, seen, private, RULES[rule], SIZE)
    plan = FederationPlan.parse(text)
    run_id = federation.submit(text)
    federation.wait_for_run(run_id, SECONDS)
    found = pulls.outcome(federation, run_id)
    assert found.answered(1) == set(federation.nodes)

    told = [event.detail["nodes"] for event in found.events if event.kind == "nodes"]
    assert {len(row["nodes"]) for rows in told for row in rows} <= SEEN[seen]
    assert bool(told) == (private not in HIDDEN.get(rule, HIDDEN["any"]))
    coordinator, column = CHARGES[private]
    assert len(charged(federation.layout.ledger, plan)) == coordinator
    for node in federation.nodes.values():
        own = charged(node.directory / "privacy.ledger", plan)
        assert [charge.guarantee.column for charge in own] == ([column] if column else [])

    if private == "example":  # the training itself adds the noise
        moved = moves_of_digits(found)
        std = noise_of_training(len(moved), seen, rule)
        assert np.std(moved) == pytest.approx(std, rel=0.15)  # five times its own deviation
        return
    model, length = found.model(1), without_noise(seen, private, rule)
    if private == "none":
        np.testing.assert_allclose(model, length * WAY, atol=1e-4 * abs(length))
        return
    off, std = model - length * WAY, noise_in(plan, seen, private, rule)
    assert np.std(off) == pytest.approx(std, rel=0.08)  # five times its own deviation
    assert abs(off @ WAY) < 5 * std
