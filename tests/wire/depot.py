"""A coordinator's store of content behind a gate, and content for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fedsec.wire.blobs import Blob
from fedsec.wire.call import Call, Method
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.generated import fleet_pb2 as pb
from fedsec.wire.streams import (
    FETCH,
    STORE,
    UploadLimits,
    Uploads,
    serve_fetch,
    serve_store,
)
from tests.wire.gated import METHODS, NODES, World, gated

ID = "5" * 32
CONTENT = bytes(range(251)) * (3 * CHUNK_BYTES // 251)  # 2 chunks and a shorter one
VIEW = memoryview(CONTENT)
MANIFEST = Manifest.of(CONTENT)
LIMITS = UploadLimits()
BEGIN = pb.StoreBegin(reply_to=ID, manifest=MANIFEST.to_proto())
SIZES = [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 5 * CHUNK_BYTES + 7]


def chunk(number: int) -> memoryview:
    return VIEW[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]


def begin_frame(begin: pb.StoreBegin = BEGIN) -> bytes:
    return pb.ContentFrame(begin=begin).SerializeToString()


@dataclass
class Depot:
    """A coordinator's store of content: what a test's listener takes and gives."""

    uploads: Uploads
    content: bytes = CONTENT
    kept: dict[str, bytes] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    received: int = 0  # frames that carried a chunk
    idle_s: float = 30.0

    async def keep(self, reply_to: str, manifest: Manifest, blob: Blob) -> None:
        manifest.check(blob.view())
        self.kept[reply_to] = bytes(blob.view())
        blob.close()

    async def take(self, call: Call) -> None:
        async def read() -> bytes | None:
            data = await call.read()
            self.received += data is not None and len(data) > 100_000
            return data

        counted = Call(call.principal, call.peer, call.method, read, call.write)
        await serve_store(
            counted, self.uploads, lambda key, _: None if key in self.held else 0, self.keep
        )

    async def give(self, call: Call) -> None:
        request = await call.receive(pb.FetchRequest)
        assert request is not None
        await serve_fetch(
            call,
            memoryview(self.content),
            Manifest.of(self.content),
            request.first_chunk,
            idle_s=self.idle_s,
        )


@asynccontextmanager
async def depot(
    limits: UploadLimits = LIMITS, **changes: object
) -> AsyncIterator[tuple[World, Depot]]:
    store_of_it = Depot(Uploads(limits), **changes)  # type: ignore[arg-type]
    rows = [
        *METHODS,
        Method(STORE, NODES, store_of_it.take, long_lived=True),
        Method(FETCH, NODES, store_of_it.give, long_lived=True),
    ]
    async with gated(rows) as world:
        yield world, store_of_it
