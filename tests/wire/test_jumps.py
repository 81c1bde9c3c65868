"""One timer notices that the clock was set; it stops when nobody waits."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from fedsec.wire import jumps
from tests.wire.gated import run, until

START = datetime(2026, 1, 1, tzinfo=UTC)


class Rig:
    """A clock that runs with the loop, is set by `moved`, and counts who was told."""

    def __init__(self) -> None:
        self.moved = timedelta(0)
        self.looks = self.told = 0
        self.wanted = True
        self.jumps = jumps.Jumps(self._clock, self._tell, lambda: self.wanted)

    def _clock(self) -> datetime:
        self.looks += 1
        return START + timedelta(seconds=asyncio.get_running_loop().time()) + self.moved

    def _tell(self) -> None:
        self.told += 1

    async def look(self) -> None:
        seen = self.looks
        await until(lambda: self.looks >= seen + 2)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jumps, "LOOK_S", 0.001)


@pytest.mark.parametrize("seconds", [3600, -3600, 1.1])
def test_a_jump_is_told_once_either_way(seconds: float) -> None:
    async def main() -> None:
        rig = Rig()
        rig.jumps.watch()
        await rig.look()
        assert rig.told == 0
        rig.moved = timedelta(seconds=seconds)
        await rig.look()
        await rig.look()
        assert rig.told == 1

    run(main())


def test_a_slow_drift_adds_up_until_it_is_told() -> None:
    async def main() -> None:
        rig = Rig()
        rig.jumps.watch()
        for step in range(1, 6):
            rig.moved = timedelta(seconds=0.24 * step)
            await rig.look()
            assert rig.told == (step == 5)

    run(main())


def test_it_stops_when_nobody_waits_and_begins_again() -> None:
    async def main() -> None:
        rig = Rig()
        rig.jumps.watch()
        rig.wanted = False
        await until(lambda: rig.jumps._timer is None)
        looks, rig.wanted = rig.looks, True
        rig.jumps.watch()
        rig.jumps.watch()
        assert rig.looks == looks + 1, "one timer, however many watch"
        await rig.look()

    run(main())
