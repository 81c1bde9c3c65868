"""The node's half: the app sees only what the plan announced."""

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedsec.errors import PolicyRefusal, ProtocolError
from fedsec.flower.messages import instruction
from fedsec.flower.mod import guard
from fedsec.flwr_compat import become, set_message_id
from fedsec.plan import FederationPlan
from tests.flower.fakes import plan

PLAN = plan("rounds = 3", "[round]\nattempts = 2\n")
FLOWER = FederationPlan.parse('schema = 1\nname = "x"\n[app]\nname = "theirs"\n')


def allow(_plan: FederationPlan) -> None:
    return None


def context(run_id: int = 1) -> Context:
    return Context(run_id, 7, {}, RecordDict(), {})


def message(
    number: int = 1,
    kind: str = "train",
    digest: str = PLAN.digest,
    name: str = "m1",
    attempt: int = 1,
) -> Message:
    become(1, 1, 1)
    arrays = {"w": np.ones(1, np.float32)}
    content = instruction(arrays, round_number=number, attempt=attempt, plan=digest)
    made = Message(content, dst_node_id=7, message_type=kind)
    set_message_id(made, name)
    return made


def seeing(calls: list[Message]) -> ClientApp:
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        calls.append(message)
        return Message(RecordDict(), reply_to=message)

    for register in (app.train, app.evaluate, app.query):
        register()(answer)
    app.train("twice")(answer)
    return app


def test_what_the_plan_announced_reaches_the_app() -> None:
    calls: list[Message] = []
    mod = guard(PLAN, allow)
    for number in (1, 2, 3):
        for kind in ("train", "evaluate"):
            reply = mod(message(number, kind, name=f"{kind}{number}"), context(), seeing(calls))
            assert reply.has_content()
    assert len(calls) == 6


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (message(4), r"round 4; the plan has 3 \(training\.rounds\)"),
        (message(attempt=3), r"attempt 3 at round 1; the plan has 2 \(round\.attempts\)"),
        (message(digest="f" * 64), "belongs to plan 'ffffffffffffffff', this node agreed to"),
        (message(kind="query"), "a message of type 'query'; the plan announces train, evaluate"),
        (message(kind="train.twice"), "a message of type 'train.twice'"),
    ],
)
def test_anything_else_does_not(wrong: Message, reason: str) -> None:
    calls: list[Message] = []
    with pytest.raises(PolicyRefusal, match=reason):
        guard(PLAN, allow)(wrong, context(), seeing(calls))
    assert calls == []


def test_a_message_of_another_run_is_refused() -> None:
    calls: list[Message] = []
    with pytest.raises(PolicyRefusal, match="a message of run 1, this is run 2"):
        guard(PLAN, allow)(message(), context(run_id=2), seeing(calls))
    assert calls == []


def test_a_malformed_message_is_the_coordinators_fault() -> None:
    bad = message()
    bad.content = RecordDict()
    with pytest.raises(ProtocolError, match="coordinator: bad-instruction"):
        guard(PLAN, allow)(bad, context(), seeing([]))


def test_each_attempt_is_worked_on_once() -> None:
    calls: list[Message] = []
    mod, app = guard(PLAN, allow), seeing(calls)
    for _ in range(2):  # each delivered twice, as after a lost connection
        mod(message(name="m1"), context(), app)
        mod(message(name="m2", attempt=2), context(), app)
    for attempt in (1, 2):
        with pytest.raises(PolicyRefusal, match=f"train of round 1, attempt {attempt}, was asked"):
            mod(message(name="m3", attempt=attempt), context(), app)
    mod(message(kind="evaluate", name="m4"), context(), app)
    mod(message(number=2, name="m5"), context(), app)
    assert len(calls) == 6


def test_the_site_is_asked_for_every_message() -> None:
    answers = iter([None, PolicyRefusal("the budget is spent")])

    def changing(asked: FederationPlan) -> None:
        assert asked is PLAN
        answer = next(answers)
        if answer is not None:
            raise answer

    calls: list[Message] = []
    mod = guard(PLAN, changing)
    mod(message(), context(), seeing(calls))
    with pytest.raises(PolicyRefusal, match="the budget is spent"):
        mod(message(2), context(), seeing(calls))
    assert len(calls) == 1


def test_a_flower_app_gets_its_own_messages_but_only_of_its_run() -> None:
    calls: list[Message] = []
    mod = guard(FLOWER, allow)
    for kind in ("query", "train.twice", "evaluate"):
        mod(message(kind=kind), context(), seeing(calls))
    assert len(calls) == 3
    with pytest.raises(PolicyRefusal, match="a message of run 1, this is run 9"):
        mod(message(), context(run_id=9), seeing(calls))


def test_the_app_cannot_leave_it_out() -> None:
    """The app's own mods run inside; what they change does not reach the check."""
    seen: list[str] = []

    def rewriting(message: Message, context: Context, inner: ClientAppCallable) -> Message:
        seen.append("mod")
        return inner(message, context)

    app = ClientApp(mods=[rewriting])
    app.train()(lambda message, _context: Message(RecordDict(), reply_to=message))
    with pytest.raises(PolicyRefusal):
        guard(PLAN, allow)(message(4), context(), app)
    assert seen == []
    guard(PLAN, allow)(message(), context(), app)
    assert seen == ["mod"]
