"""One end of a connection in a process of its own, to be frozen or flooded by a test.

    python -m tests.wire.peer_process server DIRECTORY         prints its port, echoes for ever
    python -m tests.wire.peer_process replacing DIRECTORY      the same, and replaces its certificate
                                                               20 times at handshakes, then ends
    python -m tests.wire.peer_process client DIRECTORY PORT    prints "open", then stays quiet

DIRECTORY holds ca.pem (whom to trust), chain.pem and key.pem.
"""

import asyncio
import sys
from pathlib import Path

from fedsec.identity.names import Kind
from fedsec.wire.channels import listen, open_channel
from fedsec.wire.credentials import ServerCredentials, node_credentials
from fedsec.wire.denylist import Denylist
from fedsec.wire.duplex import Duplex
from fedsec.wire.gate import Gate
from fedsec.wire.rates import RateLimiter
from tests.wire.gated import ECHO


async def serve(ca: bytes, chain: bytes, key: bytes, replacements: int = 0) -> None:
    gate = Gate(ca, Kind.NODE, Denylist(), RateLimiter(100, 100), lambda _refusal: None)
    credentials = ServerCredentials(chain, key, ca)
    handler = gate.generic_handler([ECHO])
    listener = await listen("127.0.0.1:0", credentials.credentials, handler)
    print(listener.port, flush=True)  # noqa: T201 - how the test learns of it
    for _ in range(replacements):
        credentials.replace(chain, key)
        while credentials._shown is not credentials._current:  # noqa: ASYNC110 - gRPC's thread does it
            await asyncio.sleep(0.001)
    if not replacements:
        await asyncio.Event().wait()
    print(f"replaced {replacements} times", flush=True)  # noqa: T201 - see above
    await listener.server.stop(0)


async def stay(ca: bytes, chain: bytes, key: bytes, port: str) -> None:
    async with open_channel(f"localhost:{port}", node_credentials(ca, chain, key)) as channel:
        call = Duplex(channel, ECHO.name)
        await call.write(b"x")
        await call.read()
        print("open", flush=True)  # noqa: T201 - how the test learns of it
        await call.read()


def main() -> None:
    role, directory, *port = sys.argv[1:]
    ca, chain, key = (
        (Path(directory) / f"{name}.pem").read_bytes() for name in ("ca", "chain", "key")
    )
    match role:
        case "server":
            asyncio.run(serve(ca, chain, key))
        case "replacing":
            asyncio.run(serve(ca, chain, key, 20))
        case _:
            asyncio.run(stay(ca, chain, key, *port))


if __name__ == "__main__":
    main()
