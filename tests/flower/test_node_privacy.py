"""Around any app: updates leave noised, charged, once, and alone; figures do not leave at all."""

import numpy as np
import pytest
from flwr.app import Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable

from fedsec.errors import BudgetExhausted, ConfigError, PolicyRefusal, ProtocolError
from fedsec.flower.messages import METRICS, Heading, read_bare_train_reply
from fedsec.flower.mod import guard
from fedsec.flower.node_privacy import NodePrivacy, unchanged
from fedsec.flower.publishing import Trial
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.ledger import Budget, Guarantee, Terms
from fedsec.vectors import Vector
from tests.flower import test_mod
from tests.flower.fakes import answering, plan, replying

PLAN = plan(
    "rounds = 3",
    """
[privacy]
model = "local"
epsilon = 8.0
delta = 1e-5
noise_multiplier = 4.0
clip = 1.0
""",
)
TERMS = Terms(Guarantee("node", "zero-out", "coordinator", "a test"), Price(Gaussian(1.0)), 3)
UPDATE = [1.0, 2.0, 3.0]


def message(number: int = 1, kind: str = "train", attempt: int = 1) -> Message:
    name = f"{kind} {number} {attempt}"
    return test_mod.message(number, kind, PLAN.digest, name, attempt)


def sent(reply: Message) -> list[float]:
    row = np.empty(3, np.float32)
    read_bare_train_reply("7", reply.content, row)  # which refuses anything beside the update
    return row.tolist()


def doubled(update: Vector, heading: Heading) -> Vector:
    return update * np.float32(2 * heading.round)


class Counting:
    """An app that trains a new update each time."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, message: Message, context: Context) -> Message:
        self.calls += 1
        return answering([float(self.calls)] * 3)(message, context)


def ask(private: NodePrivacy, asked: Message, app: ClientAppCallable) -> Message:
    return guard(PLAN, test_mod.allow, private=private)(asked, test_mod.context(), app)


def test_an_update_goes_through_the_transform_and_leaves_alone() -> None:
    private = NodePrivacy(Trial(TERMS), doubled)
    reply = ask(private, message(2), answering(UPDATE))
    assert sent(reply) == [4.0, 8.0, 12.0]
    assert METRICS not in reply.content


def test_a_retry_gets_what_was_sent_before_and_trains_nothing() -> None:
    trial, app = Trial(TERMS), Counting()
    private = NodePrivacy(trial, unchanged)
    first = sent(ask(private, message(1, attempt=1), app))
    assert sent(ask(private, message(1, attempt=2), app)) == first
    assert app.calls == 1
    assert len(trial.book.charges) == 1
    assert sent(ask(private, message(2), app)) != first


def test_what_only_the_coordinator_hides_is_not_charged_here() -> None:
    app = Counting()
    private = NodePrivacy(None, unchanged)
    for attempt in (1, 2):
        ask(private, message(1, attempt=attempt), app)
    assert app.calls == 2


def test_figures_are_withheld() -> None:
    with pytest.raises(PolicyRefusal, match="withheld"):
        ask(NodePrivacy(Trial(TERMS), unchanged), message(1, "evaluate"), answering(UPDATE))


def test_beyond_the_budget_nothing_leaves_and_the_reason_tells_no_figures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trial = Trial(TERMS, Budget(1.0, 1e-5, "the site"), lambda p, _: p[0].count)
    private = NodePrivacy(trial, unchanged)
    ask(private, message(1), answering(UPDATE))
    with pytest.raises(PolicyRefusal) as caught:
        ask(private, message(2), answering(UPDATE))
    assert isinstance(caught.value.__cause__, BudgetExhausted)
    assert "epsilon" not in str(caught.value)
    assert "epsilon would be 2" in caplog.text


def test_an_app_that_fails_costs_nothing() -> None:
    trial = Trial(TERMS)

    def failing(message: Message, context: Context) -> Message:
        return Message(Error(2, "no"), reply_to=message)

    reply = ask(NodePrivacy(trial, unchanged), message(1), failing)
    assert reply.error.reason == "no"
    assert trial.book.charges == []


def test_an_app_that_gives_no_update_is_named() -> None:
    empty = replying(answering(UPDATE)(message(1), test_mod.context()).content.copy())
    private = NodePrivacy(Trial(TERMS), unchanged)
    assert sent(ask(private, message(1), empty)) == UPDATE

    def evaluating(asked: Message, context: Context) -> Message:
        return Message(test_mod.RecordDict(), reply_to=asked)

    with pytest.raises(ProtocolError, match="app: bad-records"):
        ask(private, message(2), evaluating)


def test_a_plan_with_privacy_does_not_run_without_the_node_s_half() -> None:
    with pytest.raises(ConfigError, match="node's half"):
        guard(PLAN, test_mod.allow)
