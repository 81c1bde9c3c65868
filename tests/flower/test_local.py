"""Nodes in this process: each gets its own copy, and what one does stays with it."""

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedsec.flower.local import LocalGrid, node_contexts


def greedy(message: Message, context: Context) -> Message:
    """Takes the only key out of what it was sent, as some mods do."""
    value = message.content.config_records["config"].pop("stage")
    context.state["seen"] = ConfigRecord({"stage": value})
    return Message(message.content, reply_to=message)


def failing(message: Message, context: Context) -> Message:
    raise KeyError("stage")


def grid() -> tuple[LocalGrid, dict[int, Context]]:
    contexts = node_contexts(3, {"lr": 0.1})
    apps = dict(zip(contexts, (greedy, greedy, failing), strict=True))
    return LocalGrid(apps, contexts), contexts


def test_every_node_has_its_own_copy_and_context() -> None:
    local, contexts = grid()
    content = RecordDict({"config": ConfigRecord({"stage": 1})})
    sent = [local.create_message(content, "train", node, "g") for node in local.get_node_ids()]
    replies = list(local.send_and_receive(sent))
    assert [reply.has_error() for reply in replies] == [False, False, True]
    assert replies[2].error.reason == "KeyError: 'stage'"
    assert content.config_records["config"] == {"stage": 1}
    assert ["seen" in context.state for context in contexts.values()] == [True, True, False]
    assert [reply.metadata.src_node_id for reply in replies] == [100, 101, 102]
    assert [context.node_config["partition-id"] for context in contexts.values()] == [0, 1, 2]


def test_replies_are_pulled_once_and_unknown_ones_never() -> None:
    local, _ = grid()
    content = RecordDict({"config": ConfigRecord({"stage": 1})})
    ids = list(local.push_messages([local.create_message(content, "train", 100, "g")]))
    assert len(list(local.pull_messages([*ids, "unknown"]))) == 1
    assert list(local.pull_messages(ids)) == []


def test_a_node_that_does_not_exist_is_an_error_reply() -> None:
    local, _ = grid()
    message = local.create_message(RecordDict(), "train", 5, "g")
    (reply,) = local.send_and_receive([message])
    assert reply.has_error()


def test_its_run() -> None:
    local, _ = grid()
    assert local.run.run_id == 1
    local.set_run(LocalGrid({}, {}, run_id=4).run)
    assert local.run.run_id == 4
    with pytest.raises(IndexError):
        _ = local.reports[0]
