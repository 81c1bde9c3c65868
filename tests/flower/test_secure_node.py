"""The node's half around an app: what a coordinator may not have it do."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedsec.errors import ConfigError, PolicyRefusal, ProtocolError
from fedsec.flower.local import node_contexts
from fedsec.flower.messages import Heading, instruction
from fedsec.flower.mod import guard
from fedsec.flower.node_privacy import NodePrivacy, unchanged
from fedsec.flower.secure_messages import SECAGG, Stage, request, with_stage
from fedsec.flower.secure_node import Identity, MemoryTurns, SecureNode, coding
from fedsec.flwr_compat import become, set_message_id
from fedsec.plan import FederationPlan
from fedsec.secagg.messages import Roster
from fedsec.secagg.parameters import Minima
from tests.flower.fakes import answering, raising
from tests.flower.secure import guarded, roster, secure_plan, signer

PLAN = secure_plan()
NODE = 100
numbers = iter(range(10_000))


def ask(content: RecordDict, kind: str = "train") -> Message:
    become(1, 1, 1)
    message = Message(content, NODE, kind)
    set_message_id(message, f"message-{next(numbers)}")
    return message


def train(round_number: int = 1, attempt: int = 1, plan: FederationPlan = PLAN) -> RecordDict:
    arrays = {"w": np.zeros(3, np.float32)}
    return instruction(arrays, round_number=round_number, attempt=attempt, plan=plan.digest)


@pytest.fixture
def node() -> Callable[[Message], Message]:
    context = node_contexts(1, {})[NODE]
    app: ClientAppCallable = guarded(PLAN, NODE, answering([1.0, 2.0, 3.0]))
    return lambda message: app(message, context)


def test_an_update_does_not_leave_in_plain(node: Callable[[Message], Message]) -> None:
    with pytest.raises(PolicyRefusal, match="leave in plain"):
        node(ask(train()))


def test_an_evaluation_of_one_node_does_not_leave(node: Callable[[Message], Message]) -> None:
    with pytest.raises(PolicyRefusal, match="no figure of one node"):
        node(ask(train(), "evaluate"))


def test_a_turn_begins_once_even_in_another_process() -> None:
    context = node_contexts(1, {})[NODE]
    for fresh in range(2):  # a worker that was replaced remembers nothing but context.state
        app = guarded(PLAN, NODE, answering([1.0, 2.0, 3.0]))
        if fresh == 0:
            app(ask(with_stage(train(2))), context)
        for round_number, attempt in ((2, 1), (1, 3)):
            with pytest.raises(PolicyRefusal, match=r"was asked for before|made once"):
                app(ask(with_stage(train(round_number, attempt))), context)
        if fresh == 1:
            app(ask(with_stage(train(2, 2))), context)


def test_a_turn_is_kept_before_the_app_runs_so_that_a_failed_one_is_not_begun_again() -> None:
    """Else a model that fails on certain records alone could be sent without end, to tell them."""
    disk: list[RecordDict] = []

    def ask_a_fresh_process(app: ClientAppCallable, attempt: int = 1) -> Message:
        context = node_contexts(1, {})[NODE]
        context.state = deepcopy(disk[-1]) if disk else RecordDict()
        mod = guard(
            PLAN,
            lambda _plan: None,
            Identity(signer(NODE)),
            keep=lambda kept: disk.append(deepcopy(kept.state)),
        )
        return mod(ask(with_stage(train(attempt=attempt))), context, app)

    with pytest.raises(ValueError, match="certain records"):
        ask_a_fresh_process(raising(ValueError("certain records")))
    with pytest.raises(PolicyRefusal, match="a secure sum is made once"):
        ask_a_fresh_process(raising(ValueError("certain records")))
    assert len(disk) == 1
    assert ask_a_fresh_process(answering([1.0, 2.0, 3.0]), attempt=2).has_content()


@pytest.mark.parametrize("stage", [Stage.NONCE, Stage.SHARES, Stage.VECTOR, Stage.REVEAL])
def test_a_stage_of_a_turn_that_did_not_begin(
    node: Callable[[Message], Message], stage: Stage
) -> None:
    with pytest.raises(PolicyRefusal, match="not in it"):
        node(ask(request(stage, Heading(1, 1, PLAN.digest), bytes(8))))


def test_a_vector_that_does_not_leave_is_not_paid_for() -> None:
    paid: list[tuple[int, int]] = []
    private = NodePrivacy(None, unchanged, pay=lambda *turn: paid.append(turn))
    app, context = (
        guarded(PLAN, NODE, answering([1.0] * 3), private=private),
        node_contexts(1, {})[NODE],
    )
    with pytest.raises(PolicyRefusal, match="not in it"):
        app(ask(request(Stage.VECTOR, Heading(1, 1, PLAN.digest), bytes(8))), context)
    app(ask(with_stage(train(1, 2))), context)
    with pytest.raises(ProtocolError, match="malformed"):
        app(ask(request(Stage.VECTOR, Heading(1, 2, PLAN.digest), b"\xff" * 44)), context)
    assert paid == []


@pytest.mark.parametrize(("most", "refused"), [(0, False), (3, False), (2, True)])
def test_a_site_says_how_often_a_round_may_be_tried(most: int, refused: bool) -> None:
    def begin() -> None:
        guarded(PLAN, NODE, answering([1.0]), minima=Minima(attempts=most))

    if refused:
        why = r"round\.attempts = 3 is more than this node's policy\.max_attempts = 2"
        with pytest.raises(PolicyRefusal, match=why):
            begin()
    else:
        begin()


def test_a_stage_of_another_attempt_of_the_same_round(node: Callable[[Message], Message]) -> None:
    node(ask(with_stage(train(1, 1))))
    with pytest.raises(PolicyRefusal, match="not in it"):
        node(ask(request(Stage.SHARES, Heading(1, 2, PLAN.digest), bytes(8))))


def test_a_stage_under_another_plan(node: Callable[[Message], Message]) -> None:
    node(ask(with_stage(train())))
    with pytest.raises(PolicyRefusal, match="belongs to plan"):
        node(ask(request(Stage.SHARES, Heading(1, 1, "0" * 64), bytes(8))))


@pytest.mark.parametrize("stage", [Stage.NONCE, Stage.SHARES, Stage.VECTOR, Stage.REVEAL])
def test_rubbish_at_any_stage_is_refused(node: Callable[[Message], Message], stage: Stage) -> None:
    node(ask(with_stage(train())))
    with pytest.raises(ProtocolError, match="malformed"):
        node(ask(request(stage, Heading(1, 1, PLAN.digest), b"\xff" * 44)))


def test_an_unknown_stage_is_refused(node: Callable[[Message], Message]) -> None:
    content = train()
    content[SECAGG] = ConfigRecord({"stage": "tell-all", "body": b""})
    with pytest.raises(ProtocolError, match="no such stage"):
        node(ask(content))


def test_the_app_sees_no_trace_of_the_sum() -> None:
    seen: list[Message] = []

    def app(message: Message, context: object) -> Message:
        seen.append(message)
        return answering([1.0, 2.0, 3.0])(message, context)  # type: ignore[arg-type]

    guarded(PLAN, NODE, app)(ask(with_stage(train())), node_contexts(1, {})[NODE])
    assert set(seen[0].content) == {"model", "instruction"}


def test_a_node_without_signing_key_takes_no_part() -> None:
    with pytest.raises(ConfigError, match="no signing key"):
        guard(PLAN, lambda _plan: None)


def test_malicious_mode_without_roster_is_refused_by_the_node() -> None:
    plan = secure_plan('mode = "malicious"\nclip = 1.0')
    app = guarded(plan, NODE, answering([1.0, 2.0, 3.0]), None)
    with pytest.raises(ConfigError, match="signed roster"):
        app(ask(with_stage(train(plan=plan))), node_contexts(1, {})[NODE])


def test_a_roster_that_expires_in_the_course_of_a_run_begins_no_further_round() -> None:
    plan = secure_plan('mode = "malicious"\nclip = 1.0')
    until = datetime(2026, 3, 1, 12, tzinfo=UTC)
    identity = Identity(signer(NODE), roster(5), until=until)
    now = [until]
    turns, context = MemoryTurns(), node_contexts(1, {})[NODE]
    node = SecureNode(plan, identity, coding(plan), turns, now=lambda: now[0])
    app = answering([1.0, 2.0, 3.0])
    node(ask(with_stage(train(1, plan=plan))), context, app)
    now[0] += timedelta(seconds=1)
    stage = request(Stage.NONCE, Heading(1, 1, plan.digest), Roster(()).to_bytes())
    with pytest.raises(ProtocolError, match="not-mine"):  # what began is carried on
        node(ask(stage), context, app)
    for content in (
        with_stage(train(2, plan=plan)),
        request(Stage.ENTRY, Heading(2, 1, plan.digest), b""),
    ):
        with pytest.raises(PolicyRefusal, match="roster expired at 2026-03-01 12:00:00 UTC"):
            node(ask(content), context, app)


def test_a_turn_that_is_refused_leaves_the_one_that_is_under_way() -> None:
    turns, context = MemoryTurns(), node_contexts(1, {})[NODE]
    node, app = SecureNode(PLAN, Identity(signer(NODE)), coding(PLAN), turns), answering([1.0] * 3)
    node(ask(with_stage(train(2))), context, app)
    under_way = turns.get(context)
    for round_number in (1, 2):
        with pytest.raises(PolicyRefusal, match="made once"):
            node(ask(with_stage(train(round_number))), context, app)
    assert turns.get(context) is under_way is not None


def test_a_figure_that_the_app_does_not_report_is_named() -> None:
    plan = secure_plan('mode = "semi-honest"\nclip = 1.0\nmetrics = { accuracy = [0.0, 1.0] }')
    app = guarded(plan, NODE, answering([1.0, 2.0, 3.0]))
    with pytest.raises(ConfigError, match=r"'accuracy'.*reports train-loss"):
        app(ask(with_stage(train(plan=plan))), node_contexts(1, {})[NODE])
