"""A plan that takes long to read holds up nothing but its own run."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsec.errors import ConfigError, PolicyRefusal
from fedsec.plan import FederationPlan
from fedsec.wire.generated.fleet_pb2 import RunOffer
from fedsec_client.plans import AT_ONCE, read_plan
from fedsec_client.runhost import RunHost
from fedsec_client.settings import NodeSettings
from tests.clients.coordinator import NODE_ID, RUN_ID
from tests.clients.orders import PLAN, SETTINGS
from tests.wire.gated import run, until

PARSE = FederationPlan.parse


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, list[str]]]:
    """Plans are read once this is set; beside it, those of which the reading has begun."""
    gate, begun = threading.Event(), list[str]()

    def parse(text: str) -> FederationPlan:
        begun.append(text)
        gate.wait(30)
        return PARSE(text)

    monkeypatch.setattr(FederationPlan, "parse", parse)
    yield gate, begun
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "plan":
            thread.join(30)


Gate = tuple[threading.Event, list[str]]


def test_a_run_whose_plan_takes_too_long_is_refused_and_the_loop_is_served(
    tmp_path: Path, released: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsec_client.runhost.READ_S", 0.3)
    offer = RunOffer(run_id=RUN_ID, plan=PLAN)
    host = RunHost(offer, NODE_ID, tmp_path, NodeSettings.parse(SETTINGS))

    async def main() -> None:
        opening = asyncio.create_task(host.open())
        await until(lambda: released[1] == [PLAN])  # which the loop is there to see
        with pytest.raises(PolicyRefusal) as caught:
            await opening
        assert str(caught.value) == "this node could not read the plan within 0.3 s"
        await host.close("the test is over")

    run(main())
    assert not (tmp_path / "runs").exists()


def test_plans_wait_for_their_turn(released: Gate) -> None:
    gate, begun = released

    async def main() -> None:
        readings = [asyncio.create_task(read_plan(PLAN, 20)) for _ in range(AT_ONCE + 1)]
        await until(lambda: len(begun) == AT_ONCE)
        with pytest.raises(TimeoutError):
            await read_plan(PLAN, 0.1)
        assert len(begun) == AT_ONCE
        gate.set()
        assert [plan.name for plan in await asyncio.gather(*readings)] == ["scripted"] * 5

    run(main())


def test_one_that_nobody_waits_for_gives_its_turn_back(released: Gate) -> None:
    gate, begun = released

    async def main() -> None:
        for _ in range(AT_ONCE):
            with pytest.raises(TimeoutError):
                await read_plan(PLAN, 0.05)
        gate.set()
        assert (await read_plan(PLAN, 20)).name == "scripted"

    run(main())
    assert len(begun) == AT_ONCE + 1


@pytest.mark.parametrize("text", ["schema = 2", "x = "])
def test_what_is_wrong_with_a_plan_is_raised_where_it_is_awaited(text: str) -> None:
    with pytest.raises(ConfigError, match="the plan"):
        run(read_plan(text, 20))


def test_the_end_of_the_loop_waits_for_no_plan(released: Gate) -> None:
    gate, begun = released

    async def main() -> None:
        reading: asyncio.Task[FederationPlan] = asyncio.create_task(read_plan(PLAN, 20))
        await until(lambda: begun == [PLAN])
        reading.cancel()

    run(main())
    assert not gate.is_set()
