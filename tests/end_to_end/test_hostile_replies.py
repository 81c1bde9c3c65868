"""Wrong replies of an enrolled node: each is named, none is in the mean, no round is lost."""

import asyncio

import grpc
import numpy as np
import pytest
from flwr.app import ArrayRecord, MetricRecord, RecordDict

from fedsec.wire.answers import error_of
from fedsec.wire.content import Manifest
from fedsec.wire.generated.fleet_pb2 import NodeFrame
from tests.end_to_end import pulls
from tests.end_to_end.conftest import Pullers
from tests.end_to_end.hostile import Asked, HostileNode, reply_with, update_reply

pytestmark = pytest.mark.slow

MALLORY = 3  # partition of the hostile node
DEADLINE = 4.0  # seconds


async def honest(node: HostileNode, asked: Asked) -> None:
    await node.send(update_reply(asked, pulls.update(asked.weights, MALLORY)))


async def not_a_number(node: HostileNode, asked: Asked) -> None:
    vector = pulls.update(asked.weights, MALLORY)
    vector[7] = np.nan
    await node.send(update_reply(asked, vector))


async def wrong_shape(node: HostileNode, asked: Asked) -> None:
    await node.send(update_reply(asked, np.zeros(len(asked.weights) + 1, np.float32)))


async def wrong_records(node: HostileNode, asked: Asked) -> None:
    arrays = ArrayRecord([np.zeros((2, 2))])
    await node.send(reply_with(asked, RecordDict({"a": arrays, "b": MetricRecord({"c": 1})})))


async def malformed(node: HostileNode, asked: Asked) -> None:
    reply = update_reply(asked, pulls.update(asked.weights, MALLORY))
    reply.header.skeleton = b"\xff" * 40
    await node.send(reply)


async def other_content(node: HostileNode, asked: Asked) -> None:
    """Sends bytes that are not those of its manifest: found at the far end."""
    reply = update_reply(asked, pulls.update(asked.weights, MALLORY))
    await node.send(type(reply)(reply.header, bytes(len(reply.bulk))))


async def huge(node: HostileNode, asked: Asked) -> None:
    """Announces more than a message may carry; then answers as if it had been taken."""
    reply = update_reply(asked, pulls.update(asked.weights, MALLORY))
    too_many = 4096 + 1  # chunks of 1 MiB
    reply.header.bulk.CopyFrom(Manifest(too_many << 20, (bytes(32),) * too_many).to_proto())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await node.send(reply)
    node.refusals.append(error_of(refused.value))
    await node.send_frame(NodeFrame(reply=reply.header))


async def unstored(node: HostileNode, asked: Asked) -> None:
    """Names content that it never sent."""
    reply = update_reply(asked, pulls.update(asked.weights, MALLORY))
    await node.send_frame(NodeFrame(reply=reply.header))


async def twice(node: HostileNode, asked: Asked) -> None:
    """Answers well, and then again, differently."""
    await honest(node, asked)
    await node.acknowledged(asked, 1)
    second = update_reply(asked, 1000 * pulls.update(asked.weights, MALLORY))
    second.header.ClearField("bulk")
    await node.send_frame(NodeFrame(reply=second.header))
    await node.acknowledged(asked, 2)


async def for_another(node: HostileNode, asked: Asked) -> None:
    """First answers a message that it was never sent, in another node's name; then its own."""
    reply = update_reply(asked, pulls.update(asked.weights, MALLORY))
    reply.header.reply_to = "0" * 32
    reply.header.src_node_id = 17
    await node.send_frame(NodeFrame(reply=reply.header))
    await honest(node, asked)


async def late(node: HostileNode, asked: Asked) -> None:
    await asyncio.sleep(DEADLINE + 1)
    reply = update_reply(asked, 1000 * pulls.update(asked.weights, MALLORY))
    reply.header.ClearField("bulk")
    await node.send_frame(NodeFrame(reply=reply.header))


async def after_the_late_one(node: HostileNode, asked: Asked) -> None:
    await node.acknowledged(node.asked[asked.round - 1], 1)
    await honest(node, asked)


async def as_somebody_else(node: HostileNode, asked: Asked) -> None:
    reply = update_reply(asked, pulls.update(asked.weights, MALLORY))
    reply.header.src_node_id = 17
    await node.send(reply)


LEFT_OUT = {
    2: (not_a_number, "not-finite: 1 of 1000 entries are NaN or infinite"),
    3: (wrong_shape, "bad-update: the update is 'float32' (1001,), want float32 (1000,)"),
    4: (wrong_records, "bad-records: "),
    5: (malformed, "the reply of mallory was refused: "),
    6: (other_content, "chunk 0 of 1 is not what was announced"),
    7: (huge, "at most 4294967296 accepted"),
    8: (unstored, "names content that was not stored before it"),
    9: (as_somebody_else, "names node 17 as its sender"),
    12: (late, "node mallory did not answer by the deadline"),
}
TAKEN = {1: honest, 10: twice, 11: for_another, 13: after_the_late_one}
LOGGED = ["bad-skeleton", "bad-hash", "too-large", "content-missing", "wrong-address"]
LOGGED += ["duplicate", "unknown", "late"]


def test_wrong_replies_cost_their_sender_and_nobody_else(pullers: Pullers) -> None:
    federation = pullers.federation
    directory = federation.join("mallory", pulls.settings(MALLORY, pullers.gate)).directory
    special = {**TAKEN, **{number: answer for number, (answer, _) in LEFT_OUT.items()}}
    with HostileNode(directory, honest, special) as mallory:
        run_id = federation.submit(pulls.plan(rounds=13, nodes=4, quorum=3, deadline=DEADLINE))
        federation.wait_for_run(run_id, 90)
    found = pulls.outcome(federation, run_id)
    assert mallory.errors == []
    assert [refusal.code for refusal in mallory.refusals] == ["too-large"]
    for number in range(1, 14):
        assert set(pullers.partitions) <= found.answered(number)
        assert ("mallory" in found.answered(number)) == (number in TAKEN)
    for number, (_, reason) in LEFT_OUT.items():
        assert reason in found.reasons(number)["mallory"]
    found.check_means(pullers.partitions | {"mallory": MALLORY})
    logged = [event.detail for event in found.events if event.kind == "reply-refused"]
    assert [detail["code"] for detail in logged] == LOGGED
    assert {detail["node"] for detail in logged} == {"mallory"}
    check_acks(mallory)


def check_acks(mallory: HostileNode) -> None:
    """The node was told of everything that the coordinator itself refused."""
    refused = [why.partition(":")[0] for _, why in mallory.acks if why]
    assert refused == LOGGED[2:]
    rounds = {asked.header.message_id: number for number, asked in mallory.asked.items()}
    assert [rounds[which] for which, why in mallory.acks if why.startswith("dup")] == [10]
    assert [rounds[which] for which, why in mallory.acks if why.startswith("late")] == [12]
