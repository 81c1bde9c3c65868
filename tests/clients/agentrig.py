"""An agent on loopback beside a coordinator of the test's, and an app that adds one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fedsec.wire.generated.message_pb2 import Header
from fedsec_client import agent as module
from fedsec_client.agent import Agent, ExitCode
from fedsec_client.backoff import Backoff
from fedsec_client.enrolment import Enrolment
from fedsec_client.settings import NodeSettings
from tests.clients.coordinator import RUN_ID, FakeCoordinator, Session, make_node
from tests.clients.orders import PLAN, SETTINGS, order, read
from tests.pki import Leaf

QUICK = Backoff(first=0.05, cap=0.2)


def run(main: Coroutine[Any, Any, None], seconds: float = 60.0) -> None:
    asyncio.run(asyncio.wait_for(main, seconds))


@asynccontextmanager
async def node(
    directory: Path,
    fake: FakeCoordinator,
    *,
    leaf: Leaf | None = None,
    settings: str = SETTINGS,
    clock: Callable[[], datetime] = module.utc_now,
    enrolment: Enrolment | None = None,
) -> AsyncIterator["asyncio.Task[ExitCode]"]:
    """Runs an agent; stops it at the end, which must be clean unless it ended before."""
    if enrolment is None:
        enrolment = make_node(directory, fake.pki, fake.fleet, leaf=leaf, settings=settings)
    agent = Agent(enrolment, NodeSettings.load(directory), clock=clock, backoff=QUICK)
    task = asyncio.create_task(agent.run())
    try:
        yield task
        if not task.done():
            agent.stop()
            assert await asyncio.wait_for(task, 60) is ExitCode.CLEAN
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ended(task: "asyncio.Task[ExitCode]") -> ExitCode:
    return await asyncio.wait_for(asyncio.shield(task), 60)


async def ready(fake: FakeCoordinator, run_id: int = RUN_ID) -> Session:
    session = await fake.session()
    session.offer(run_id, PLAN)
    assert await fake.run_answer() == (run_id, True, "")
    return session


async def add_one(fake: FakeCoordinator, session: Session, run_id: int = RUN_ID) -> dict[str, Any]:
    """Has the app add one to a vector; returns what it counted and its process id."""
    message = order("add_one", arrays=[np.zeros(4, np.float32)], run_id=run_id)
    session.push(*message)
    return dict(metrics_of(fake, await reply_to(message[0], fake)))


async def reply_to(sent: Header, fake: FakeCoordinator) -> Header:
    """The reply to this order. One to an earlier order, which the end of its session overtook
    before the node knew it was received, is sent again and may come first."""
    while (reply := await fake.reply()).reply_to != sent.message_id:
        pass
    return reply


def metrics_of(fake: FakeCoordinator, reply: Header) -> dict[str, Any]:
    assert not reply.HasField("failure"), reply.failure.reason
    message = read(reply, fake.stored.get(reply.reply_to))
    (got,) = message.content.array_records["arrays"].to_numpy_ndarrays()
    assert got.tolist() == [1.0] * 4
    return dict(message.content.metric_records["metrics"])
