"""A coordinator that lies about groups to real guards: each lie is refused, and the run goes on.

The coordinator is fedsec's own, in whose messages to some node something else is put in; where it
would notice that itself, the draw is made by hand. Lies about one sum of all nodes, program against
program: tests/end_to_end/test_lying_coordinator.py.
"""

import copy
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np
import pytest
from flwr.app import Message

from fedsec.flower.asked import digest_of
from fedsec.flower.collection import Attempt, Collected, Post
from fedsec.flower.group_node import placed
from fedsec.flower.messages import Heading, instruction
from fedsec.flower.reporting import ROUND
from fedsec.flower.rounds import Rounds
from fedsec.flower.secure_messages import (
    BODY,
    SECAGG,
    Stage,
    read_grouping_reply,
    read_stage,
    request,
)
from fedsec.flower.secure_session import make_setting
from fedsec.flower.secure_sum import SecureSum
from fedsec.flower.strategy import FedAvg, ServerState
from fedsec.flower.sums import sum_form
from fedsec.flower.table import collection
from fedsec.plan import FederationPlan
from fedsec.secagg import node as protocol
from fedsec.secagg.group_messages import Entries, Entry, Reveal
from fedsec.secagg.messages import Offer, Roster, Survivors
from fedsec.secagg.node import Node
from fedsec.secagg.parameters import Minima
from tests.flower.fakes import Waiting, answering
from tests.flower.secure import FIRST, SecureGrid, guarded, signer

N, SIZE = 10, 3
NODES = tuple(range(FIRST, FIRST + N))
UPDATES = np.random.default_rng(5).normal(size=(N + 1, SIZE)).tolist()
PLAN = f"""
schema = 1
name = "lies"
visibility = "groups"
[task]
name = "digits"
[training]
rounds = 3
[nodes]
min_available = {N}
quorum = 5
[round]
attempts = 2
deadline_s = 5
reconnect_s = 1
[secure_aggregation]
mode = "malicious"
clip = 20.0
group_size = 5
corrupt_per_group = 1
"""
AGREED = FederationPlan.parse(PLAN)

Lie: TypeAlias = Callable[[Mapping[int, bytes]], bytes]
"""From what each node is to be told at a stage to what one of them is told."""


class LyingGrid(SecureGrid):
    """Puts lies into what the coordinator says to some nodes at some stages."""

    lies: Mapping[tuple[int, Stage], Lie] = {}
    shown: bytes
    """Digest of what the nodes were asked to work on last."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        if stage_of(sent[0]) is Stage.OFFER:
            self.shown = digest_of(sent[0].content)
        said = {each.metadata.dst_node_id: body_of(each) for each in sent}
        for message in sent:
            lie = self.lies.get((message.metadata.dst_node_id, stage_of(message)))
            if lie is not None:
                content = copy.deepcopy(message.content)  # it may be that of other nodes, too
                content.config_records[SECAGG][BODY] = lie(said)
                message.content = content
        return super().push_messages(sent)

    def refusals(self, node: int) -> list[str]:
        """Returns what a node refused so far, as it says."""
        mine = [each for each in self.came if each.metadata.src_node_id == node]
        return [each.error.reason for each in mine if each.has_error()]


def stage_of(message: Message) -> Stage:
    stage = read_stage(message.content)
    assert stage is not None
    return stage


def body_of(message: Message) -> bytes:
    body = message.content.config_records[SECAGG][BODY]
    assert isinstance(body, bytes)
    return body


def make_grid(many: int = N, minima: Mapping[int, Minima] | None = None) -> LyingGrid:
    return LyingGrid(AGREED, UPDATES[:many], minima=minima or {})


def begin(grid: LyingGrid) -> tuple[Rounds, ServerState]:
    collect = collection(AGREED, SIZE, grid.trusted)
    rounds = Rounds(AGREED, grid, grid, size=SIZE, collect=collect, clock=Waiting().clock)
    return rounds, ServerState.begin({"w": np.zeros(SIZE, np.float32)}, FedAvg())


def groups_of(grid: LyingGrid) -> list[tuple[int, ...]]:
    """Returns the groups, as each node keeps them in mind."""
    known = (placed(context) for context in grid._contexts.values())
    return sorted({tuple(each.members) for each in known if each is not None})


def answered(grid: LyingGrid) -> object:
    return grid.of(ROUND)[-1]["answered"]


# --- two sums of one round -----------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, 2])
def test_two_sums_of_a_group_tell_a_node_s_update_unless_there_is_one_attempt(
    attempts: int,
) -> None:
    agreed = FederationPlan.parse(PLAN.replace("attempts = 2", f"attempts = {attempts}"))
    grid = LyingGrid(agreed, UPDATES[:N])
    collect = SecureSum(agreed, SIZE, grid.trusted)

    def opened(number: int, nodes: tuple[int, ...]) -> Collected:
        model = {"w": np.zeros(SIZE, np.float32)}
        content = instruction(model, round_number=1, plan=agreed.digest, attempt=number)
        post = Post(grid, 5.0, clock=Waiting().clock)
        return collect(post, Attempt(1, number, nodes, content))

    everybody = opened(1, NODES)
    group, with_victim = everybody.groups[0], everybody.rows[0].copy()
    victim, rest = group[-1], tuple(node for node in NODES if node != group[-1])
    if attempts == 2:
        without = opened(2, rest)
        (place,) = (at for at, others in enumerate(without.groups) if set(others) < set(group))
        told = len(group) * with_victim - (len(group) - 1) * without.rows[place]
        np.testing.assert_allclose(told, UPDATES[victim - FIRST], atol=1e-4)
        return
    refused_over(opened(2, rest), "the plan has 1 (round.attempts)")
    refused_over(opened(1, rest), "was asked for before")
    for node, update in enumerate(UPDATES[:N], FIRST):  # programs that start again remember
        grid._apps = {**grid._apps, node: guarded(agreed, node, answering(update), grid.trusted)}
    refused_over(opened(1, rest), "a secure sum is made once")


def refused_over(collected: Collected, why: str) -> None:
    """Checks that there is no sum, since every node that was asked refused for this reason."""
    assert collected.groups == ()
    asked = [reason for reason in collected.failed.values() if reason != "it is not there"]
    assert len(asked) == N - 1
    assert all(why in reason for reason in asked)


# --- the draw, by hand ---------------------------------------------------------------------------


def ask(
    grid: LyingGrid, stage: Stage, body: bytes, node: int, *, number: int = 1, attempt: int = 1
) -> Message:
    content = request(stage, Heading(number, attempt, AGREED.digest), body)
    (reply,) = grid.send_and_receive([Message(content, node, "train", group_id="1")])
    return reply


def why(reply: Message) -> str:
    assert reply.has_error()
    return str(reply.error.reason)


def entries_of(grid: LyingGrid, attempt: int = 1) -> tuple[Entry, ...]:
    """Returns the entry of every node."""
    found = []
    for node in sorted(grid._contexts):
        reply = ask(grid, Stage.ENTRY, b"", node, attempt=attempt)
        entry = read_grouping_reply(Stage.ENTRY, reply.content, str(node))
        assert isinstance(entry, Entry)
        found.append(entry)
    return tuple(found)


def reveals_of(grid: LyingGrid, shown: Mapping[int, Entries]) -> tuple[Reveal, ...]:
    """Returns what every node reveals to the list that it is shown."""
    found = []
    for node, entries in shown.items():
        reply = ask(grid, Stage.PART, entries.to_bytes(), node)
        reveal = read_grouping_reply(Stage.PART, reply.content, str(node))
        assert isinstance(reveal, Reveal)
        found.append(reveal)
    return tuple(found)


def restart(grid: LyingGrid, node: int) -> None:
    """Has a node's process begin anew; what it keeps in mind for the run stays."""
    place = node - FIRST
    app = answering(UPDATES[place])
    grid._apps[node] = guarded(AGREED, node, app, grid.trusted)


def test_no_two_nodes_accept_different_groupings() -> None:
    """Eleven nodes; two of them are shown ten, the last one is missing from their list."""
    grid = make_grid(N + 1)
    entries = entries_of(grid)
    whole, short = Entries(entries), Entries(entries[:-1])
    misled = {FIRST + 3, FIRST + 4}
    nodes = sorted(grid._contexts)
    reveals = reveals_of(grid, {node: short if node in misled else whole for node in nodes})

    def told(entries: Entries) -> bytes:
        return Entries(entries.entries, reveals[: len(entries.entries)]).to_bytes()

    # Each list has signatures of some of its nodes only: no node takes either for the outcome.
    for node in nodes:
        said = told(short if node in misled else whole)
        if node == FIRST + 4:
            said = told(whole)  # which it has not signed
            assert "equivocation" in why(ask(grid, Stage.GROUPS, said, node))
        else:
            assert "bad-signature" in why(ask(grid, Stage.GROUPS, said, node))
    assert groups_of(grid) == []
    for node in nodes:  # and so nobody gives anything to a sum
        assert "this node is in no group" in why(ask(grid, Stage.OFFER, b"", node))


def test_no_draw_is_held_twice() -> None:
    """Neither in one process, nor after a restart; an earlier one not after a later one."""
    grid = make_grid()
    victim = FIRST
    entries_of(grid, attempt=2)
    assert "was asked for before" in why(ask(grid, Stage.ENTRY, b"", victim, attempt=2))
    assert "draw 1 of the groups comes after draw 2" in why(ask(grid, Stage.ENTRY, b"", victim))
    restart(grid, victim)
    again = ask(grid, Stage.ENTRY, b"", victim, attempt=2)
    assert "draw 2 of the groups comes after draw 2" in why(again)
    assert "this node is in no draw" in why(ask(grid, Stage.PART, b"\0" * 8, victim, attempt=2))


def test_a_list_is_signed_once() -> None:
    grid = make_grid(N + 1)
    entries = entries_of(grid)
    reveals_of(grid, dict.fromkeys([FIRST], Entries(entries)))
    other = Entries(entries[:-1]).to_bytes()
    assert "was asked for before" in why(ask(grid, Stage.PART, other, FIRST))
    later = ask(grid, Stage.PART, other, FIRST, attempt=2)  # its state is that of draw 1
    assert "out-of-order" in why(later)


def test_a_group_that_stands_outlives_a_restart() -> None:
    grid = make_grid()
    rounds, state = begin(grid)
    state = rounds(state, 1)
    groups = groups_of(grid)
    restart(grid, FIRST)
    assert "this node's group stands" in why(ask(grid, Stage.ENTRY, b"", FIRST, attempt=2))
    rounds(state, 2)
    assert groups_of(grid) == groups
    assert answered(grid) == list(NODES)


def test_a_smaller_group_than_the_site_allows_gets_nothing_of_it() -> None:
    grid = make_grid(minima={FIRST: Minima(group=6)})
    rounds, state = begin(grid)
    rounds(state, 1)
    refused = grid.refusals(FIRST)
    assert "5 nodes in a group, less than this node's policy.min_group = 6" in refused[0]
    assert "this node is in no group" in refused[-1]
    assert answered(grid) == list(NODES[1:])


# --- sums ----------------------------------------------------------------------------------------


HEADING = Heading(2, 1, AGREED.digest)


def with_offer(roster_shown: bytes, stranger: Offer) -> bytes:
    offers = (*Roster.read(roster_shown, "it").offers, stranger)
    return Roster(tuple(sorted(offers, key=lambda offer: offer.node))).to_bytes()


def a_stranger(grid: LyingGrid, victim: int, other: int) -> Lie:
    """The offer that a node of another group made for its own group."""
    del grid

    def lie(said: Mapping[int, bytes]) -> bytes:
        offers = {offer.node: offer for offer in Roster.read(said[other], "it").offers}
        return with_offer(said[victim], offers[other])

    return lie


def a_stranger_that_colludes(grid: LyingGrid, victim: int, other: int) -> Lie:
    """A node of another group that signs an offer for the victim's."""
    mine = placed(grid._contexts[victim])
    assert mine is not None
    form = sum_form(AGREED, SIZE, HEADING)
    group, me = (mine.group, mine.members), Node(other, signer(other), os.urandom, grid.trusted)

    def lie(said: Mapping[int, bytes]) -> bytes:
        setting = make_setting(AGREED, form, 1, HEADING, grid.shown, group=group)
        _, offer = protocol.begin(me, setting)
        return with_offer(said[victim], offer)

    return lie


def told_as(grid: LyingGrid, victim: int, other: int) -> Lie:
    """All that a node of another group is told."""
    del grid, victim
    return lambda said: said[other]


def signatures_of_others(grid: LyingGrid, victim: int, other: int) -> Lie:
    """The victim's own group as survivors, as the other group signed for its own."""
    del grid

    def lie(said: Mapping[int, bytes]) -> bytes:
        mine, theirs = (Survivors.read(said[node], "it") for node in (victim, other))
        return Survivors(mine.nodes, theirs.signatures).to_bytes()

    return lie


def both_groups(grid: LyingGrid, victim: int, other: int) -> Lie:
    """All nodes as survivors of one sum."""
    del grid

    def lie(said: Mapping[int, bytes]) -> bytes:
        mine, theirs = (Survivors.read(said[node], "it") for node in (victim, other))
        return Survivors(tuple(sorted(mine.nodes + theirs.nodes))).to_bytes()

    return lie


@pytest.mark.parametrize(
    ("stage", "make", "reason"),
    [
        (Stage.NONCE, a_stranger, "bad-signature"),
        (Stage.NONCE, a_stranger_that_colludes, "not-in-group"),
        (Stage.NONCE, told_as, "not-mine"),
        (Stage.SHARES, told_as, "equivocation"),
        (Stage.SHARES, a_stranger, "equivocation"),
        (Stage.VECTOR, told_as, "not-a-neighbour"),
        (Stage.SIGNATURE, told_as, "bad-survivors"),
        (Stage.SIGNATURE, both_groups, "bad-survivors"),
        (Stage.REVEAL, told_as, "bad-survivors"),
        (Stage.REVEAL, signatures_of_others, "too-few-signatures"),
    ],
)
def test_a_node_is_summed_with_its_group_alone(
    stage: Stage, make: Callable[[LyingGrid, int, int], Lie], reason: str
) -> None:
    grid = make_grid()
    rounds, state = begin(grid)
    state = rounds(state, 1)
    mine, others = groups_of(grid)
    victim = mine[2]
    grid.lies = {(victim, stage): make(grid, victim, others[0])}
    state = rounds(state, 2)
    (refused,) = grid.refusals(victim)[:1]
    assert reason in refused
    assert not [each for each in NODES if each != victim and grid.refusals(each)]
    grid.lies = {}
    before = state.vector.copy()
    state = rounds(state, 3)  # after the lie an honest round comes about, with all of them
    assert answered(grid) == list(NODES)
    np.testing.assert_allclose(state.vector - before, np.mean(UPDATES[:N], axis=0), atol=1e-5)
