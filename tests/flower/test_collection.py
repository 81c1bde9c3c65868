"""From replies to rows, and the two values that a round holds: a collection and a combination."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import StateError
from fedsec.flower.arrays import pack
from fedsec.flower.collection import Attempt, AttemptMissed, Collected, Plain, Post
from fedsec.flower.combination import Combined
from fedsec.flower.messages import Heading, instruction, read_heading
from fedsec.flower.replies import sort_replies
from fedsec.flower.rounds import Rounds
from fedsec.flower.strategy import ServerState, Weighting
from fedsec.vectors import Arrays
from tests.flower.fakes import FakeGrid, answering, plan, raw_reply
from tests.flower.test_rounds import START, UPDATES, begin, four_nodes, rounds

# --- replies in any order --------------------------------------------------------------------------


def messages() -> list[Message]:
    FakeGrid([])  # gives this process its identity
    content = instruction(START, round_number=1, plan="x")
    out = [Message(content, dst_node_id=node, message_type="train") for node in (5, 6, 7, 8)]
    replies = [Message(raw_reply(pack(np.full(3, m.metadata.dst_node_id, np.float32))), reply_to=m)
               for m in out]  # fmt: skip
    replies[3] = Message(Error(2, ""), reply_to=out[3])
    return replies


class Handing(FakeGrid):
    """Hands out these replies, whatever was asked."""

    def __init__(self, replies: Sequence[Message]) -> None:
        super().__init__([])
        self.replies = replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self.replies


@given(st.permutations(range(4)))
def test_no_order_of_replies_matters(order: list[int]) -> None:
    replies = messages()
    post = Post(Handing([replies[i] for i in order]), deadline_s=9)
    collected = Plain(3, Weighting())(post, Attempt(1, 1, (5, 6, 7, 8, 9), RecordDict()))
    assert collected.groups == ((5,), (6,), (7,))
    np.testing.assert_array_equal(collected.rows[:, 0], [5, 6, 7])
    assert dict(collected.failed) == {8: "error 2", 9: "no answer within 9 s (round.deadline_s)"}


def test_the_first_of_two_replies_counts_and_strangers_are_not_heard() -> None:
    replies = messages()
    answers, failed, rejected = sort_replies([5, 8], [*replies, *messages()], "silent")
    assert (list(answers), failed) == ([5], {8: "error 2"})
    assert answers[5] is replies[0].content
    assert rejected.keys() == {6, 7}
    assert rejected[6].startswith("not-asked")


# --- the seam --------------------------------------------------------------------------------------


def test_rows_of_groups_count_with_all_their_nodes() -> None:
    """As secure aggregation gives them: a row per group, no metrics."""
    grid = FakeGrid([answering(update) for update in UPDATES])

    def grouped(post: Post, attempt: Attempt) -> Collected:
        groups = ((100, 101, 103), (102,))
        rows = np.array([[3, 3, 3], [-1, -1, -1]], np.float32)
        return Collected(rows, groups, np.array([3.0, 1.0]), (), {}, {})

    state = Rounds(four_nodes(), grid, grid, size=3, collect=grouped)(begin(), 1)
    np.testing.assert_allclose(state.vector, START["w"] + 2)
    (report,) = grid.of("round")
    assert report["answered"] == [100, 101, 102, 103]
    assert not report.keys() & {"train_loss", "examples"}


def test_a_combination_may_ask_for_another_attempt_and_keeps_its_memory() -> None:
    grid = FakeGrid([answering(update) for update in UPDATES])
    seen: list[tuple[int, int, list[float]]] = []

    def combine(attempt: Attempt, collected: Collected, memory: Arrays) -> Combined:
        before = memory.get("seen", np.zeros(0))
        seen.append((attempt.round, attempt.number, before.tolist()))
        if (attempt.round, attempt.number) == (2, 1):
            raise AttemptMissed("2 hostile nodes are too many", {}, {103: "not-finite"})
        after = {"seen": np.append(before, attempt.round)}
        return Combined(collected.rows[0].copy(), after, {"sigma": 0.5})

    run = Rounds(four_nodes(), grid, grid, size=3, combine=combine)
    state = run(run(begin(), 1), 2)
    assert seen == [(1, 1, []), (2, 1, [1]), (2, 2, [1])]
    assert state.memory["seen"].tolist() == [1, 2]
    assert [(each["attempt"], each["sigma"]) for each in grid.of("round")] == [(1, 0.5), (2, 0.5)]
    (note,) = grid.of("note")
    assert note["text"] == "round 2, attempt 1: 2 hostile nodes are too many"
    assert note["rejected"] == {"103": "not-finite"}
    again = ServerState.from_arrays(state.to_arrays(), state.to_json())
    assert again.memory["seen"].tolist() == [1, 2]


def test_an_instruction_says_which_attempt_it_is() -> None:
    headings: list[Heading] = []

    def app(message: Message, context: Context) -> Message:
        headings.append(read_heading(message.content))
        raise ConnectionError("lost")

    of = plan(more="[nodes]\nmin_available = 1\n[round]\nattempts = 3\n")
    with pytest.raises(StateError, match="did not come about in 3 of 3"):
        rounds(FakeGrid([app]), of)(begin(), 1)
    assert headings == [Heading(1, attempt, of.digest) for attempt in (1, 2, 3)]
