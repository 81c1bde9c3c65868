"""The mailboxes under any order of what can happen: each message gets exactly one answer."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fedsec.errors import ProtocolError
from fedsec.wire.generated.message_pb2 import Header
from fedsec_server.deliveries import Acknowledge, Deliver, Dropped, Effect, Fail, Withdraw
from fedsec_server.mailbox import Mailboxes
from tests.server.test_mailbox import GRACE, message, reply

NODES = (11, 12, 13)
RUNS = (7, 8)
a_node, a_run = st.sampled_from(NODES), st.sampled_from(RUNS)
a_pause = st.floats(0.0, 4.0)


class AnyOrder(RuleBasedStateMachine):
    """Pushes, replies, duplicates, losses, returns, deadlines, cancels, in any order."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.boxes = Mailboxes()
        for run in RUNS:
            self.boxes.open_run(run, GRACE)
        self.sent: dict[str, Header] = {}
        self.answers: Counter[str] = Counter()
        self.at_node: dict[int, set[str]] = {n: set() for n in NODES}  # what agents hold
        self.here: set[int] = set()
        self.due: dict[str, float] = {}

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(delivery):
                    node = delivery.node_id
                    assert node in self.here
                    assert delivery.message_id not in self.at_node[node]  # never twice
                    self.at_node[node].add(delivery.message_id)
                case Fail(delivery) | Dropped(delivery):
                    self.answers[delivery.message_id] += 1
                case Withdraw(node, message_id) | Acknowledge(node, message_id):
                    assert node in self.here
                    self.at_node[node].discard(message_id)

    @rule(node=a_node, run=a_run, patience=st.floats(0.1, 20.0))
    def push(self, node: int, run: int, patience: float) -> None:
        header = message(f"m{len(self.sent)}", node, run)
        self.sent[header.message_id] = header
        self.due[header.message_id] = self.now + patience
        self.apply(self.boxes.push(header, deadline=self.now + patience, now=self.now))

    @rule(node=a_node, pick=st.randoms(use_true_random=False), forget=st.booleans())
    def answer(self, node: int, pick: object, forget: bool) -> None:
        """Any message, by any node: right, duplicate, late, foreign, never sent."""
        if not self.sent:
            return
        message_id = pick.choice(sorted(self.sent))  # type: ignore[attr-defined]
        run = self.sent[message_id].run_id
        try:
            self.boxes.answer(node, reply(message_id, node, run))
        except ProtocolError as error:
            settled = self.answers[message_id] == 1
            foreign = self.sent[message_id].dst_node_id != node
            never_there = error.code == "unknown" and not settled
            assert settled or foreign or never_there
        else:
            assert self.sent[message_id].dst_node_id == node
            self.answers[message_id] += 1
        if forget:  # the acknowledgement arrives; else it is lost with the session
            self.at_node[node].discard(message_id)

    @rule(node=a_node, run=a_run)
    def accept(self, node: int, run: int) -> None:
        self.apply(self.boxes.accept(run, node))

    @rule(node=a_node, run=a_run)
    def refuse(self, node: int, run: int) -> None:
        self.apply(self.boxes.refuse(run, node, "not here"))

    @rule(node=a_node, restarted=st.booleans())
    def connect(self, node: int, restarted: bool) -> None:
        if restarted:
            self.at_node[node].clear()
        self.here.add(node)
        self.apply(self.boxes.connect(node, f"n{node}", sorted(self.at_node[node])))

    @rule(node=a_node, gone=st.sampled_from(["", "was revoked"]))
    def lose(self, node: int, gone: str) -> None:
        if node in self.here:
            self.here.discard(node)
            self.apply(self.boxes.disconnect(node, self.now, gone))

    @rule(run=a_run, pick=st.randoms(use_true_random=False))
    def cancel(self, run: int, pick: object) -> None:
        ids = [m for m in sorted(self.sent) if pick.random() < 0.2]  # type: ignore[attr-defined]
        self.apply(self.boxes.cancel(run, ids))

    @rule(node=a_node)
    def spoil(self, node: int) -> None:
        for message_id in sorted(self.at_node[node])[:1]:
            self.apply(self.boxes.spoil(node, message_id, "nonsense"))

    @rule(run=a_run)
    def reopen(self, run: int) -> None:
        self.apply(self.boxes.close_run(run))
        self.boxes.open_run(run, GRACE)

    @rule(pause=a_pause)
    def wait(self, pause: float) -> None:
        self.now += pause
        self.apply(self.boxes.tick(self.now))

    @invariant()
    def at_most_one_answer_and_none_overdue(self) -> None:
        assert all(count == 1 for count in self.answers.values())
        open_ones = [m for m in self.sent if not self.answers[m]]
        assert all(self.due[m] > self.now for m in open_ones if m in self.due) or not open_ones
        if open_ones:
            due = self.boxes.next_due()
            assert due is not None
            assert due <= min(self.due[m] for m in open_ones)

    def teardown(self) -> None:
        if hasattr(self, "boxes"):
            self.apply(self.boxes.tick(self.now + 100.0))
            assert self.answers == Counter(dict.fromkeys(self.sent, 1))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40)
