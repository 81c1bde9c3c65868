"""The whole agent against a coordinator that restarts, revokes, replaces and renews. Real workers."""

import asyncio
import os
import re
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fedsec.wire.generated.message_pb2 import Header
from fedsec_client import agent as module
from fedsec_client.agent import Agent, ExitCode
from fedsec_client.enrolment import Enrolment
from fedsec_client.settings import NodeSettings
from tests.clients.agentrig import QUICK, add_one, ended, metrics_of, node, ready, run
from tests.clients.coordinator import RUN_ID, FakeCoordinator, make_node
from tests.clients.orders import PLAN, SETTINGS, order
from tests.clients.waiting import is_alive, until
from tests.pki import HOUR, Leaf, Pki, forge, forge_server, make_pki, node_uri

# --- runs ---------------------------------------------------------------------------------------


def test_a_run_from_the_offer_to_its_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake, node(tmp_path / "node", fake):
            session = await ready(fake)
            first = await add_one(fake, session)
            second = await add_one(fake, session)
            assert (first["count"], second["count"]) == (1, 2)
            assert first["pid"] == second["pid"]
            session.end_run(RUN_ID)
            await until(lambda: not is_alive(first["pid"]))
            session.push(*order("add_one"))
            reply = await fake.reply()
            assert reply.failure.reason == "the node does not take part in the run"
            state = tmp_path / "node" / "runs" / str(RUN_ID) / "state"
            await until(lambda: not state.exists())

    run(main())


def test_runs_go_on_beside_each_other_up_to_the_limit(tmp_path: Path) -> None:
    settings = SETTINGS + "\n[limits]\nmax_runs = 2\n"

    async def main() -> None:
        async with FakeCoordinator() as fake, node(tmp_path / "node", fake, settings=settings):
            session = await ready(fake, 1)
            session.offer(2, PLAN)
            assert await fake.run_answer() == (2, True, "")
            session.offer(3, PLAN)
            run_id, accepted, reason = await fake.run_answer()
            assert (run_id, accepted) == (3, False)
            assert reason == "this node takes part in 2 runs already, which is its limits.max_runs"
            session.push(*order("hang", run_id=1))
            pids = {(await add_one(fake, session, 2))["pid"] for _ in range(2)}
            assert len(pids) == 1  # the run that hangs holds nobody up
            session.end_run(1)
            session.offer(3, PLAN)
            assert await fake.run_answer() == (3, True, "")

    run(main())


def test_a_plan_that_is_not_allowed_is_refused_with_the_reason(tmp_path: Path) -> None:
    async def main() -> None:
        settings = "schema = 1"
        async with FakeCoordinator() as fake, node(tmp_path / "node", fake, settings=settings):
            session = await fake.session()
            session.offer(RUN_ID, PLAN)
            session.offer(12, "schema = ")
            first, second = await fake.run_answer(), await fake.run_answer()
        reason = 'the app "scripted" is not in this node\'s policy.allowed_apps'
        assert first == (RUN_ID, False, reason)
        assert second[:2] == (12, False)
        assert "cannot read the plan" in second[2]

    run(main())


def test_a_run_is_not_offered_twice_with_different_plans(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake, node(tmp_path / "node", fake):
            session = await ready(fake)
            session.offer(RUN_ID, PLAN + "# another\n")
            reason = "this node knows the run with another plan"
            assert await fake.run_answer() == (RUN_ID, False, reason)
            assert (await add_one(fake, session))["count"] == 1

    run(main())


# --- connections --------------------------------------------------------------------------------


def test_it_comes_back_after_a_restart_of_the_coordinator_with_its_worker(tmp_path: Path) -> None:
    async def main() -> None:
        pki = make_pki()
        async with FakeCoordinator(pki) as fake:
            port = fake.port
            async with node(tmp_path / "node", fake):
                before = await add_one(fake, await ready(fake))
                await fake.stop()
                await asyncio.sleep(0.3)  # some attempts fail meanwhile
                async with FakeCoordinator(pki, port=port) as again:
                    after = await add_one(again, await ready(again))
                    assert after == {"count": 2, "pid": before["pid"]}

    run(main())


def test_a_run_that_is_not_offered_again_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OFFERS_S", 0.3)

    async def main() -> None:
        async with FakeCoordinator() as fake, node(tmp_path / "node", fake):
            session = await ready(fake)
            pid = (await add_one(fake, session))["pid"]
            session.hang_up()
            await fake.session()
            await until(lambda: not is_alive(pid))

    run(main())


def test_a_revoked_node_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake, node(tmp_path / "node", fake) as task:
            await fake.session()
            enrolment = Enrolment.load(tmp_path / "node")
            fake.denylist.deny_identity(enrolment.principal.spiffe_id)
            assert await ended(task) is ExitCode.REVOKED

    run(main())
    assert "the federation does not accept this node any more" in caplog.text


def test_a_version_that_is_not_spoken_ends_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake:
            fake.refuse_next = ("version", "the coordinator speaks 2.0, the node 1.0")
            async with node(tmp_path / "node", fake) as task:
                assert await ended(task) is ExitCode.VERSION

    run(main())
    assert "the coordinator speaks 2.0, the node 1.0" in caplog.text


def test_a_copy_of_the_identity_ends_it_after_some_attempts(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake, node(tmp_path / "node", fake) as task:
            for _ in range(module.MAX_REPLACED):
                assert not task.done()
                session = await fake.session()
                session.refuse("replaced", "a newer session has taken over")
            assert await ended(task) is ExitCode.REPLACED

    run(main())


def test_a_certificate_that_is_over_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        pki = make_pki(now=datetime.now(UTC) - 20 * HOUR)
        server = forge_server(pki, not_after=datetime.now(UTC) + HOUR)
        async with (
            FakeCoordinator(pki, server=server) as fake,
            node(tmp_path / "node", fake, leaf=pki.node()) as task,
        ):
            assert await ended(task) is ExitCode.EXPIRED

    run(main())


def test_a_clock_that_is_wrong_for_a_while_does_not_end_it(tmp_path: Path) -> None:
    """By it the certificate is over, yet nobody listens who could say so."""

    async def main() -> None:
        ahead = [timedelta(hours=10)]
        async with FakeCoordinator() as fake:
            fleet, port = fake.fleet, fake.port
            await fake.stop()
            assert fleet.endswith(str(port))
            fake._listeners = []
            enrolment = make_node(tmp_path / "node", fake.pki, fleet)
            settings = NodeSettings.load(tmp_path / "node")

            def clock() -> datetime:
                return datetime.now(UTC) + ahead[0]

            agent = Agent(enrolment, settings, clock=clock, backoff=QUICK)
            task = asyncio.create_task(agent.run())
            await asyncio.sleep(0.5)
            assert not task.done()
            ahead[0] = timedelta()
            async with FakeCoordinator(fake.pki, port=port) as again:
                await again.session()
                agent.stop()
                assert await ended(task) is ExitCode.CLEAN

    run(main())


@pytest.mark.parametrize(
    ("server", "cause"),
    [
        (
            lambda pki: pki.server(hosts=["fed.example"]),
            "wrong-host: .* is for fed.example, not for localhost",
        ),
        (lambda _pki: make_pki().server(), "wrong-ca: .* is not certified by this federation"),
    ],
    ids=["another host", "another federation"],
)
def test_the_cause_is_logged_when_it_cannot_connect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, server: Callable[[Pki], Leaf], cause: str
) -> None:
    async def main() -> None:
        pki = make_pki()
        other = FakeCoordinator(pki, server=server(pki))
        async with other as fake, node(tmp_path / "node", fake):
            await until(lambda: "the cause:" in caplog.text)

    run(main())
    assert re.search(f"the cause: {cause}", caplog.text)


def test_told_to_end_it_hands_its_replies_in_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake:
            fake.auto_ack = False
            async with node(tmp_path / "node", fake) as task:
                session = await ready(fake)
                message = order("add_one", arrays=[np.zeros(4, np.float32)])
                session.push(*message)
                pid = metrics_of(fake, await fake.reply())["pid"]
                loop = asyncio.get_running_loop()
                loop.call_later(0.3, session.ack, message[0].message_id)
                began = loop.time()
                os.kill(os.getpid(), signal.SIGTERM)
                assert await ended(task) is ExitCode.CLEAN
                assert loop.time() - began >= 0.3
                assert not is_alive(pid)
                await asyncio.wait_for(session.ended.wait(), 60)
            assert (tmp_path / "node" / "runs" / str(RUN_ID) / "state" / "context").exists()

    run(main())


# --- the certificate ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_certificate_renews_itself_again_and_again_during_work(tmp_path: Path) -> None:
    """Lifetimes of seconds: every connection is replaced, and no message is lost or done twice."""
    lifetime = timedelta(seconds=8)  # half of it is left for a renewal on a busy machine

    async def main() -> None:
        pki = make_pki()
        async with FakeCoordinator(pki, lifetime=lifetime) as fake:
            fake.replace_after_s = 2.0
            leaf = short_lived(pki, lifetime)
            async with node(tmp_path / "node", fake, leaf=leaf):
                session = await ready(fake)
                first, serials = session, [session.serial]
                counts = []
                while len(serials) < 4:
                    message = order("add_one", arrays=[np.zeros(4, np.float32)])
                    session.push(*message)
                    replies: list[Header] = []
                    while not replies:
                        await asyncio.sleep(0.01)
                        if not fake._sessions.empty():
                            session = await ready(fake)
                            serials.append(session.serial)
                            held = message[0].message_id in session.hello.held
                            if fake.replies.empty() and not held:
                                session.push(*message)  # as the coordinator does
                        while not fake.replies.empty():
                            reply = await fake.reply()
                            # one that crossed a change of sessions comes twice, as it was
                            if reply.reply_to == message[0].message_id:
                                replies.append(reply)
                    counts.append(metrics_of(fake, replies[0])["count"])
                assert first.ended.is_set()
                assert len(set(serials)) == len(serials)
                assert fake.renewals >= 3
                assert counts == list(range(1, len(counts) + 1))
                assert fake.refusals == []
            stored = Enrolment.load(tmp_path / "node")
            assert stored.principal.serial == serials[-1]
            assert stored.principal.spiffe_id == leaf.spiffe_id

    run(main())


def short_lived(pki: Pki, lifetime: timedelta) -> Leaf:
    """Returns a node's certificate that has just been issued, with little backdating."""
    now = datetime.now(UTC)
    return forge(pki.nodes, [node_uri()], now=now, not_before=now, not_after=now + lifetime)
