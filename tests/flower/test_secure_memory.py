"""What the coordinator needs to add up fifty vectors of a million: a few of them, never all."""

import gc
import os
import tracemalloc
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from flwr.app import Message

from fedsec.flower.asked import digest_of
from fedsec.flower.collection import Attempt, Post
from fedsec.flower.messages import instruction, read_heading
from fedsec.flower.secure_messages import Stage, read_request, read_stage, reply
from fedsec.flower.secure_session import make_setting
from fedsec.flower.secure_sum import SecureSum
from fedsec.flower.sums import sum_form
from fedsec.secagg import node as protocol
from fedsec.secagg.messages import Delivery
from tests.flower.fakes import FakeGrid, answering
from tests.flower.secure import FIRST, secure_plan, signer

SIZE, NODES = 1_000_000, 50
WORD = 4  # bytes
PLAN = secure_plan('mode = "semi-honest"\nclip = 10.0\nmax_nodes = 50')


class Arriving(FakeGrid):
    """Nodes whose masked vectors, of zeros, are made one by one as they arrive, as in a fleet."""

    def __init__(self) -> None:
        super().__init__([answering([0.0])] * NODES)
        self.pushed: dict[str, Message] = {}
        self.states: dict[int, protocol.State] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        self.pushed = {str(place): message for place, message in enumerate(messages)}
        return list(self.pushed)

    def arrivals(self, message_ids: Iterable[str], _seconds: float) -> Iterator[Message]:
        for message_id in sorted(message_ids, key=int):
            yield self.answer(self.pushed.pop(message_id))

    def answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        me = protocol.Node(node, signer(node), os.urandom)
        stage, heading = read_stage(message.content), read_heading(message.content)
        assert stage is not None
        if stage is Stage.OFFER:
            setting = make_setting(
                PLAN, sum_form(PLAN, SIZE, heading), 1, heading, digest_of(message.content)
            )
            self.states[node], offer = protocol.begin(me, setting)
            return Message(reply(stage, offer), reply_to=message)
        asked = read_request(stage, message.content)
        event: protocol.Event
        if isinstance(asked, Delivery):
            event = protocol.Deliver(asked, np.zeros(SIZE, np.uint32))
        else:
            event = asked
        self.states[node], effect = protocol.step(me, self.states[node], event)
        return Message(reply(stage, effect), reply_to=message)


@pytest.mark.slow
def test_memory_of_the_coordinator_s_half() -> None:
    content = instruction({"w": np.zeros(3, np.float32)}, round_number=1, plan=PLAN.digest)
    attempt = Attempt(1, 1, tuple(range(FIRST, FIRST + NODES)), content)
    collect, post = SecureSum(PLAN, SIZE), Post(Arriving(), 60.0)
    gc.disable()  # what was added up goes at once, not when cycles happen to be looked for
    try:
        tracemalloc.start()
        collected = collect(post, attempt)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert not collected.rows.any()
    assert collected.nodes == attempt.cohort
    assert peak < 8 * SIZE * WORD
