"""One step of the mailboxes at a time; any order of steps: test_mailbox_any_order.py."""

import pytest

from fedsec.errors import ProtocolError, StateError
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import COORDINATOR_NODE_ID
from fedsec_server import mailbox
from fedsec_server.deliveries import (
    Acknowledge,
    Deliver,
    Dropped,
    Effect,
    Fail,
    Why,
    Withdraw,
)
from fedsec_server.mailbox import Mailboxes

RUN, GRACE = 7, 3.0


def message(message_id: str, node: int = 11, run: int = RUN) -> Header:
    return Header(
        message_id=message_id, run_id=run, src_node_id=COORDINATOR_NODE_ID, dst_node_id=node
    )


def reply(message_id: str, node: int = 11, run: int = RUN) -> Header:
    return Header(
        reply_to=message_id, run_id=run, src_node_id=node, dst_node_id=COORDINATOR_NODE_ID
    )


def delivered(effects: list[Effect]) -> list[str]:
    return [e.delivery.message_id for e in effects if isinstance(e, Deliver)]


def failed(effects: list[Effect]) -> list[tuple[str, Why]]:
    return [(e.delivery.message_id, e.why) for e in effects if isinstance(e, Fail)]


@pytest.fixture
def boxes() -> Mailboxes:
    """Run 7; nodes 11 (north) and 12 (south) are there and accepted it."""
    boxes = Mailboxes()
    boxes.open_run(RUN, GRACE)
    for node, name in ((11, "north"), (12, "south")):
        assert boxes.connect(node, name, ()) == []
        assert boxes.accept(RUN, node) == []
    return boxes


def push(
    boxes: Mailboxes, message_id: str, node: int = 11, deadline: float = 100.0
) -> list[Effect]:
    return boxes.push(message(message_id, node), deadline=deadline, now=0.0)


def refusal(boxes: Mailboxes, node: int, header: Header) -> str:
    with pytest.raises(ProtocolError) as caught:
        boxes.answer(node, header)
    assert caught.value.peer == boxes.name(node)
    return caught.value.code


def test_a_message_to_a_ready_node_goes_out_at_once_and_its_reply_settles_it(
    boxes: Mailboxes,
) -> None:
    assert delivered(push(boxes, "m")) == ["m"]
    assert boxes.answer(11, reply("m")).message_id == "m"
    assert boxes.tick(1e9) == []
    assert boxes.next_due() is None


def test_a_message_waits_until_its_node_accepted_the_run(boxes: Mailboxes) -> None:
    boxes.connect(13, "east", ())
    assert push(boxes, "m", 13) == []
    assert boxes.waiting(RUN) == [(13, "east")]
    assert delivered(boxes.accept(RUN, 13)) == ["m"]
    assert boxes.ready(RUN) == [(11, "north"), (12, "south"), (13, "east")]


def test_a_message_to_a_node_that_refused_the_run_fails_with_its_reason(boxes: Mailboxes) -> None:
    push(boxes, "before")
    effects = boxes.refuse(RUN, 11, "task 'x' is not allowed")
    assert failed(effects) == [("before", Why.REFUSED)]
    (fail,) = [e for e in push(boxes, "after") if isinstance(e, Fail)]
    assert fail.reason == "node north refused the run: task 'x' is not allowed"
    assert boxes.refused(RUN) == [(11, "north", "task 'x' is not allowed")]
    assert boxes.ready(RUN) == [(12, "south")]


def test_a_message_to_a_node_that_never_came_fails_at_once(boxes: Mailboxes) -> None:
    (effect,) = push(boxes, "m", 99)
    assert isinstance(effect, Fail)
    assert (effect.why, "node 99" in effect.reason) == (Why.LOST, True)


def test_a_deadline_fails_the_message_and_withdraws_it(boxes: Mailboxes) -> None:
    push(boxes, "m", deadline=5.0)
    assert boxes.next_due() == 5.0
    assert boxes.tick(4.9) == []
    effects = boxes.tick(5.0)
    assert failed(effects) == [("m", Why.DEADLINE)]
    assert Withdraw(11, "m") in effects
    assert refusal(boxes, 11, reply("m")) == "late"


def test_a_lost_node_has_its_grace_then_its_messages_fail(boxes: Mailboxes) -> None:
    push(boxes, "m")
    push(boxes, "other", 12)
    assert boxes.disconnect(11, now=10.0) == []
    assert boxes.tick(12.9) == []
    effects = boxes.tick(13.0)
    assert failed(effects) == [("m", Why.LOST)]
    assert [e.reason for e in effects if isinstance(e, Fail)] == [
        "node north was lost, and is not back within 3 s"
    ]
    assert failed(boxes.tick(99.0)) == []


def test_a_message_to_a_node_lost_long_ago_fails_at_once(boxes: Mailboxes) -> None:
    boxes.disconnect(11, now=10.0)
    assert boxes.push(message("soon"), deadline=100.0, now=12.0) == []
    assert boxes.next_due() == 13.0
    assert failed(boxes.push(message("late"), deadline=100.0, now=13.5)) == [("late", Why.LOST)]


def test_a_node_that_returns_in_time_is_given_what_it_does_not_hold(boxes: Mailboxes) -> None:
    push(boxes, "held")
    push(boxes, "lost")
    boxes.disconnect(11, now=10.0)
    assert boxes.connect(11, "north", ["held"]) == []
    assert boxes.ready(RUN) == [(12, "south")]  # until it accepts the run again
    assert boxes.tick(20.0) == []  # back in time: the absence is forgotten
    assert delivered(boxes.accept(RUN, 11)) == ["lost"]
    assert boxes.answer(11, reply("held")).message_id == "held"
    assert boxes.answer(11, reply("lost")).message_id == "lost"


def test_a_second_absence_has_a_grace_of_its_own(boxes: Mailboxes) -> None:
    push(boxes, "m")
    boxes.disconnect(11, now=10.0)
    boxes.connect(11, "north", ["m"])
    boxes.disconnect(11, now=12.0)
    assert boxes.tick(13.0) == []
    assert failed(boxes.tick(15.0)) == [("m", Why.LOST)]


def test_a_session_that_replaces_another_loses_nothing(boxes: Mailboxes) -> None:
    push(boxes, "held")
    push(boxes, "crossing")
    assert boxes.connect(11, "north", ["held"]) == []
    assert boxes.ready(RUN) == [(11, "north"), (12, "south")]  # it never left
    assert push(boxes, "new") == []  # the new session has not accepted the run yet
    assert boxes.answer(11, reply("held")).message_id == "held"  # over either session
    assert boxes.answer(11, reply("crossing")).message_id == "crossing"
    assert delivered(boxes.accept(RUN, 11)) == ["new"]


def test_what_a_node_holds_in_vain_is_acknowledged_or_withdrawn(boxes: Mailboxes) -> None:
    push(boxes, "answered")
    push(boxes, "late", deadline=1.0)
    push(boxes, "others", 12)
    boxes.answer(11, reply("answered"))
    boxes.tick(2.0)
    effects = boxes.connect(11, "north", ["answered", "late", "others", "unheard"])
    assert effects == [
        Acknowledge(11, "answered"),
        Withdraw(11, "late"),
        Withdraw(11, "others"),
        Withdraw(11, "unheard"),
    ]


def test_a_claim_to_hold_what_was_never_sent_is_not_believed(boxes: Mailboxes) -> None:
    boxes.connect(13, "east", ())
    push(boxes, "m", 13)
    boxes.connect(13, "east", ["m"])
    assert delivered(boxes.accept(RUN, 13)) == ["m"]


def test_a_revoked_node_fails_at_once_and_for_good(boxes: Mailboxes) -> None:
    push(boxes, "m")
    effects = boxes.disconnect(11, now=10.0, gone="was revoked")
    assert [e.reason for e in effects if isinstance(e, Fail)] == ["node north was revoked"]


def test_the_first_answer_counts(boxes: Mailboxes) -> None:
    push(boxes, "m")
    boxes.answer(11, reply("m"))
    assert refusal(boxes, 11, reply("m")) == "duplicate"


def test_a_reply_to_another_nodes_message_is_refused_and_changes_nothing(boxes: Mailboxes) -> None:
    push(boxes, "m")
    assert refusal(boxes, 12, reply("m", node=12)) == "not-yours"
    assert refusal(boxes, 12, reply("m", node=11)) == "not-yours"
    assert boxes.spoil(12, "m", "whatever") == []
    boxes.answer(11, reply("m"))
    assert refusal(boxes, 12, reply("m", node=12)) == "not-yours"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (reply("m", run=8), "wrong-run"),
        (reply("m", node=12), "wrong-address"),
        (Header(reply_to="m", run_id=RUN, src_node_id=11, dst_node_id=12), "wrong-address"),
        (reply("nothing"), "unknown"),
        (reply(""), "unknown"),
    ],
)
def test_a_reply_that_contradicts_the_certificate_is_refused(
    boxes: Mailboxes, header: Header, code: str
) -> None:
    push(boxes, "m")
    assert refusal(boxes, 11, header) == code
    assert boxes.owed(11, "m").message_id == "m"  # as it was


def test_a_reply_before_its_message_was_sent_is_refused(boxes: Mailboxes) -> None:
    boxes.connect(13, "east", ())
    push(boxes, "m", 13)
    assert refusal(boxes, 13, reply("m", node=13)) == "unknown"


def test_a_spoilt_reply_settles_the_message_with_an_error(boxes: Mailboxes) -> None:
    push(boxes, "m")
    (fail,) = boxes.spoil(11, "m", "its content is missing")
    assert isinstance(fail, Fail)
    assert fail.reason == "the reply of node north was refused: its content is missing"
    assert refusal(boxes, 11, reply("m")) == "late"


def test_cancelled_messages_get_no_answer(boxes: Mailboxes) -> None:
    push(boxes, "m")
    boxes.open_run(8, GRACE)
    assert boxes.cancel(8, ["m"]) == []  # another run's
    effects = boxes.cancel(RUN, ["m", "m", "unheard"])
    assert effects[0] == Withdraw(11, "m")
    assert [type(e) for e in effects] == [Withdraw, Dropped]
    assert refusal(boxes, 11, reply("m")) == "withdrawn"


def test_the_end_of_a_run_drops_its_messages_alone(boxes: Mailboxes) -> None:
    boxes.open_run(8, GRACE)
    boxes.accept(8, 11)
    push(boxes, "m")
    boxes.push(message("other", run=8), deadline=9.0, now=0.0)
    assert [type(e) for e in boxes.close_run(RUN)] == [Dropped]
    assert boxes.owed(11, "other").message_id == "other"
    assert boxes.accept(RUN, 11) == []
    assert boxes.refuse(RUN, 11, "too late") == []
    with pytest.raises(StateError, match="run 7 is not active"):
        push(boxes, "more")


def test_a_message_id_is_used_once(boxes: Mailboxes) -> None:
    push(boxes, "m")
    with pytest.raises(ProtocolError, match="run 7: reused-id"):
        push(boxes, "m")
    boxes.answer(11, reply("m"))
    with pytest.raises(ProtocolError, match="run 7: reused-id"):
        push(boxes, "m")


def test_content_is_given_to_whom_it_was_sent(boxes: Mailboxes) -> None:
    boxes.connect(13, "east", ())
    for name, node in (("m", 11), ("queued", 13)):
        boxes.push(message(name, node), deadline=9.0, now=0.0, content=b"digest")
    assert boxes.was_given(11, RUN, b"digest")
    assert not boxes.was_given(11, RUN, b"other")
    assert not boxes.was_given(11, 8, b"digest")
    assert not boxes.was_given(12, RUN, b"digest")
    assert not boxes.was_given(13, RUN, b"digest")  # not sent yet
    boxes.answer(11, reply("m"))
    assert not boxes.was_given(11, RUN, b"digest")


def test_memory_of_settled_messages_is_bounded(
    boxes: Mailboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "REMEMBERED", 10)
    for i in range(1000):
        push(boxes, f"m{i}", deadline=1e6)
        boxes.answer(11, reply(f"m{i}"))
    assert len(boxes._settled) == 10
    assert len(boxes._due) < 100
    assert refusal(boxes, 11, reply("m0")) == "unknown"
    assert refusal(boxes, 11, reply("m999")) == "duplicate"
