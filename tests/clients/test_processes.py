"""The agent as a program: what it imports, what it opens, how it ends. Real processes."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsec_client.agent import ExitCode
from fedsec_client.lock import locked
from fedsec_sim.faultproxy import FaultProxy
from tests.clients.coordinator import RUN_ID, FakeCoordinator, make_node
from tests.clients.orders import PLAN, SETTINGS, order, read
from tests.clients.waiting import children, command_of, is_alive, until

# What `fedsec` runs, and at its end the names of all modules that it has imported.
PROGRAM = """
import atexit, json, sys
from pathlib import Path
where = Path(sys.argv[1])
atexit.register(lambda: where.write_text(json.dumps(sorted(sys.modules))))
from fedsec.cli import run
sys.exit(run(["node", "start", sys.argv[2]]))
"""


def run(main: Coroutine[Any, Any, None], seconds: float = 60.0) -> None:
    asyncio.run(asyncio.wait_for(main, seconds))


@asynccontextmanager
async def started(directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Starts the agent of a node's directory; kills it in the end if it still runs."""
    modules = directory.parent / "modules.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(modules),
        str(directory),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Waits for the end; returns exit code and what was printed."""
    assert process.stderr is not None
    printed = await asyncio.wait_for(process.stderr.read(), 60)
    return await process.wait(), printed.decode()


def listeners(pid: int) -> list[str]:
    """Returns the addresses, in the kernel's hex, at which a process accepts TCP connections."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the directory itself was open a moment ago
            target = str(entry.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return [line[1] for line in lines if line[3] == "0A" and line[9] in inodes]


def test_the_check_above_sees_a_listener() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        assert listeners(os.getpid()) == []
        listening.listen()
        assert len(listeners(os.getpid())) == 1


@pytest.mark.slow
def test_an_agent_works_listens_nowhere_and_ends_cleanly(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake:
            make_node(tmp_path / "node", fake.pki, fake.fleet, settings=SETTINGS)
            async with started(tmp_path / "node") as agent:
                session = await fake.session()
                assert session.hello.software.startswith("fedsec ")
                session.offer(RUN_ID, PLAN)
                assert await fake.run_answer() == (RUN_ID, True, "")
                session.push(*order("add_one", arrays=[np.ones(300_000, np.float32)]))
                reply = await fake.reply()
                message = read(reply, fake.stored[reply.reply_to])
                (got,) = message.content.array_records["arrays"].to_numpy_ndarrays()
                assert got.tolist() == [2.0] * 300_000
                (worker,) = children(agent.pid)
                assert worker == message.content.metric_records["metrics"]["pid"]
                assert listeners(agent.pid) == []
                assert listeners(worker) == []
                agent.send_signal(signal.SIGTERM)
                code, printed = await ended(agent)
        assert (code, "Traceback" in printed) == (0, False)
        assert not is_alive(worker)

    run(main())
    modules = json.loads((tmp_path / "modules.json").read_text())
    roots = {name.partition(".")[0] for name in modules}
    assert "fedsec_client" in roots
    assert "grpc" in roots
    assert roots.isdisjoint({"torch", "flwr", "sklearn", "numpy", "ray"})


@pytest.mark.parametrize(
    ("refusal", "code", "sentence"),
    [
        (("version", "the coordinator speaks protocol 2.0"), ExitCode.VERSION, "protocol 2.0"),
        (("revoked", "clinic-1 was revoked"), ExitCode.REVOKED, "ask its operator, and join again"),
    ],
)
def test_it_ends_with_a_code_and_a_sentence(
    tmp_path: Path, refusal: tuple[str, str], code: ExitCode, sentence: str
) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake:
            fake.refuse_next = refusal
            make_node(tmp_path / "node", fake.pki, fake.fleet)
            async with started(tmp_path / "node") as agent:
                found, printed = await ended(agent)
        assert found == code
        assert sentence in printed
        assert "Traceback" not in printed

    run(main())


def test_a_second_agent_in_a_directory_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake:
            make_node(tmp_path / "node", fake.pki, fake.fleet)
            with locked(tmp_path / "node"):
                async with started(tmp_path / "node") as agent:
                    code, printed = await ended(agent)
        assert code == 2
        assert f"already, as process {os.getpid()}" in printed

    run(main())


@pytest.mark.slow
def test_a_worker_does_not_outlive_a_killed_agent(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCoordinator() as fake:
            make_node(tmp_path / "node", fake.pki, fake.fleet, settings=SETTINGS)
            async with started(tmp_path / "node") as agent:
                session = await fake.session()
                session.offer(RUN_ID, PLAN)
                await fake.run_answer()
                (worker,) = children(agent.pid)
                assert "fedsec_client.worker" in command_of(worker)
                agent.kill()
                await agent.wait()
                await until(lambda: not is_alive(worker))

    run(main())


@pytest.mark.slow
def test_a_coordinator_that_fell_silent_is_noticed_and_found_again(tmp_path: Path) -> None:
    """As when the machine slept, or a cable was pulled: nothing arrives, and nothing is refused."""

    async def main() -> None:
        async with FakeCoordinator() as fake:
            with FaultProxy(f"127.0.0.1:{fake.port}") as proxy:
                address = f"localhost:{proxy.address.rpartition(':')[2]}"
                make_node(tmp_path / "node", fake.pki, address)
                async with started(tmp_path / "node") as agent:
                    await fake.session()
                    proxy.stall()
                    before = proxy.connections
                    loop = asyncio.get_running_loop()
                    began = loop.time()
                    await until(lambda: proxy.connections > before, seconds=20)
                    assert 5 < loop.time() - began < 16
                    proxy.heal()
                    await fake.session(40)
                    agent.send_signal(signal.SIGTERM)
                    assert (await ended(agent))[0] == 0

    run(main(), seconds=100)
