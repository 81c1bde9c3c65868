"""Nodes that lie in a secure sum, over mutual TLS to the real coordinator: none stops a round.

Five nodes speak the protocol by themselves: fedsec's own half of it around an app whose update is
known, and a hand on what one of them sends.
"""

from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from safetensors.numpy import load_file

from fedsec.flower.arrays import pack
from fedsec.flower.messages import UPDATE, read_instruction, train_reply
from fedsec.flower.secure_messages import MASKED, SECAGG, Stage
from fedsec.flower.secure_messages import VECTOR as WORDS
from fedsec.secagg.messages import read_revealed, write_revealed
from fedsec_sim.loopback import LoopbackFederation
from tests.end_to_end.sumnode import Lie, SumNode, nobody

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


def app(message: Message, context: Context) -> Message:
    asked = read_instruction(message.content)
    size = sum(array.size for array in asked.arrays.values())
    update = train_reply(np.full(size, STEP, np.float32), examples=1, loss=1.0)
    assert UPDATE in update
    return Message(update, reply_to=message)


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
            made = SumNode(
                node.directory, nobody, {}, None, plan=PLAN, app=app, lies=lies, trusted=trusted
            )
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
