"""Following a run over cuts: no event twice, none lost, and an end where there is one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from fedsec.errors import FedsecError, IdentityError, PolicyRefusal
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.progress import news
from fedsec_server.commands.reach import Reach
from fedsec_server.layout import Layout, NotRunningError
from tests.server.eventrig import event, of, run_of


@dataclass
class FakeWay:
    """Streams what a test lays down; an error ends a stream in its place."""

    streams: Iterator[list[pb.RunEvent | FedsecError]]
    layout: Layout | None = None
    asked: int = 0
    pauses: list[float] = field(default_factory=list)

    async def stream(
        self, method: str, request: pb.WatchRunRequest, kind: type[pb.RunEvent]
    ) -> AsyncIterator[pb.RunEvent]:
        self.asked += 1
        for item in next(self.streams):
            if isinstance(item, FedsecError):
                raise item
            yield item

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def followed(way: FakeWay) -> list[int | str]:
    """Returns sequence numbers of events and states of the run, as they come."""

    async def main() -> list[int | str]:
        return [
            item.event.sequence if item.WhichOneof("kind") == "event" else item.run.state
            async for item in news(cast("Reach", way), 7, pause=way.pause)
        ]

    return asyncio.run(main())


def way_of(*streams: list[pb.RunEvent | FedsecError], local: bool = False) -> FakeWay:
    return FakeWay(iter(streams), Layout(Path("x")) if local else None)


EXPIRED = IdentityError("expired", "over")
GONE = NotRunningError("gone")
FIRST: list[pb.RunEvent | FedsecError] = [of(run_of("running")), of(event(1)), of(event(2))]


@pytest.mark.parametrize("error", [EXPIRED, GONE])
def test_events_come_once_over_a_cut(error: FedsecError) -> None:
    rest = [*FIRST, of(event(3)), of(run_of("finished"))]
    way = way_of([*FIRST, error], [error], rest, local=True)
    assert followed(way) == ["running", 1, 2, "running", 3, "finished"]
    assert way.pauses == [1.0, 1.0]


def test_an_expired_file_is_told_at_once() -> None:
    with pytest.raises(IdentityError, match="expired"):
        followed(way_of([*FIRST, EXPIRED]))


def test_a_coordinator_that_never_answered_is_told_at_once() -> None:
    way = way_of([GONE], local=True)
    with pytest.raises(NotRunningError):
        followed(way)
    assert way.asked == 1


def test_a_coordinator_that_stays_away_is_given_up() -> None:
    gone: list[pb.RunEvent | FedsecError] = [GONE]
    way = way_of([*FIRST, GONE], *([gone] * 100), local=True)
    with pytest.raises(NotRunningError):
        followed(way)
    assert 10 < way.asked < 60


@pytest.mark.parametrize("error", [PolicyRefusal("not yours"), IdentityError("revoked", "you")])
def test_a_refusal_is_final(error: FedsecError) -> None:
    with pytest.raises(type(error)):
        followed(way_of([*FIRST, error], local=True))


def test_the_types_of_the_fake_are_those_of_the_real_one() -> None:
    """A fake that drifts away proves nothing."""
    real: Callable[..., object] = Reach.stream
    names = real.__code__.co_varnames[: real.__code__.co_argcount]
    fake = FakeWay.stream.__code__
    assert names == fake.co_varnames[: fake.co_argcount]
