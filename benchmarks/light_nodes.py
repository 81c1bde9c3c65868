"""Many nodes in one process, without agents and workers: each a certificate and a control stream.

A node takes part in every run and sends the content of a message back as its reply. Enrolled by
`light_fleet.LightFleet`; told what to do and asked what happened over stdin and stdout, a JSON
object a line. Certificates last as long as the measurement.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from fedsec.errors import FedsecError
from fedsec.wire import streams
from fedsec.wire.blobs import BlobWriter
from fedsec.wire.channels import open_channel
from fedsec.wire.content import Manifest
from fedsec.wire.credentials import node_credentials
from fedsec.wire.generated.fleet_pb2 import CoordinatorFrame, NodeFrame, RunAnswer
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import COORDINATOR_NODE_ID, new_message_id
from fedsec_client.link import Link

AT_A_TIME = 50  # connections that are being opened
_MAX_CONTENT = 1 << 32


class LightNode:
    """One node: connects, accepts, echoes."""

    def __init__(self, spec: dict[str, str], address: str, servers_ca: bytes) -> None:
        self.node_id = int(spec["node_id"])
        credentials = node_credentials(servers_ca, spec["chain"].encode(), spec["key"].encode())
        self._link = Link(open_channel(address, credentials))
        self._tasks: set[asyncio.Task[None]] = set()
        self.offered_at = 0.0

    async def connect(self) -> None:
        """Opens the control stream and serves it in the background."""
        await self._link.open(())
        self._spawn(self._serve())

    async def _serve(self) -> None:
        with suppress(FedsecError):
            await self._link.run(self._on_frame)

    def _on_frame(self, frame: CoordinatorFrame) -> None:
        match frame.WhichOneof("kind"):
            case "run_offer":
                self.offered_at = time.time()
                answer = RunAnswer(run_id=frame.run_offer.run_id, accepted=True)
                self._link.send(NodeFrame(run_answer=answer))
            case "deliver":
                self._spawn(self._echo(frame.deliver))

    async def _echo(self, message: Header) -> None:
        reply = Header(
            message_id=new_message_id(),
            run_id=message.run_id,
            src_node_id=self.node_id,
            dst_node_id=COORDINATOR_NODE_ID,
            reply_to=message.message_id,
            created_at=time.time(),
            ttl=message.ttl,
            message_type=message.message_type,
            skeleton=message.skeleton,
        )
        if message.HasField("bulk"):
            manifest = Manifest.from_proto(message.bulk, _MAX_CONTENT)
            channel = self._link.channel
            with BlobWriter(manifest.length) as writer:
                await streams.fetch(channel, manifest.digest, manifest, message.run_id, writer)
                blob = writer.finish()
            with blob:
                await streams.store(channel, message.message_id, manifest, blob.view())
            reply.bulk.CopyFrom(message.bulk)
        self._link.send(NodeFrame(reply=reply))

    def _spawn(self, work: "asyncio.coroutines.Coroutine[object, object, None]") -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def main(text: str) -> None:
    """Connects all nodes of a file's text; then answers questions until stdin ends."""
    told = json.loads(text)
    servers_ca = told["servers_ca"].encode()
    nodes = [LightNode(spec, told["address"], servers_ca) for spec in told["nodes"]]
    gate = asyncio.Semaphore(AT_A_TIME)

    async def connect(node: LightNode) -> None:
        async with gate:
            await node.connect()

    await asyncio.gather(*map(connect, nodes))
    _say(connected=len(nodes))
    while line := await asyncio.to_thread(sys.stdin.readline):
        if json.loads(line) == "offers":
            seen = sorted(node.offered_at for node in nodes)
            _say(first=seen[0], last=seen[-1])


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_text(encoding="utf-8")))
