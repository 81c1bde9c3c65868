"""Runs are stopped and queued, and what a restart or a kill of the coordinator makes of them."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedsec.errors import StateError
from fedsec_server.state.values import RunState
from tests.server.runrig import ANN, coordinator, plan, processes_of, until_gone
from tests.wire.gated import run, until


@pytest.mark.parametrize("mode", ["wait", "stubborn"])
def test_a_running_run_is_stopped_with_all_that_it_started(tmp_path: Path, mode: str) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            node = rig.node(11)
            run_id = await rig.runs.submit(plan(mode), ANN)
            await rig.until(run_id, RunState.RUNNING)
            if mode == "stubborn":
                await until(lambda: "child" in rig.log(run_id), 10)
                child = re.search(r"child (\d+)", rig.log(run_id))
            assert len(processes_of(rig)) == 1
            assert await rig.runs.stop(run_id, ANN) is RunState.STOPPED
            assert rig.store.run(run_id).reason == "stopped by operator ann"
            assert node.frames[-1].run_end.reason == "stopped by operator ann"
            assert processes_of(rig) == []
            if mode == "stubborn":
                assert child is not None
                await until_gone(int(child[1]))
            assert await rig.runs.stop(run_id, ANN) is RunState.STOPPED  # once more: as it was

    run(main(), 60)


def test_a_run_is_stopped_at_any_stage(tmp_path: Path) -> None:
    """At once after it was submitted, while it waits for nodes, and while it is queued."""

    async def main() -> None:
        async with coordinator(tmp_path, max_runs=2) as rig:
            ids = [await rig.runs.submit(plan(), ANN) for _ in range(3)]
            assert rig.runs.active == 2
            assert await rig.runs.stop(ids[0], ANN) is RunState.STOPPED
            assert await rig.runs.stop(ids[2], ANN) is RunState.STOPPED
            await until(lambda: bool(processes_of(rig)), 20)
            await asyncio.sleep(1.5)  # its imports are done, it waits for nodes
            assert await rig.runs.stop(ids[1], ANN) is RunState.STOPPED
            with pytest.raises(StateError, match="no run"):
                await rig.runs.stop(1, ANN)
            assert processes_of(rig) == []

    run(main(), 60)


def test_runs_beyond_the_bound_are_queued(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path, max_runs=1) as rig:
            rig.node(11)
            first = await rig.runs.submit(plan("wait"), ANN)
            second = await rig.runs.submit(plan(), ANN)
            await rig.until(first, RunState.RUNNING)
            assert rig.store.run(second).state is RunState.PENDING
            assert rig.runs.active == 1
            await rig.runs.stop(first, ANN)
            assert (await rig.until(second)).state is RunState.FINISHED

    run(main(), 60)


def test_after_a_restart_what_was_running_is_failed_and_what_waited_is_queued(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with coordinator(tmp_path, start=False) as rig:
            ids = [
                rig.store.create_run(
                    name="old",
                    plan=plan(),
                    plan_digest="0" * 64,
                    rounds=0,
                    submitted_by=ANN,
                    now=1.0,
                ).run_id
                for _ in range(2)
            ]
            rig.store.set_run_state(ids[0], RunState.RUNNING, now=2.0)
            rig.layout.run(ids[1]).mkdir(parents=True, mode=0o700)
        async with coordinator(tmp_path) as rig:
            rig.node(11)
            failed = rig.store.run(ids[0])
            assert failed.state is RunState.FAILED
            assert failed.reason == (
                "the coordinator ended while the run was active; submit its plan again"
            )
            assert (await rig.until(ids[1])).state is RunState.FINISHED

    run(main(), 60)


def test_the_end_of_the_coordinator_stops_runs(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            rig.node(11)
            run_id = await rig.runs.submit(plan("wait"), ANN)
            await rig.until(run_id, RunState.RUNNING)
            await rig.runs.close()
            assert processes_of(rig) == []
            assert rig.store.run(run_id).reason == "the coordinator was shut down"
            with pytest.raises(StateError, match="shutting down"):
                await rig.runs.submit(plan(), ANN)

    run(main(), 60)


def test_a_run_process_dies_with_its_coordinator(tmp_path: Path) -> None:
    """The coordinator is killed by SIGKILL, so nothing of it can clean up."""
    script = f"""
import asyncio
from pathlib import Path
from tests.server.runrig import ANN, coordinator, plan
async def main():
    async with coordinator(Path({str(tmp_path)!r})) as rig:
        rig.node(11)
        run_id = await rig.runs.submit(plan("stubborn"), ANN)
        await rig.until(run_id, "running")
        print(run_id, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert process.stdout is not None
        run_id = int(process.stdout.readline())

        async def main() -> None:
            async with coordinator(tmp_path, start=False) as rig:
                (pid,) = processes_of(rig)
                child = re.search(r"child (\d+)", rig.log(run_id))
                process.send_signal(signal.SIGKILL)
                process.wait()
                await until_gone(pid)
                await rig.runs.start()
                assert rig.store.run(run_id).state is RunState.FAILED
                if child:  # the app's own children are the app's; here the test ends this one
                    os.kill(int(child[1]), signal.SIGKILL)

        run(main())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
