"""Runs in real processes: they finish, fail, crash, hang, are stopped and queued."""

from pathlib import Path

import pytest

from fedsec.errors import ConfigError, StateError
from fedsec_server import runner
from fedsec_server.state.values import RunState
from tests.server.runrig import ANN, coordinator, echo, plan, processes_of, spoil
from tests.wire.gated import run, until


def test_a_run_finishes(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            nodes = [rig.node(11), rig.node(12)]
            run_id = await rig.runs.submit(plan(nodes=2, rounds=2), ANN)
            record = await rig.until(run_id)
            assert (record.state, record.reason) == (RunState.FINISHED, "")
            assert (record.name, record.submitted_by) == ("tiny echo", ANN)
            log = rig.log(run_id)
            for server_round in (0, 1):
                for node in (11, 12):
                    assert f"round {server_round} node {node} right True" in log
            assert rig.kinds(run_id) == ["run-submitted", "run-started", "run-finished"]
            assert nodes[0].kinds()[0] == "run_offer"
            assert nodes[0].frames[-1].run_end.reason == "the run has finished"
            await until(lambda: rig.runs.active == 0)
            assert len(rig.exchange._contents) == 0
            directory = rig.layout.run(run_id)
            assert (directory / "plan.toml").read_text() == record.plan
            assert oct(directory.stat().st_mode & 0o777) == "0o700"
            assert oct((directory / "run.log").stat().st_mode & 0o777) == "0o600"

    run(main(), 60)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (
            "crash",
            "the run's process was killed by SIGSEGV; the last line of its log: about to crash",
        ),
        (
            "orphan",
            "the run's process was killed by SIGKILL; the last line of its log: mode orphan",
        ),
        ("raise", "the app raised ValueError: no such luck"),
        ("exit", "the app ended itself with status 3"),
    ],
)
def test_a_failing_app_fails_its_run_alone(tmp_path: Path, mode: str, reason: str) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            rig.node(11)
            failing, good = [await rig.runs.submit(plan(each), ANN) for each in (mode, "echo")]
            record = await rig.until(failing)
            assert (record.state, record.reason) == (RunState.FAILED, reason)
            assert (await rig.until(good)).state is RunState.FINISHED

    run(main(), 60)


def test_an_app_may_end_by_leaving(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            rig.node(11)
            run_id = await rig.runs.submit(plan("leave"), ANN)
            assert (await rig.until(run_id)).state is RunState.FINISHED

    run(main(), 60)


def test_a_process_that_has_finished_is_not_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            rig.node(11)
            run_id = await rig.runs.submit(plan("linger"), ANN)
            assert (await rig.until(run_id)).state is RunState.FINISHED
            assert processes_of(rig) == []

    run(main(), 60)


def test_too_few_nodes_fail_the_run_and_the_reason_names_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            rig.node(11)
            rig.node(12, refusal="the app 'tiny' is not allowed")
            run_id = await rig.runs.submit(plan(nodes=3, wait_s=0.5), ANN)
            record = await rig.until(run_id)
            assert record.state is RunState.FAILED
            assert record.reason == (
                "only 1 of 3 nodes were ready after 0.5 s; node-12 refused: the app 'tiny' is not "
                "allowed; 1 more must connect, or nodes.min_available be lower"
            )
            assert "run-started" not in rig.kinds(run_id)

    run(main(), 60)


def test_content_that_is_not_what_it_claims_becomes_an_error_reply(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            rig.node(11, spoil)
            rig.node(12, echo)
            run_id = await rig.runs.submit(plan(nodes=2), ANN)
            assert (await rig.until(run_id)).state is RunState.FINISHED
            log = rig.log(run_id)
            assert "node 11 error 4 the reply of node-11 was refused: chunk 0 of 1" in log
            assert "node 12 right True" in log
            (event,) = [e for e in rig.store.events(run_id=run_id) if e.kind == "reply-refused"]
            assert (event.detail["node"], event.detail["code"]) == ("node-11", "bad-hash")

    run(main(), 60)


def test_a_lost_and_a_silent_node_become_error_replies(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            rig.node(11, lambda node, _: node.leave())
            rig.node(12, None)
            rig.node(13, echo)
            run_id = await rig.runs.submit(plan(nodes=3, timeout=0.6), ANN)
            assert (await rig.until(run_id)).state is RunState.FINISHED
            log = rig.log(run_id)
            assert "node 11 error 5 node node-11 was lost, and is not back within 0.2 s" in log
            assert "node 12 error 4 node node-12 did not answer by the deadline" in log
            assert "node 13 right True" in log

    run(main(), 60)


def test_several_runs_at_a_time_do_not_mix(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            rig.node(11)
            rig.node(12)
            ids = [await rig.runs.submit(plan(nodes=2, rounds=3), ANN) for _ in range(3)]
            for run_id in ids:
                assert (await rig.until(run_id)).state is RunState.FINISHED
                assert rig.log(run_id).count("right True") == 6

    run(main(), 60)


def test_a_message_that_is_too_large_becomes_an_error_reply(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path, max_content=100_000) as rig:
            rig.node(11)
            run_id = await rig.runs.submit(plan(), ANN)
            assert (await rig.until(run_id)).state is RunState.FINISHED
            sentence = "node 11 error 3 the message could not be sent: too-large: content of 800000"
            assert sentence in rig.log(run_id)

    run(main(), 60)


def test_a_process_that_breaks_the_protocol_fails_its_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            rig.node(11)
            run_id = await rig.runs.submit(plan("garbage"), ANN)
            record = await rig.until(run_id)
            assert record.state is RunState.FAILED
            assert record.reason.startswith("the run's process broke the protocol: ")
            assert processes_of(rig) == []

    run(main(), 60)


def test_what_an_app_reports_is_recorded_but_for_what_is_not_its_business(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            rig.node(11)
            run_id = await rig.runs.submit(plan("forge"), ANN)
            with pytest.raises(StateError, match="has stored no model"):
                await rig.runs.model_path(run_id)
            assert (await rig.until(run_id)).round == 7
            assert rig.kinds(run_id) == [
                *("run-submitted", "run-started", "note", "round", "model", "model"),
                "run-finished",
            ]
            assert rig.store.events(run_id=run_id)[-1].detail["reason"] == ""
            model = rig.layout.run(run_id) / "models" / "7.safetensors"
            model.write_bytes(b"weights")
            for number in (0, 7):
                assert await rig.runs.model_path(run_id, number) == model
            with pytest.raises(StateError, match="no model of round 8"):  # not in its directory
                await rig.runs.model_path(run_id, 8)

    run(main(), 60)


def test_a_process_that_cannot_be_started_fails_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "PROGRAM", (str(tmp_path / "no-python"),))

    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            record = await rig.until(await rig.runs.submit(plan(), ANN))
            assert record.state is RunState.FAILED
            assert record.reason.startswith("the run's process cannot be started: ")

    run(main(), 60)


TRUSTING = """
schema = 1
name = "trusts the coordinator's own data"
[task]
name = "digits"
[training]
rounds = 1
[robust]
rule = "fltrust"
byzantine = 1
root = "clean"
"""


def test_a_plan_that_cannot_run_here_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            with pytest.raises(ConfigError, match="'other' is not installed on this coordinator"):
                await rig.runs.submit(plan().replace('"tiny"', '"other"', 1), ANN)
            with pytest.raises(ConfigError):
                await rig.runs.submit("schema = 2", ANN)
            with pytest.raises(
                ConfigError, match=r"no data 'clean'; it has: none\. An operator adds"
            ):
                await rig.runs.submit(TRUSTING, ANN)
            assert rig.store.runs() == []
            run_id = await rig.runs.submit(plan(colour='"red"'), ANN)
            record = await rig.until(run_id)
            assert record.state is RunState.FAILED
            assert "colour" in record.reason

    run(main(), 60)
