"""A peer that froze is noticed at the other end within 15 s, whichever end it is."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from fedsec.wire.call import Call, Method
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import node_credentials
from fedsec.wire.duplex import Duplex
from tests.pki import Leaf, Pki, make_pki
from tests.wire.gated import NODES, gated, refused, run, until

ROOT = Path(__file__).parents[2]
NOTICED_S = 15.0


@asynccontextmanager
async def peer(
    role: str, directory: Path, ca: bytes, leaf: Leaf, *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    _write_pem(directory, ca, leaf)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.wire.peer_process", role, str(directory), *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


def _write_pem(directory: Path, ca: bytes, leaf: Leaf) -> None:
    directory.mkdir()
    for name, pem in (("ca", ca), ("chain", leaf.chain_pem), ("key", leaf.key_pem)):
        (directory / f"{name}.pem").write_bytes(pem)


async def said(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


@pytest.mark.slow
def test_a_frozen_peer_is_noticed_at_both_ends_and_a_quiet_one_is_not(tmp_path: Path) -> None:
    pki = make_pki()
    ended: dict[str, float] = {}

    async def echo(call: Call) -> None:
        try:
            while (data := await call.read()) is not None:
                await call.write(data)
        finally:
            ended[call.who] = time.monotonic()

    row = Method("/test.Service/Echo", NODES, echo, long_lived=True)

    async def main() -> None:
        node, servers = pki.node("f" * 32), pki.servers.certificate_pem
        async with (
            gated([row], pki=pki) as world,
            world.channel() as quiet,
            peer("client", tmp_path / "node", servers, node, str(world.listener.port)) as client,
            peer("server", tmp_path / "coordinator", pki.nodes.certificate_pem, pki.server()) as (
                server
            ),
        ):
            assert await said(client) == "open"
            undisturbed = Duplex(quiet, row.name)
            await undisturbed.write(b"before")
            assert await undisturbed.read() == b"before"
            async with _channel_to(await said(server), pki) as channel:
                call = Duplex(channel, row.name)
                await call.write(b"x")
                assert await call.read() == b"x"
                frozen_at = time.monotonic()
                for process in (client, server):
                    process.send_signal(signal.SIGSTOP)
                status, _ = await refused(call.read())
                assert status is grpc.StatusCode.UNAVAILABLE
                noticed_at = time.monotonic()
                assert 1 < noticed_at - frozen_at < NOTICED_S
            await until(lambda: "node ffffffff" in ended, NOTICED_S)
            assert 1 < ended["node ffffffff"] - frozen_at < NOTICED_S
            # three rounds of pings later, who said nothing but answered them is still there
            await asyncio.sleep(max(0.0, frozen_at + 26 - time.monotonic()))
            await undisturbed.write(b"after")
            assert await undisturbed.read() == b"after"
            assert list(ended) == ["node ffffffff"]

    run(main(), 60)


def _channel_to(port: str, pki: Pki) -> "grpc.aio.Channel":
    leaf = pki.node()
    credentials = node_credentials(pki.servers.certificate_pem, leaf.chain_pem, leaf.key_pem)
    return open_channel(f"localhost:{port}", credentials)
