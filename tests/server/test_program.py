"""The coordinator as a real process: one per directory, whole runs, signals, kills, restarts."""

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from fedsec.errors import ConfigError, StateError
from fedsec.identity.names import Kind
from fedsec.wire.generated import admin_pb2
from fedsec_server.layout import Layout, Listening
from fedsec_server.program import allow_files, only_one
from fedsec_server.settings import Limits
from fedsec_server.state.store import Store
from fedsec_server.state.values import RunState
from tests.server.commandrig import MAIN
from tests.server.coordinatorrig import EchoNode, Place, Program, make_place
from tests.server.runrig import plan
from tests.wire.gated import run, until

FEDSEC = f"{sys.executable} -c 'from fedsec.cli import main; main()'"


def echo_node(place: Place, name: str) -> EchoNode:
    record, holder = place.enrol(name)
    return EchoNode(record, place.channel("fleet", holder))


async def ended(task: "asyncio.Task[None]") -> None:
    with suppress(asyncio.CancelledError, grpc.aio.AioRpcError, AssertionError):
        await task


def run_processes(parent: int) -> list[int]:
    """Process ids of the run processes of a coordinator."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
def test_a_run_over_real_processes_and_sockets(tmp_path: Path) -> None:
    place = make_place(tmp_path)

    async def main() -> None:
        nodes = [echo_node(place, name) for name in ("north", "south")]
        tasks = [asyncio.create_task(node.work()) for node in nodes]
        run_id = await place.submit(plan(nodes=2, rounds=3))
        record = await place.until(run_id, "finished", "failed")
        assert (record.state, record.reason) == ("finished", "")
        log = (place.layout.run(run_id) / "run.log").read_text()
        assert log.count("right True") == 6
        request = admin_pb2.StatusRequest()
        status = await place.command("Status", request, admin_pb2.StatusReply)
        assert (status.nodes_connected, status.runs_active) == (2, 0)
        program.process.send_signal(signal.SIGTERM)
        for task in tasks:
            async with asyncio.timeout(10):
                await ended(task)
        for node in nodes:
            await node.channel.close()

    with Program(place.layout) as program:
        program.until_listening()
        holder = f"runs already, as process {program.process.pid}$"
        with pytest.raises(StateError, match=holder), only_one(place.layout):
            pass
        run(main(), 60)
        status, output = program.end()
    assert status == 0, output
    assert "Coordinator of fed.example, process" in output
    assert "Traceback" not in output
    assert not place.layout.listening.exists()
    modules = set((place.layout.directory / "modules.txt").read_text().split())
    assert "grpc" in modules
    assert modules.isdisjoint({"torch", "flwr", "opacus", "sklearn"})
    with only_one(place.layout):  # the lock is free again
        pass


@pytest.mark.slow
def test_after_a_kill_a_restart_fails_the_run_and_takes_its_nodes_back(tmp_path: Path) -> None:
    place = make_place(tmp_path)

    async def before() -> int:
        node = echo_node(place, "north")
        task = asyncio.create_task(node.work())
        run_id = await place.submit(plan("wait"))
        await place.until(run_id, "running")
        (process,) = run_processes(program.process.pid)
        program.process.kill()
        await ended(task)
        await node.channel.close()
        await until(lambda: not Path(f"/proc/{process}").exists(), 10)
        return run_id

    async def after(run_id: int) -> None:
        record = await place.until(run_id, "failed")
        assert record.reason == (
            "the coordinator ended while the run was active; submit its plan again"
        )
        node = echo_node(place, "south")
        task = asyncio.create_task(node.work())
        assert (await place.until(await place.submit(plan()), "finished")).reason == ""
        task.cancel()
        await ended(task)
        await node.channel.close()

    with Program(place.layout) as program:
        program.until_listening()
        run_id = run(before(), 60)
    with Program(place.layout) as program:
        program.until_listening()
        run(after(run_id), 60)


def test_a_signal_stops_runs_and_a_second_one_does_not_wait(tmp_path: Path) -> None:
    place = make_place(tmp_path)

    async def main() -> None:
        node = echo_node(place, "north")
        task = asyncio.create_task(node.work())
        run_id = await place.submit(plan("stubborn"))  # it ignores Stop and SIGTERM
        await place.until(run_id, "running")
        (process,) = run_processes(program.process.pid)
        program.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.3)
        assert program.process.poll() is None  # it waits for the run
        program.process.send_signal(signal.SIGINT)
        await until(lambda: program.process.poll() is not None, 4)
        await until(lambda: not Path(f"/proc/{process}").exists(), 4)
        await ended(task)
        await node.channel.close()

    with Program(place.layout) as program:
        program.until_listening()
        run(main(), 60)
        status, output = program.end()
    assert status != 0
    assert "ended at once by a second signal; active runs were killed" in output
    store = Store.open(place.layout.database)
    (record,) = store.runs()
    store.close()
    assert (record.state, record.reason) == (RunState.STOPPED, "the coordinator was shut down")


@pytest.mark.slow
def test_where_it_listens_is_told_to_programs(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    command = [sys.executable, "-c", MAIN, "server", "start", str(place.layout.directory), "--json"]
    with Program(place.layout, command) as program:
        program.until_listening()
        listening = Listening.read(place.layout)
        program.process.send_signal(signal.SIGTERM)
        status, output = program.end()
    assert status == 0
    (line,) = [each for each in output.splitlines() if each.startswith("{")]
    told = json.loads(line)
    assert (told["federation"], told["process"]) == ("fed.example", program.process.pid)
    assert told["listening"] == dict(listening.addresses)
    assert told["addresses"].keys() == {"enrol", "fleet", "admin"}
    assert told["log"] == str(place.layout.log)
    assert "Coordinator of" not in output
    assert "shutting down" not in output


def test_the_lock_names_who_holds_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with only_one(layout):
        assert layout.lock.read_text() == f"{os.getpid()}\n"
        with (
            pytest.raises(StateError, match=f"runs already, as process {os.getpid()}"),
            only_one(layout),
        ):
            pass
    with only_one(layout):
        pass


def test_a_root_key_under_the_directory_is_refused(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    stray = place.layout.directory / "runs" / "root.key.pem"
    stray.write_bytes((tmp_path / "root" / "root.key.pem").read_bytes())
    with Program(place.layout) as program:
        status, output = program.end()
    assert status != 0
    assert str(stray) in output
    assert not place.layout.listening.exists()


def test_authorities_of_another_federation_are_refused(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    text = place.layout.settings.read_text()
    place.layout.settings.write_text(text.replace('"fed.example"', '"other.example"'))
    with Program(place.layout) as program:
        status, output = program.end()
    assert status != 0
    assert ConfigError.__name__ in output
    assert "'other.example', the authorities are of 'fed.example'" in output


def test_an_address_in_use_is_refused(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = place.layout.settings.read_text()
        where = f'fleet = "127.0.0.1:{port}"'
        place.layout.settings.write_text(text.replace('fleet = "127.0.0.1:0"', where))
        with Program(place.layout) as program:
            status, output = program.end()
    assert status != 0
    assert f"cannot listen on 127.0.0.1:{port}" in output
    assert not place.layout.listening.exists()


def test_listeners_take_certificates_of_their_own_kind_alone(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    _, node = place.enrol("north")

    async def main() -> None:
        async with place.channel("admin", node) as channel:
            call: Any = channel.unary_unary("/fedsec.v1.Admin/Status")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        server = place.issue(Kind.NODE, "0" * 32)  # of the right CA, but never enrolled
        async with place.channel("fleet", server) as channel:
            call = channel.unary_unary("/fedsec.v1.Fleet/Renew")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    with Program(place.layout) as program:
        program.until_listening()
        assert Listening.read(place.layout).process == program.process.pid
        run(main())


@pytest.mark.parametrize("hard", [1000, 100_000])
def test_too_few_files_are_said_at_the_start(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    """1000 nodes twice, 8 runs with 64 each, and 256."""
    taken = []
    monkeypatch.setattr("resource.getrlimit", lambda _: (512, hard))
    monkeypatch.setattr("resource.setrlimit", lambda _, both: taken.append(both))
    if hard == 1000:
        with pytest.raises(ConfigError, match=r"may open 1000 files; .*`LimitNOFILE=2768`"):
            allow_files(Limits())
    else:
        allow_files(Limits())
    allow_files(Limits(max_nodes=10, max_runs=1))
    assert taken == [(hard, hard)] * 2


@pytest.mark.slow
def test_the_program_itself_refuses_to_start_with_too_few_files(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    start = f"{FEDSEC} server start {place.layout.directory}"
    with Program(place.layout, ["bash", "-c", f"ulimit -n 600; exec {start}"]) as program:
        status, printed = program.end()
    assert status == 2
    assert "this process may open 600 files; limits.max_nodes = 1000" in " ".join(printed.split())
