"""Nodes that lie in a secure sum, over mutual TLS to the real coordinator: none stops a round.

Five nodes speak the protocol by themselves: fedsec's own half of it around an app whose update is
known, and a hand on what one of them sends.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from safetensors.numpy import load_file

from fedsec import flwr_compat
from fedsec.flower.arrays import pack
from fedsec.flower.messages import UPDATE, read_heading, read_instruction, train_reply
from fedsec.flower.mod import guard
from fedsec.flower.secure_messages import MASKED, SECAGG, Stage, read_stage
from fedsec.flower.secure_messages import VECTOR as WORDS
from fedsec.flower.secure_node import Identity
from fedsec.identity.signing import load_signing_key
from fedsec.plan import FederationPlan
from fedsec.secagg.messages import read_revealed, write_revealed
from fedsec.wire import codec
from fedsec.wire.blobs import BlobWriter
from fedsec.wire.content import Manifest
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import new_message_id
from fedsec.wire.streams import fetch
from fedsec_sim.loopback import LoopbackFederation
from tests.end_to_end.hostile import HostileNode, Reply

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 240.0
PLAN = """
schema = 1
name = "lying nodes"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 6
[nodes]
min_available = 5
quorum = 4
[round]
evaluate_every = 0
[model]
save_every = 1
[secure_aggregation]
mode = "malicious"
clip = 1000.0
"""
STEP = 0.25  # what each node adds to every parameter in a round

Lie = Callable[[Stage | None, RecordDict], RecordDict]


def in_plain(stage: Stage | None, content: RecordDict) -> RecordDict:
    if stage is Stage.OFFER:
        return train_reply(np.zeros(10, np.float32), examples=1, loss=0.0)
    return content


def too_long(stage: Stage | None, content: RecordDict) -> RecordDict:
    if stage is Stage.VECTOR:
        words = np.zeros(1 << 20, np.uint32)
        content[MASKED] = ArrayRecord({WORDS: pack(words)})
    return content


def other_words(stage: Stage | None, content: RecordDict) -> RecordDict:
    if stage is Stage.VECTOR:
        size = content.array_records[MASKED][WORDS].shape[0]
        content[MASKED] = ArrayRecord({WORDS: pack(np.zeros(size, np.float32))})
    return content


def rubbish(at: Stage) -> Lie:
    def lie(stage: Stage | None, content: RecordDict) -> RecordDict:
        if stage is at:
            content[SECAGG] = ConfigRecord({"stage": at.value, "body": b"\xff" * 100})
        return content

    return lie


def wrong_shares(stage: Stage | None, content: RecordDict) -> RecordDict:
    if stage is Stage.REVEAL:
        body = content.config_records[SECAGG]["body"]
        assert isinstance(body, bytes)
        wrong = [
            type(each)(each.owner, each.kind, each.value ^ 1) for each in read_revealed(body, "")
        ]
        content[SECAGG] = ConfigRecord({"stage": stage.value, "body": write_revealed(tuple(wrong))})
    return content


LIES: dict[int, tuple[Lie, str]] = {
    2: (in_plain, "undefended: it answers without a record 'fedsec.secagg'"),
    3: (too_long, "bad-vector: the masked vector is not uint32"),
    4: (other_words, "bad-vector: the masked vector is not uint32"),
    5: (rubbish(Stage.SHARES), "malformed: the message of shares"),
    6: (wrong_shares, "bad-share: "),
}


@dataclass
class SumNode(HostileNode):
    """A node whose update is known, with a hand on what it sends in a round's first attempt."""

    lies: dict[int, Lie] = field(default_factory=dict)
    trusted: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        place = self.directory / "identity"
        signer = load_signing_key((place / "signing.key.pem").read_bytes())
        self._mod = guard(
            FederationPlan.parse(PLAN), lambda _: None, Identity(signer, self.trusted)
        )
        self._context: Context | None = None

    def _answer(self, header: Header, message: Message) -> RecordDict:
        if self._context is None:
            ids = {"run_id": header.run_id, "node_id": header.dst_node_id}
            self._context = Context(**ids, node_config={}, state=RecordDict(), run_config={})
        return self._mod(message, self._context, app).content

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


def app(message: Message, context: Context) -> Message:
    asked = read_instruction(message.content)
    size = sum(array.size for array in asked.arrays.values())
    update = train_reply(np.full(size, STEP, np.float32), examples=1, loss=1.0)
    assert UPDATE in update
    return Message(update, reply_to=message)


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


def test_lies_of_a_node_are_named_and_the_others_sum_stands(tmp_path: Path) -> None:
    with LoopbackFederation(tmp_path / "federation") as federation, ExitStack() as stack:
        names = [f"node-{index}" for index in range(5)]
        joined = [federation.join(name, "schema = 1\n") for name in names]
        trusted = dict(federation.publish_roster().keys)
        nodes = []
        for index, node in enumerate(joined):
            lies = {number: lie for number, (lie, _) in LIES.items()} if index == 0 else {}
            if index == 1:  # so that the wrong shares of the last round are needed
                lies = {6: rubbish(Stage.REVEAL)}
            made = SumNode(node.directory, usual=nobody, special={}, lies=lies, trusted=trusted)
            nodes.append(stack.enter_context(made))
        run_id = federation.submit(PLAN)
        federation.wait_for_run(run_id, SECONDS)
        rounds = federation.events(run_id, "round")
        models = [
            load_file(federation.layout.run(run_id) / str(each["path"]))
            for each in federation.events(run_id, "model")
        ]
        ids = federation.node_ids()
    assert [node.errors for node in nodes] == [[]] * 5
    liar = str(ids["node-0"])
    assert [each["round"] for each in rounds] == [1, 2, 3, 4, 5, 6]
    assert rounds[0]["rejected"] == {}
    for number, (_, reason) in LIES.items():
        told = rounds[number - 1]
        assert reason in dict(told["rejected"])[liar]  # type: ignore[call-overload]
        assert told["attempt"] == (2 if number == 6 else 1)  # the one after, without the liar
    for before, after in pairwise(models):
        for name, array in before.items():  # the mean of what came through is STEP, whoever it was
            np.testing.assert_allclose(after[name] - array, STEP, atol=1e-3)


async def nobody(_node: HostileNode, _asked: object) -> None:
    raise AssertionError("it answers in a way of its own")
