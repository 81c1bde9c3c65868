"""A node lost at every stage of a secure sum, one that claims a huge weight, one that forges one.

Four real node programs and the coordinator's, over mutual TLS; the fifth node speaks the protocol by
itself and hangs up at a stage of its choice. At the end the memory and the files of the coordinator's
programs are read, for what they must not hold.
"""

import asyncio
import re
import runpy
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, RecordDict

from fedsec.flower.arrays import pack, unpack
from fedsec.flower.secure_messages import MASKED, VECTOR, Stage, read_stage
from fedsec.wire.generated.message_pb2 import Header
from fedsec_sim.loopback import LoopbackFederation
from fedsec_sim.processes import wait_until
from tests.end_to_end.sumnode import SumNode, nobody

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 240.0
APP = Path(__file__).parent / "apps" / "losing"
PLAN = """
schema = 1
name = "losses"
[app]
name = "losing"
config = {{ plan = "{plan}", work = "{work}" }}
[nodes]
min_available = 5
[secure_aggregation]
mode = "malicious"
clip = 1000.0
max_weight = 4
max_nodes = 5
"""
STAGES = (Stage.OFFER, Stage.NONCE, Stage.SHARES, Stage.VECTOR, Stage.SIGNATURE, Stage.REVEAL)
FORGED = len(STAGES) + 1  # the round in which the fifth node adds what is no weight
ROUNDS = FORGED
COUNTED = (4, 3, 2, 1, 2)  # of what the nodes claim
LEAVER = 4
IN_THE_SUM = frozenset({Stage.SIGNATURE, Stage.REVEAL})  # its vector is there already
STEPS = 5 * 1000 / 2**30  # of the grid, for a sum of weights as small as 1


@dataclass
class Leaver(SumNode):
    """Hangs up when it is asked for the n-th stage in round n; comes back when the round is over."""

    work: Path = Path()
    left: int = 0
    stages: list[Stage] = field(default_factory=list)

    async def _serve(self) -> None:
        while True:
            await super()._serve()
            if not self.left:
                return
            over = self.work / f"{self.left}.done"
            while not over.exists():  # noqa: ASYNC110 - a file of another process
                await asyncio.sleep(0.02)
            self.left = 0
            self._over.clear()

    async def _read(self) -> object:
        try:
            return await super()._read()
        except asyncio.CancelledError:
            if self.left:
                return None
            raise

    async def _on_deliver(self, header: Header) -> None:
        number = int(header.group_id)
        if number <= len(STAGES):
            stage = read_stage((await self._read_message(header)).content)
            if stage is STAGES[number - 1]:
                self.stages.append(stage)
                self.left = number
                self._call.cancel()
                return
        await super()._on_deliver(header)


def forged_weight(stage: Stage | None, content: RecordDict) -> RecordDict:
    if stage is Stage.VECTOR:
        words = unpack(content.array_records[MASKED][VECTOR]).copy()
        words[-1:] += np.uint32(2**31)
        content[MASKED] = ArrayRecord({VECTOR: pack(words)})
    return content


@dataclass(frozen=True)
class Outcome:
    """What is left of the run."""

    models: list[np.ndarray]
    left: list[Stage]
    memory: dict[str, bytes]
    files: bytes


@pytest.fixture(scope="module")
def own() -> dict[str, object]:
    return runpy.run_path(str(APP / "losing" / "client_app.py"))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, own: dict[str, object]) -> Iterator[Outcome]:
    place = tmp_path_factory.mktemp("losses")
    work, told = place / "work", place / "plan.toml"
    work.mkdir()
    plan = PLAN.format(plan=told, work=work)
    told.write_text(plan, "utf-8")

    def answer(message: Message, _context: Context) -> Message:
        return own["answer"](message, LEAVER)  # type: ignore[operator,no-any-return]

    with LoopbackFederation(
        place / "federation", apps={"losing": APP}, forked=True, forked_runs=False
    ) as federation:
        federation.add_nodes(4)
        joined = federation.join("leaver", "schema = 1\n")
        trusted = dict(federation.publish_roster().keys)
        lies = {FORGED: forged_weight}
        with Leaver(
            joined.directory, nobody, {}, None, plan=plan, app=answer, lies=lies, trusted=trusted,
            work=work,
        ) as leaver:  # fmt: skip
            run_id = federation.submit(plan)
            last = work / f"{ROUNDS}.done"
            watched = [federation.coordinator]
            wait_until(
                lambda: last.exists() or leaver.errors or federation.show_run(run_id).run.state == "failed",
                SECONDS, "the rounds to end", watched, step=0.1,
            )  # fmt: skip
            assert leaver.errors == []
            memory = {f"{pid}": read_memory(pid) for pid in federation.coordinator.family()}
            (work / "end").touch()
            federation.wait_for_run(run_id, SECONDS)
        assert leaver.errors == []
        files = b"".join(
            path.read_bytes()
            for path in sorted(federation.layout.directory.rglob("*"))
            if path.is_file()
        )
        models = [np.load(work / f"{number}.npy") for number in range(1, ROUNDS + 1)]
        yield Outcome(models, leaver.stages, memory, files)


def read_memory(pid: int) -> bytes:
    """Returns all that a process can write to: heaps, stacks, buffers."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            matched = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if not matched:
                continue
            start, end = (int(each, 16) for each in matched.groups())
            try:
                memory.seek(start)
                found.append(memory.read(end - start))
            except (OSError, OverflowError):  # a page that the kernel keeps to itself
                continue
    return b"".join(found)


def moved(own: dict[str, object], *, all_five: bool) -> np.ndarray:
    """By how much a sum moves the model: the mean, weighted by what counts of each claim."""
    parts = range(5 if all_five else 4)
    update_of = own["update_of"]
    total = sum(COUNTED[part] * update_of(part).astype(np.float64) for part in parts)  # type: ignore[operator]
    return np.asarray(total / sum(COUNTED[part] for part in parts))


def test_a_node_is_lost_at_every_stage_and_the_sum_is_that_of_the_others(
    outcome: Outcome, own: dict[str, object]
) -> None:
    assert outcome.left == list(STAGES)
    before = np.zeros_like(outcome.models[0])
    for stage, model in zip(STAGES, outcome.models, strict=False):
        expected = moved(own, all_five=stage in IN_THE_SUM)
        np.testing.assert_allclose(model - before, expected, atol=STEPS, err_msg=str(stage))
        before = model


def test_a_huge_claim_counts_as_the_largest_weight(
    outcome: Outcome, own: dict[str, object]
) -> None:
    """Node 0 claims 10^12 examples in every round; as such, the mean would be its own update."""
    first = own["update_of"](0)  # type: ignore[operator]
    assert np.abs(outcome.models[0] - first).max() > 0.5


def test_a_forged_weight_costs_an_attempt_and_not_the_sum(
    outcome: Outcome, own: dict[str, object]
) -> None:
    step = outcome.models[-1] - outcome.models[-2]
    np.testing.assert_allclose(step, moved(own, all_five=True), atol=STEPS)


def test_no_byte_that_the_coordinator_holds_is_of_one_node(
    outcome: Outcome, own: dict[str, object]
) -> None:
    """The last round's are the freshest; what it may hold, the model, is found by the same look."""
    kept, last = outcome.models[-1], outcome.models[-2]
    assert any(kept[:8].tobytes() in memory for memory in outcome.memory.values())
    for part in range(5):
        trained = last + own["update_of"](part)  # type: ignore[operator]
        secrets = {
            "model": trained[:8].tobytes(),
            "update": (trained - last)[:8].tobytes(),
            "loss": struct.pack("<d", own["loss_of"](part)),  # type: ignore[operator]
        }
        for name, secret in secrets.items():
            where = [pid for pid, memory in outcome.memory.items() if secret in memory]
            assert not where, f"{name} of node {part}"
            assert secret not in outcome.files, f"{name} of node {part}"
