"""Drawing groups together: who cheats is refused, and nobody chooses who is with whom."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from fedsec.errors import ConfigError, PolicyRefusal, ProtocolError
from fedsec.secagg import coordinator, grouping, stages
from fedsec.secagg import node as protocol
from fedsec.secagg.coordinator import Received
from fedsec.secagg.group_messages import (
    Entries,
    Entry,
    Reveal,
    Split,
    commit,
    groups_of,
    seed_of,
)
from fedsec.secagg.grouping import (
    Entered,
    Entering,
    Placed,
    Revealing,
    draw,
    enter,
    show,
    step,
    take_entry,
    take_reveal,
)
from fedsec.secagg.messages import Roster
from fedsec.secagg.node import Node
from fedsec.secagg.parameters import Minima
from fedsec.secagg.recovery import Lost
from tests.secagg.rig import PLAN, make_setting, roster_of, signer

IDS = range(1, 10)
SPLIT = Split(PLAN, run=17, draw=1, size=4, malicious=True, fewest=8, most=20)


def node(number: int, minima: Minima | None = None, key: int | None = None) -> Node:
    trusted = roster_of(IDS)
    return Node(number, signer(key or number), os.urandom, trusted, minima or Minima())


def entered(split: Split = SPLIT) -> tuple[dict[int, Entered], Entering]:
    states, state = {}, Entering(split, frozenset(IDS), roster_of(IDS))
    for each in IDS:
        states[each], entry = enter(node(each), split)
        state = take_entry(state, each, Entry.read(entry.to_bytes(), "a node"))
    return states, state


def shown(split: Split = SPLIT) -> tuple[dict[int, grouping.NodeState], Revealing]:
    states, state = entered(split)
    revealing = show(state)
    assert isinstance(revealing, Revealing)
    after: dict[int, grouping.NodeState] = {}
    for each in IDS:
        sent = Entries.read(revealing.shown.to_bytes(), "coordinator")
        after[each], reveal = step(node(each), states[each], sent)
        revealing = take_reveal(revealing, each, Reveal.read(reveal, "a node"))
    return after, revealing


def drawn() -> tuple[dict[int, grouping.NodeState], Entries]:
    states, revealing = shown()
    drawing = draw(revealing)
    assert isinstance(drawing, Entries)
    return states, Entries.read(drawing.to_bytes(), "coordinator")


def refused(code: str, call: Callable[[], object]) -> None:
    with pytest.raises(ProtocolError) as caught:
        call()
    assert caught.value.code == code


def test_all_nodes_and_the_coordinator_draw_the_same_groups() -> None:
    states, drawing = drawn()
    groups = groups_of(SPLIT, drawing)
    assert sorted(len(group) for group in groups) == [4, 5]
    for each in IDS:
        placed, told = step(node(each), states[each], drawing)
        assert isinstance(placed, Placed)
        assert each in placed.members
        assert tuple(placed.members) == groups[placed.group]
        assert placed.members == {i: roster_of(IDS)[i] for i in placed.members}
        assert told == placed.seed == seed_of(SPLIT, drawing)


def test_the_seed_is_that_of_the_specification() -> None:
    _, drawing = drawn()
    prefix = b"fedsec-v1/secagg/"
    context = bytes([1]) + PLAN + (17).to_bytes(8, "big") + bytes([0, 0, 0, 1, 0, 0, 0, 4])
    entries = b"".join(entry.to_bytes() for entry in drawing.entries)
    told = prefix + b"group-list\0" + context + (9).to_bytes(4, "big") + entries
    digest = hashlib.sha256(told).digest()
    nonces = b"".join(reveal.nonce for reveal in drawing.reveals)
    want = hashlib.sha256(prefix + b"group-seed\0" + digest + nonces).digest()
    assert seed_of(SPLIT, drawing) == want
    first = drawing.entries[0]
    nonce = prefix + b"group-nonce\0" + context + (1).to_bytes(8, "big") + drawing.reveals[0].nonce
    assert first.commitment == hashlib.sha256(nonce).digest()


def test_one_nonce_more_or_less_is_another_split() -> None:
    _, drawing = drawn()
    seeds = {seed_of(SPLIT, drawing)}
    for place in range(len(IDS)):
        changed = list(drawing.reveals)
        changed[place] = replace(changed[place], nonce=bytes(32))
        seeds.add(seed_of(SPLIT, replace(drawing, reveals=tuple(changed))))
    assert len(seeds) == len(IDS) + 1


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("not-mine", lambda es: es[1:]),
        ("not-mine", lambda es: (replace(es[0], commitment=bytes(32)), *es[1:])),
        ("too-few-nodes", lambda es: es[:7]),
        ("duplicate-key", lambda es: (*es[:8], replace(es[8], signing_key=es[7].signing_key))),
        ("bad-signature", lambda es: (*es[:8], replace(es[8], commitment=bytes(32)))),
        ("not-on-roster", lambda es: (*es, enter(replace(node(5), id=30, signer=signer(30)), SPLIT)[1])),
    ],
)  # fmt: skip
def test_a_list_that_is_not_sound_is_not_signed(
    code: str, change: Callable[[tuple[Entry, ...]], tuple[Entry, ...]]
) -> None:
    states, state = entered()
    revealing = show(state)
    assert isinstance(revealing, Revealing)
    sent = Entries(change(revealing.shown.entries))
    refused(code, lambda: step(node(1), states[1], sent))


def test_too_many_nodes_are_refused() -> None:
    states, state = entered(replace(SPLIT, most=8))
    entries = tuple(state.entries[each] for each in IDS)
    refused("too-many-nodes", lambda: step(node(1), states[1], Entries(entries)))


def test_an_entry_of_another_draw_run_or_size_is_refused() -> None:
    for other in (replace(SPLIT, draw=2), replace(SPLIT, run=18), replace(SPLIT, size=5)):
        _, entry = enter(node(1), other)
        state = Entering(SPLIT, frozenset(IDS), roster_of(IDS))
        refused("bad-signature", lambda: take_entry(state, 1, entry))  # noqa: B023 - called here


def test_a_node_places_itself_by_the_list_that_it_signed_only() -> None:
    """A coordinator that shows two lists has signatures for neither that the other accepts."""
    states, drawing = drawn()
    other = replace(drawing, entries=drawing.entries[:8], reveals=drawing.reveals[:8])
    refused("equivocation", lambda: step(node(1), states[1], other))
    _, elsewhere = drawn()  # the same nodes, shown another list
    mixed = replace(drawing, reveals=(*drawing.reveals[:8], elsewhere.reveals[8]))
    refused("bad-nonce", lambda: step(node(1), states[1], mixed))
    signed = replace(drawing.reveals[8], signature=elsewhere.reveals[8].signature)
    forged = replace(drawing, reveals=(*drawing.reveals[:8], signed))
    refused("bad-signature", lambda: step(node(1), states[1], forged))
    fewer = replace(drawing, reveals=drawing.reveals[:8])
    refused("bad-nonce", lambda: step(node(1), states[1], fewer))


def test_nonces_are_given_up_once_and_groups_drawn_once() -> None:
    states, drawing = drawn()
    refused("out-of-order", lambda: step(node(1), states[1], replace(drawing, reveals=())))
    placed, _ = step(node(1), states[1], drawing)
    refused("out-of-order", lambda: step(node(1), placed, drawing))
    begun, _ = enter(node(1), SPLIT)
    refused("out-of-order", lambda: step(node(1), begun, drawing))


def test_who_does_not_reveal_makes_the_draw_fail_and_is_named() -> None:
    _, revealing = shown()
    reveals = {each: reveal for each, reveal in revealing.reveals.items() if each != 4}
    lost = draw(replace(revealing, reveals=reveals))
    assert isinstance(lost, Lost)
    assert list(lost.blamed) == [4]
    assert "did not reveal" in lost.reason


def test_a_nonce_that_breaks_its_commitment_costs_its_sender() -> None:
    _, revealing = shown()
    good = revealing.reveals[4]
    waiting = replace(revealing, reveals={})
    refused("bad-nonce", lambda: take_reveal(waiting, 4, replace(good, nonce=bytes(32))))
    refused("bad-signature", lambda: take_reveal(waiting, 4, replace(good, signature=bytes(64))))
    refused("out-of-order", lambda: take_reveal(revealing, 4, good))
    refused("out-of-order", lambda: take_reveal(waiting, 40, good))


def test_a_bad_entry_costs_its_sender() -> None:
    state = Entering(SPLIT, frozenset(IDS), roster_of(IDS))
    _, entry = enter(node(1), SPLIT)
    refused("wrong-node", lambda: take_entry(state, 2, entry))
    refused("out-of-order", lambda: take_entry(state, 40, entry))
    refused("out-of-order", lambda: take_entry(take_entry(state, 1, entry), 1, entry))
    _, foreign = enter(node(1, key=77), SPLIT)
    refused("not-on-roster", lambda: take_entry(state, 1, foreign))
    unknown = replace(state, trusted=None)
    _, copied = enter(node(2, key=1), SPLIT)
    refused("duplicate-key", lambda: take_entry(take_entry(unknown, 1, entry), 2, copied))


def test_too_few_that_enter_are_no_draw() -> None:
    _, state = entered()
    few = replace(state, entries={each: state.entries[each] for each in range(1, 8)})
    lost = show(few)
    assert isinstance(lost, Lost)
    assert "7 nodes are to be split into groups, the plan wants 8" in lost.reason


def test_a_site_may_ask_for_more() -> None:
    states, state = entered()
    revealing = show(state)
    assert isinstance(revealing, Revealing)
    strict = node(1, Minima(cohort=10))
    with pytest.raises(PolicyRefusal, match=r"9 nodes, less than .* policy\.min_cohort = 10"):
        step(strict, states[1], revealing.shown)
    after, drawing = drawn()
    with pytest.raises(PolicyRefusal, match=r"nodes in a group, less than .*min_group = 6"):
        step(node(1, Minima(group=6)), after[1], drawing)


def test_a_group_of_which_some_are_left_out_is_still_as_large_as_the_site_asks() -> None:
    group = roster_of(range(1, 6))
    setting = replace(make_setting(), group=group)
    begun = {i: protocol.begin(Node(i, signer(i), os.urandom), setting) for i in group}
    four = Roster(tuple(offer for i, (_, offer) in begun.items() if i != 5))
    strict = Node(1, signer(1), os.urandom, minima=Minima(group=5))
    with pytest.raises(PolicyRefusal, match=r"4 nodes in a group, less than .*min_group = 5"):
        protocol.step(strict, begun[1][0], four)
    protocol.step(replace(strict, minima=Minima(group=4)), begun[1][0], four)


def test_malicious_mode_needs_a_roster() -> None:
    with pytest.raises(ConfigError, match="none is pinned"):
        enter(replace(node(1), trusted=None), SPLIT)


def test_malformed_bytes_are_refused() -> None:
    _, drawing = drawn()
    data = drawing.to_bytes()
    for bad in (b"", data[:-1], data + b"\0", (1 << 31).to_bytes(4, "big") + data[4:]):
        refused("malformed", lambda: Entries.read(bad, "coordinator"))  # noqa: B023 - called here
    backwards = replace(drawing, entries=drawing.entries[::-1])
    refused("malformed", lambda: Entries.read(backwards.to_bytes(), "coordinator"))
    refused("malformed", lambda: Reveal.read(bytes(95), "a node"))
    refused("malformed", lambda: Entry.read(bytes(137), "a node"))


def test_a_nonce_is_bound_to_its_node_and_draw() -> None:
    nonce = bytes(range(32))
    made = {commit(SPLIT, 1, nonce), commit(SPLIT, 2, nonce)}
    made |= {commit(replace(SPLIT, **{key: 9}), 1, nonce) for key in ("run", "draw", "size")}
    assert len(made) == 5


def test_a_node_is_summed_with_its_own_group_only() -> None:
    """By id and by key; the coordinator refuses the stranger as the members do."""
    group = roster_of(range(1, 6))
    setting = replace(make_setting(), group=group)
    begun = {i: protocol.begin(Node(i, signer(i), os.urandom), setting) for i in (*group, 9)}
    _, foreign = protocol.begin(Node(5, signer(50), os.urandom), setting)
    mine = [offer for i, (_, offer) in begun.items() if i in group]
    state = begun[1][0]
    for offers in ([*mine, begun[9][1]], [*mine[:4], foreign]):
        roster = Roster(tuple(offers))
        me = Node(1, signer(1), os.urandom)
        refused("not-in-group", lambda: protocol.step(me, state, roster))  # noqa: B023 - called here
    protocol.step(Node(1, signer(1), os.urandom), state, Roster(tuple(mine)))
    waiting = stages.Offering(setting, frozenset((*group, 9)))
    for i, offer in ((9, begun[9][1]), (5, foreign)):
        refused("not-in-group", lambda: coordinator.step(waiting, Received(i, offer)))  # noqa: B023 - called here
