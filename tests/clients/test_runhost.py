"""A run's worker, for real: good answers, every kind of bad end, and a fresh worker after it."""

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsec.errors import PolicyRefusal
from fedsec.wire.blobs import Blob
from fedsec.wire.generated.fleet_pb2 import RunOffer
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import ErrorCode
from fedsec_client.runhost import Reply, RunHost
from fedsec_client.settings import NodeSettings
from tests.clients.coordinator import NODE_ID, RUN_ID
from tests.clients.orders import PLAN, SETTINGS, order, read
from tests.clients.waiting import is_alive

RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
CRASHED = ErrorCode.CLIENT_APP_CRASHED
SECONDS = 60.0


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, SECONDS))


@asynccontextmanager
async def hosted(
    directory: Path, *, limits: str = "", plan: str = PLAN, settings: str = SETTINGS
) -> AsyncIterator[RunHost]:
    parsed = NodeSettings.parse(f"{settings}\n[limits]\n{limits}")
    host = RunHost(RunOffer(run_id=RUN_ID, plan=plan), NODE_ID, directory, parsed)
    try:
        await host.open()
        yield host
    finally:
        await host.close("the test is over")


async def room() -> None:
    """There is always room."""


async def ask(host: RunHost, message: tuple[Header, Blob | None], seconds: float = 60.0) -> Reply:
    return await host.execute(*message, due=time.monotonic() + seconds, room=room)


async def count(host: RunHost) -> tuple[int, int]:
    """Has the app count; returns how often it did, by its state, and its process id."""
    reply = await ask(host, order("add_one", arrays=[np.zeros(3, np.float32)]))
    assert not reply.header.HasField("failure"), reply.header.failure.reason
    metrics = read(reply.header, reply.content).content.metric_records["metrics"]
    return int(metrics["count"]), int(metrics["pid"])  # type: ignore[arg-type]


def test_the_app_answers_and_stays_warm(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path) as host:
            sent = np.arange(1_000_000, dtype=np.float32)
            reply = await ask(host, order("add_one", arrays=[sent]))
            answer = read(reply.header, reply.content)
            (got,) = answer.content.array_records["arrays"].to_numpy_ndarrays()
            np.testing.assert_array_equal(got, sent + 1)
            first = answer.content.metric_records["metrics"]["pid"]
            assert await count(host) == (2, first)

    run(main())


def test_what_a_worker_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory, few variables, limits, a session of its own, configuration of both sides."""
    monkeypatch.setenv("DATABASE_PASSWORD", "4711")
    monkeypatch.setenv("SEEN_BY_APPS", "1")
    limits = 'memory_mb = 3000\nthreads = 3\nenvironment = ["SEEN_BY_APPS"]'
    plan = PLAN.replace("[nodes]", "[app.config]\nrate = 1\n[nodes]")

    async def main() -> None:
        async with hosted(tmp_path, limits=limits, plan=plan) as host:
            reply = await ask(host, order("look_around"))
            seen = read(reply.header, reply.content).content.config_records["seen"]
        assert seen["cwd"] == str(tmp_path / "runs" / str(RUN_ID))
        names = set(seen["environment"])  # type: ignore[arg-type]
        assert "SEEN_BY_APPS" in names
        assert "DATABASE_PASSWORD" not in names
        assert (seen["threads"], seen["core"], seen["data"]) == ("3", 0, 3000 << 20)
        assert seen["leads"] is True
        assert seen["run_config"] == ["rate=1.0"]
        assert seen["node_config"] == ["site=clinic"]
        assert seen["ids"] == [RUN_ID, NODE_ID]

    run(main())


BAD = [
    ("fail", RAISED, r"the app failed: ValueError: bad\\x1b\[2J batch x.*\(scripted.py:\d+\)"),
    ("leave_politely", RAISED, "the app failed: SystemExit: no more"),
    ("nothing", RAISED, "the app failed: it returned NoneType where a Message is due"),
    ("somebody_elses", RAISED, "does not answer the one it was given"),
    ("unencodable", RAISED, "the app failed: its reply cannot be sent: record 'a'"),
    ("bad_state", RAISED, "the app failed: its context.state cannot be kept"),
    ("leave", CRASHED, "the worker ended with exit code 3; see its worker.log"),
    ("unheard_of", RAISED, "KeyError: 'unheard_of'"),
]


@pytest.mark.slow
def test_whatever_the_app_does_it_is_answered_for_and_gets_a_fresh_worker(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path) as host:
            counted, pid = await count(host)
            for what, code, reason in BAD:
                message = order(what)
                reply = await ask(host, message)
                assert reply.content is None
                assert reply.header.reply_to == message[0].message_id
                failure = reply.header.failure
                assert (what, failure.code) == (what, code)
                assert re.search(reason, failure.reason), failure.reason
                assert len(failure.reason) < 1000
                assert "4711" not in failure.reason  # the exception's cause may show data
                before, (counted_before, counted_pid) = pid, (counted, pid)
                counted, pid = await count(host)
                assert counted == counted_before + 1  # the state is that before the bad message
                assert pid != counted_pid
                assert not is_alive(before)

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_a_killed_worker_is_answered_for(tmp_path: Path, number: signal.Signals) -> None:
    async def main() -> None:
        async with hosted(tmp_path) as host:
            _, before = await count(host)
            reply = await ask(host, order("kill_oneself", signal=int(number)))
            assert reply.header.failure.code == CRASHED
            assert f"the worker was ended by {number.name}" in reply.header.failure.reason
            assert (await count(host))[0] == 2
            assert not is_alive(before)

    run(main())


@pytest.mark.slow
def test_a_hanging_app_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path, limits="task_s = 2.0") as host:
            _, before = await count(host)
            began = time.monotonic()
            reply = await ask(host, order("beget"))
            assert 2.0 <= time.monotonic() - began < 10.0
            assert reply.header.failure.code == CRASHED
            assert "did not answer within 2 s" in reply.header.failure.reason
            child = int((tmp_path / "runs" / str(RUN_ID) / "child.pid").read_text())
            assert (await count(host))[0] == 2
            assert not is_alive(before)
            assert not is_alive(child)

    run(main())


@pytest.mark.slow
def test_the_time_to_live_of_a_message_ends_its_work(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path) as host:
            reply = await ask(host, order("hang"), seconds=1.0)
            assert "did not answer within 1 s" in reply.header.failure.reason
            late = await host.execute(*order("add_one"), due=time.monotonic() - 1, room=room)
            assert late.header.failure.code == ErrorCode.REPLY_MESSAGE_UNAVAILABLE
            assert (await count(host))[0] == 1  # what hung has not spoilt the state

    run(main())


@pytest.mark.slow
def test_an_app_gets_no_more_memory_than_the_settings_say(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path, limits="memory_mb = 1500") as host:
            fits = await ask(host, order("eat", bytes=200 << 20))
            assert not fits.header.HasField("failure"), fits.header.failure.reason
            reply = await ask(host, order("eat", bytes=2000 << 20))
            assert reply.header.failure.code == RAISED
            assert "more memory than limits.memory_mb = 1500" in reply.header.failure.reason
            assert (await count(host))[0] == 1

    run(main())


@pytest.mark.slow
def test_the_state_outlives_the_worker_and_the_agent_and_ends_with_the_run(tmp_path: Path) -> None:
    async def main() -> None:
        state = tmp_path / "runs" / str(RUN_ID) / "state" / "context"
        settings = NodeSettings.parse(SETTINGS)
        first = RunHost(RunOffer(run_id=RUN_ID, plan=PLAN), NODE_ID, tmp_path, settings)
        await first.open()
        assert (await count(first))[0] == 1
        await first.close("the agent ends", keep_state=True)
        assert state.stat().st_mode & 0o777 == 0o600
        async with hosted(tmp_path) as second:
            assert (await count(second))[0] == 2
        assert not state.exists()

    run(main())


@pytest.mark.slow
def test_one_message_at_a_time_and_a_cancelled_one_is_stopped(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path) as host:
            _, before = await count(host)
            hanging = asyncio.create_task(ask(host, order("hang")))
            waiting = asyncio.create_task(count(host))
            done, _ = await asyncio.wait({hanging, waiting}, timeout=0.5)
            assert not done
            hanging.cancel()
            counted, pid = await waiting
            assert (counted, pid == before) == (2, False)
            assert hanging.cancelled()
            assert not is_alive(before)

    run(main())


@pytest.mark.slow
def test_what_an_app_prints_is_kept_within_bounds(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path, limits="log_mb = 1") as host:
            for _ in range(2):
                reply = await ask(host, order("chatter", bytes=700 << 10))
                assert not reply.header.HasField("failure"), reply.header.failure.reason
        log = tmp_path / "runs" / str(RUN_ID) / "worker.log"
        former = log.with_name("worker.log.1")
        assert "the last words" in log.read_text()
        assert log.stat().st_size <= 1 << 20
        assert 500 << 10 < former.stat().st_size <= 1 << 20
        assert log.stat().st_mode & 0o777 == 0o600

    run(main())


def refused(tmp_path: Path, **given: str) -> str:
    async def main() -> str:
        with pytest.raises(PolicyRefusal) as caught:
            async with hosted(tmp_path, **given):
                pass
        return str(caught.value)

    return asyncio.run(asyncio.wait_for(main(), SECONDS))


def test_a_plan_that_the_policy_forbids_starts_no_worker(tmp_path: Path) -> None:
    reason = refused(tmp_path, settings="schema = 1")
    assert reason == 'the app "scripted" is not in this node\'s policy.allowed_apps'
    assert not (tmp_path / "runs").exists()


def test_a_plan_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "this node cannot read the plan" in refused(tmp_path, plan="schema = 2")


def test_an_app_that_cannot_be_loaded_is_refused_with_the_reason(tmp_path: Path) -> None:
    settings = """
        schema = 1
        [policy]
        allowed_apps = ["scripted"]
        [apps.scripted]
        client = "no_such_module:app"
    """
    assert "no_such_module" in refused(tmp_path, settings=settings)


def test_a_worker_that_does_not_start_in_time_is_refused(tmp_path: Path) -> None:
    reason = refused(tmp_path, limits="load_s = 0.05")
    assert reason == (
        "its worker does not start: the app was not loaded within limits.load_s = 0.05 s; "
        "see its worker.log on the node"
    )


def test_a_damaged_message_is_answered_and_the_worker_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path) as host:
            _, before = await count(host)
            header, content = order("add_one", arrays=[np.ones(9, np.float32)])
            assert content is not None
            with Blob.write([bytes(len(content.view()))]) as other:
                reply = await ask(host, (header, other))
            assert reply.header.failure.code == ErrorCode.MESSAGE_UNAVAILABLE
            assert "bad-hash" in reply.header.failure.reason
            assert await count(host) == (2, before)

    run(main())
