"""The peer of `idle.py`: grpc.aio with mutual TLS and one open stream per client, nothing else.

bare_grpc.py serve DIR            listens, says so; at a line on stdin sends 1 kB to every client
bare_grpc.py clients DIR COUNT    opens COUNT streams on connections of their own
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
from pairs import make_pairs

from fedsec.files import write_private
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import node_credentials
from fedsec.wire.options import SERVER_OPTIONS

METHOD = "/bare.Bare/Hold"
WORD = b"x" * 1024


async def serve(directory: Path) -> None:
    """Listens on a port of its own choice and writes what clients need."""
    pairs = make_pairs("bare.example")
    chain, key = pairs.server
    say = asyncio.Event()

    async def hold(_requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.write(b"hello")
        await say.wait()
        await context.write(WORD)
        await asyncio.Event().wait()

    class Everything(grpc.GenericRpcHandler):
        def service(
            self, _details: grpc.HandlerCallDetails
        ) -> "grpc.RpcMethodHandler[bytes, bytes]":
            return grpc.stream_stream_rpc_method_handler(hold)  # type: ignore[arg-type]

    server = grpc.aio.server(options=[*SERVER_OPTIONS])
    server.add_generic_rpc_handlers((Everything(),))
    credentials = grpc.ssl_server_credentials(
        [(key, chain)], pairs.nodes_ca, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    told = {
        "port": port,
        "ca": pairs.servers_ca.decode(),
        "chain": pairs.client[0].decode(),
        "key": pairs.client[1].decode(),
    }
    write_private(directory / "told.json", json.dumps(told).encode())
    print(json.dumps({"port": port}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    say.set()
    await asyncio.Event().wait()


async def clients(directory: Path, count: int) -> None:
    """Opens streams and notes when the word comes."""
    told = json.loads((directory / "told.json").read_text("utf-8"))
    credentials = node_credentials(*(told[each].encode() for each in ("ca", "chain", "key")))
    gate = asyncio.Semaphore(50)
    heard = [0.0] * count
    waiting = []

    async def hear(number: int, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        await call.read()
        heard[number] = time.time()

    async def connect(number: int) -> None:
        async with gate:
            channel = open_channel(f"127.0.0.1:{told['port']}", credentials)
            method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
            method = channel.stream_stream(METHOD)
            call = method()
            await call.read()
            waiting.append((channel, asyncio.ensure_future(hear(number, call))))

    await asyncio.gather(*map(connect, range(count)))
    print(json.dumps({"connected": count}), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps({"first": min(heard), "last": max(heard)}), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", where]:
            asyncio.run(serve(Path(where)))
        case ["clients", where, number]:
            asyncio.run(clients(Path(where), int(number)))
