"""The two ends of `bulk.py`'s first measurement, a process each.

bulk_wire.py serve SIZE           listens behind the gate; prints how to reach it
bulk_wire.py send SIZE RUNS       reads that from stdin; prints MB/s of each run and way
"""

import asyncio
import json
import os
import sys
import time

import grpc
import grpc.aio
from light_fleet import cpu_seconds
from pairs import make_pairs

from fedsec.identity.names import Kind, Role
from fedsec.wire.blobs import Blob
from fedsec.wire.call import Call, Method
from fedsec.wire.channels import listen, open_channel
from fedsec.wire.content import Manifest
from fedsec.wire.credentials import ServerCredentials, node_credentials
from fedsec.wire.denylist import Denylist
from fedsec.wire.gate import Gate
from fedsec.wire.options import CLIENT_OPTIONS, SERVER_OPTIONS
from fedsec.wire.rates import RateLimiter
from fedsec.wire.streams import STORE, serve_store, store
from fedsec.wire.uploads import UploadLimits, Uploads

UNARY = "/bulk.Bulk/Unary"
MB = 1_000_000
LARGE = 2**31 - 1


async def serve(size: int) -> None:
    """Takes content as the coordinator does, and whole in one message as plain gRPC does."""
    pairs = make_pairs("bulk.example")
    uploads = Uploads(UploadLimits(max_content=2 * size, max_partial=4 * size))
    roles = frozenset({Role.NODE})

    async def keep(_reply_to: str, _manifest: Manifest, content: Blob) -> None:
        content.close()

    async def take(call: Call) -> None:
        await serve_store(call, uploads, lambda _reply_to, _manifest: 0, keep)

    async def unary(call: Call) -> None:
        data = await call.read()
        await call.write(str(len(data or b"")).encode())

    methods = [Method(STORE, roles, take, long_lived=True), Method(UNARY, roles, unary)]
    handlers = Gate(
        pairs.nodes_ca, Kind.NODE, Denylist(), RateLimiter(1e4, 10_000), print
    ).generic_handler(methods)
    tls = ServerCredentials(*pairs.server, pairs.nodes_ca)
    options = tuple({**dict(SERVER_OPTIONS), "grpc.max_receive_message_length": LARGE}.items())
    listener = await listen("127.0.0.1:0", tls.credentials, handlers, options=options)
    told = {"port": listener.port, "pid": os.getpid(), "ca": pairs.servers_ca.decode()}
    told |= {"chain": pairs.client[0].decode(), "key": pairs.client[1].decode()}
    print(json.dumps(told), flush=True)
    await listener.server.wait_for_termination()


async def send(told: dict[str, str], size: int, runs: int) -> dict[str, list[float]]:
    """Returns MB/s of each run, and processor seconds of both ends for each GB.

    The hashes were made before: the codec makes them as it encodes.
    """
    credentials = node_credentials(*(told[each].encode() for each in ("ca", "chain", "key")))
    address = f"127.0.0.1:{told['port']}"
    options = {**dict(CLIENT_OPTIONS), "grpc.max_send_message_length": LARGE}
    channel = open_channel(address, credentials)
    plain = grpc.aio.secure_channel(address, credentials, options=[*options.items()])
    content = os.urandom(MB) * (size // MB)
    rates: dict[str, list[float]] = {"store": [], "unary": [], "store_cpu": [], "unary_cpu": []}

    def both_ends() -> float:
        return cpu_seconds(int(told["pid"])) + cpu_seconds(os.getpid())

    def note(way: str, began: float, worked: float) -> None:
        rates[way].append(size / MB / (time.perf_counter() - began))
        rates[f"{way}_cpu"].append((both_ends() - worked) * 1000 * MB / size)

    async with channel, plain:
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = plain.unary_unary(UNARY)
        with Blob.write([content]) as blob:
            manifest = Manifest.of(blob.view())
            for number in range(runs + 1):  # the first one warms up
                began, worked = time.perf_counter(), both_ends()
                await store(channel, f"{number:032x}", manifest, blob.view())
                note("store", began, worked)
                began, worked = time.perf_counter(), both_ends()
                assert await unary(content, timeout=300) == str(size).encode()
                note("unary", began, worked)
    return {way: values[1:] for way, values in rates.items()}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", size]:
            asyncio.run(serve(int(size)))
        case ["send", size, runs]:
            reach = json.loads(sys.stdin.readline())
            print(json.dumps(asyncio.run(send(reach, int(size), int(runs)))))
