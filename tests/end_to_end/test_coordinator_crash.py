"""A coordinator's run process dies at every failpoint: what got out is in the ledger, once.

A real federation of two nodes under central privacy. Out is what a node was sent, what a round's
event tells, and what was saved as a model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedsec.failpoints import FAILPOINTS, Failpoint
from fedsec.ledgerfile import LedgerFile
from fedsec_sim.loopback import LoopbackFederation
from tests.end_to_end import pulls

pytestmark = pytest.mark.slow

ROUNDS, SIZE, SECONDS = 3, 64, 60.0
PLAN = (
    pulls.plan(rounds=ROUNDS, nodes=2, quorum=1, size=SIZE).replace("pulling:", "watching:")
    + """
[privacy]
model = "central"
epsilon = 20.0
delta = 1e-5
noise_multiplier = 2.0
clip = 1.0
"""
)


@dataclass(frozen=True)
class Site:
    """The federation, and where its nodes and its run processes leave what they saw."""

    federation: LoopbackFederation
    gate: Path
    death: Path

    def run(self, where: str) -> pulls.Outcome:
        """Returns what became of a run that dies at a failpoint; of one that does not, if empty."""
        self.death.write_text(where)
        for file in self.gate.glob("*.npy"):
            file.unlink()
        run_id = self.federation.submit(PLAN)
        state = "failed" if where else "finished"
        self.federation.wait_for_run(run_id, SECONDS, state=state)
        return pulls.outcome(self.federation, run_id)

    def reached(self) -> list[str]:
        return self.death.with_suffix(".reached").read_text().splitlines()

    def seen(self) -> dict[int, list[np.ndarray]]:
        """Returns models by the round after which they were sent, from each node that got one."""
        return {
            number: [np.load(file) for file in self.gate.glob(f"*-{number}.npy")]
            for number in range(1, ROUNDS)
        }

    def charged(self) -> dict[str, list[int]]:
        """Returns the rounds that are in the ledger, by run."""
        found: dict[str, list[int]] = {}
        path = self.federation.layout.ledger
        for _, charge in LedgerFile(path).entries() if path.exists() else []:
            found.setdefault(charge.run, []).append(charge.round)
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("crash")
    gate, death = directory / "gate", directory / "death"
    gate.mkdir()
    with LoopbackFederation(
        directory / "federation",
        environment=pulls.ENVIRONMENT | {"DEATH": str(death)},
        forked=True,
        run_module="dying_run",
    ) as federation:
        federation.add_nodes(
            2, lambda index, _count: pulls.settings(index, gate).replace("pulling:", "watching:")
        )
        yield Site(federation, gate, death)


def out(site: Site, found: pulls.Outcome) -> dict[int, list[np.ndarray]]:
    """Returns all models of a run that got out, by round; of a round's event alone, none."""
    models = {each["round"]: [] for each in found.rounds()}
    for number, seen in site.seen().items():
        if seen:
            models.setdefault(number, []).extend(seen)
    saved = Path(found.run.directory) / "models"
    for number in range(1, ROUNDS + 1):
        if (saved / f"round-{number:05d}.safetensors").exists():
            models.setdefault(number, []).append(found.model(number))
    return models


def check(site: Site, found: pulls.Outcome) -> int:
    """Asserts that what got out of a run is charged, and one vector each; returns how many."""
    released = out(site, found)
    prefix = f"{found.run.run_id}/"
    charged = [
        n for run, rounds in site.charged().items() if run.startswith(prefix) for n in rounds
    ]
    assert released.keys() <= set(charged)
    assert len(charged) == len(set(charged))
    for models in released.values():
        assert len({each.tobytes() for each in models}) <= 1
    return len(released)


PLACES = sorted(FAILPOINTS, key=lambda name: name != "log created")
"""Once created the ledger stays: a coordinator whose ledger has gone runs no such plan any more."""


@pytest.mark.parametrize("name", PLACES)
def test_what_got_out_of_a_coordinator_that_died_is_charged_once(
    site: Site, name: Failpoint
) -> None:
    before = site.charged()
    died = site.run(name)
    assert "SIGKILL" in died.run.reason
    assert site.reached()[-1] == name
    assert check(site, died) >= (name != "log created")  # its first round was over
    assert before.items() <= site.charged().items()


def test_the_next_run_of_a_coordinator_that_is_started_again_is_charged_like_any_other(
    site: Site,
) -> None:
    site.run("release paid")
    before = site.charged()
    assert before
    site.federation.coordinator.kill()
    site.federation.start_coordinator()
    site.federation.wait_for_nodes(site.federation.nodes)
    again = site.run("")
    assert check(site, again) == ROUNDS
    after = site.charged()
    assert before.items() <= after.items()
    assert [after[run] for run in after.keys() - before.keys()] == [[1, 2, 3]]
