"""An enrolled node that takes part in secure sums by itself, with a hand on what it sends."""

from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedsec import flwr_compat
from fedsec.flower.messages import read_heading
from fedsec.flower.mod import guard
from fedsec.flower.secure_messages import Stage, read_stage
from fedsec.flower.secure_node import Identity
from fedsec.identity.signing import load_signing_key
from fedsec.plan import FederationPlan
from fedsec.wire import codec
from fedsec.wire.blobs import BlobWriter
from fedsec.wire.content import Manifest
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import new_message_id
from fedsec.wire.streams import fetch
from tests.end_to_end.hostile import HostileNode, Reply

Lie = Callable[[Stage | None, RecordDict], RecordDict]


@dataclass
class SumNode(HostileNode):
    """A node whose update is known, with a hand on what it sends in a round's first attempt."""

    plan: str = ""
    app: ClientAppCallable | None = None
    lies: dict[int, Lie] = field(default_factory=dict)
    trusted: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        place = self.directory / "identity"
        signer = load_signing_key((place / "signing.key.pem").read_bytes())
        self._mod = guard(
            FederationPlan.parse(self.plan), lambda _: None, Identity(signer, self.trusted)
        )
        self._context: Context | None = None

    def _answer(self, header: Header, message: Message) -> RecordDict:
        if self._context is None:
            ids = {"run_id": header.run_id, "node_id": header.dst_node_id}
            self._context = Context(**ids, node_config={}, state=RecordDict(), run_config={})
        assert self.app is not None
        return self._mod(message, self._context, self.app).content

    async def _read_message(self, header: Header) -> Message:
        if not header.HasField("bulk"):
            return codec.decode(header, None)
        manifest = Manifest.from_proto(header.bulk, 1 << 30)
        writer = BlobWriter(manifest.length)
        await fetch(self._channel, manifest.digest, manifest, header.run_id, writer)
        with writer.finish() as blob:
            return codec.decode(header, memoryview(bytes(blob.view())))

    async def _on_deliver(self, header: Header) -> None:
        message = await self._read_message(header)
        stage, number = read_stage(message.content), int(header.group_id)
        content = self._answer(header, message)
        first = read_heading(message.content).attempt == 1
        lie = self.lies.get(number) if first else None
        await self.send(reply_to(header, lie(stage, content) if lie else content))


def reply_to(header: Header, content: RecordDict) -> Reply:
    envelope = flwr_compat.Envelope(
        message_id=new_message_id(),
        reply_to=header.message_id,
        run_id=header.run_id,
        src_node_id=header.dst_node_id,
        dst_node_id=header.src_node_id,
        group_id=header.group_id,
        created_at=header.created_at,
        ttl=header.ttl,
        message_type=header.message_type,
    )
    encoded, blob = codec.encode(flwr_compat.make_message(envelope, content))
    return Reply(encoded, bytes(blob.view()) if blob else b"")


async def nobody(_node: HostileNode, _asked: object) -> None:
    raise AssertionError("it answers in a way of its own")
