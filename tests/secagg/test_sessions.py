"""Whole sessions: the sum is exact over whoever is left, at every loss, in both modes."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.secagg import messages, node
from fedsec.secagg.coordinator import Opened
from fedsec.secagg.graph import neighbours
from fedsec.secagg.membership import Members
from fedsec.secagg.parameters import choose
from fedsec.secagg.recovery import Lost
from fedsec.secagg.session import graph_seed
from tests.secagg.rig import STAGES, Rig, Sent, make_setting, signer, silent

IDS = (3, 5, 8, 13, 21, 34, 55, 89, 144, 2**63)
MODES = [False, True]


def opened(rig: Rig, survivors: set[int]) -> Opened:
    end = rig.run()
    assert isinstance(end, Opened), end
    assert set(end.survivors) == survivors
    assert end.total.tolist() == rig.expected(survivors)
    assert not rig.refused
    return end


@pytest.mark.parametrize("malicious", MODES)
@pytest.mark.parametrize("word_bits", [16, 32])
@pytest.mark.parametrize("count", [4, 5, 10])
def test_all_answer(malicious: bool, word_bits: int, count: int) -> None:
    rig = Rig(make_setting(malicious=malicious, word_bits=word_bits, dropout=0), IDS[:count])
    end = opened(rig, set(IDS[:count]))
    assert not end.blamed
    assert all(isinstance(state, node.Finished) for state in rig.states.values())


@pytest.mark.parametrize("malicious", MODES)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("lost", [(3,), (2**63,), (3, 55, 2**63)])
def test_some_are_lost_at_a_stage(malicious: bool, stage: str, lost: tuple[int, ...]) -> None:
    rig = Rig(make_setting(malicious=malicious), IDS, tamper=silent(dict.fromkeys(lost, stage)))
    counts = stage in {"signature", "revealed"} or (stage == "nonce" and not malicious)
    opened(rig, set(IDS) - (set() if counts else set(lost)))


@pytest.mark.parametrize("lost", [(), (5, 8)])
def test_a_node_is_sent_as_many_signatures_as_it_needs(lost: tuple[int, ...]) -> None:
    gone = silent(dict.fromkeys(lost, "signature"))
    rig = Rig(make_setting(malicious=True), IDS, tamper=gone)
    opened(rig, set(IDS))
    for sent in rig.asked["revealed"].values():
        assert isinstance(sent, messages.Survivors)
        assert len(sent.signatures) == 7  # the threshold of ten
        assert not sent.signatures.keys() & set(lost)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(data=st.data(), malicious=st.booleans())
def test_losses_at_any_stages_together(data: st.DataObject, malicious: bool) -> None:
    """Up to three of ten may go after the roster stands, whenever they like."""
    gone = data.draw(st.dictionaries(st.sampled_from(IDS), st.sampled_from(STAGES[2:]), max_size=3))
    late = {"signature", "revealed"}
    rig = Rig(make_setting(malicious=malicious), IDS, tamper=silent(gone))
    opened(rig, {i for i in IDS if gone.get(i, "revealed") in late})


@pytest.mark.parametrize("malicious", MODES)
@pytest.mark.parametrize("stage", STAGES[2:])
def test_exactly_the_threshold_is_enough_and_one_less_is_not(malicious: bool, stage: str) -> None:
    if stage == "signature" and not malicious:
        return
    for count in (3, 4):
        tamper = silent(dict.fromkeys(IDS[:count], stage))
        rig = Rig(make_setting(malicious=malicious), IDS, tamper=tamper)
        end = rig.run()
        if count == 3:
            assert isinstance(end, Opened)
        else:
            assert isinstance(end, Lost)
            if stage in {"shares", "vector"}:
                assert "revealed" not in rig.asked
                assert ("vector" in rig.asked) == (stage == "vector")


@pytest.mark.slow
@pytest.mark.parametrize("malicious", MODES)
def test_a_ring_of_seventy_with_losses_at_every_stage(malicious: bool) -> None:
    ids = tuple(range(100, 170))
    gone = {102: "shares", 110: "vector", 111: "vector", 150: "revealed"}
    rig = Rig(make_setting(malicious=malicious), ids, tamper=silent(gone))
    opened(rig, set(ids) - {102, 110, 111})
    state = rig.answers["shares"][100]
    assert isinstance(state, messages.Shares)
    assert len(state.entries) < 69  # a ring, not the complete graph


@pytest.mark.parametrize("malicious", MODES)
def test_below_the_quorum_nothing_is_asked_for(malicious: bool) -> None:
    rig = Rig(make_setting(malicious=malicious, quorum=10), IDS, tamper=silent({3: "offer"}))
    end = rig.run()
    assert isinstance(end, Lost)
    assert "quorum" in end.reason
    assert not rig.asked


@pytest.mark.parametrize("malicious", MODES)
@pytest.mark.parametrize("stage", ["shares", "vector"])
def test_no_sum_is_opened_over_fewer_survivors_than_the_quorum(malicious: bool, stage: str) -> None:
    """Ten could lose three; the plan wants nine."""
    for lost in (1, 2):
        tamper = silent(dict.fromkeys(IDS[:lost], stage))
        rig = Rig(make_setting(malicious=malicious, quorum=9), IDS, tamper=tamper)
        end = rig.run()
        assert isinstance(end, Opened if lost == 1 else Lost)
        assert ("revealed" in rig.asked) == (lost == 1)


def test_more_members_than_the_words_are_for_are_refused_by_either_side() -> None:
    narrow = replace(make_setting(), most=9)
    end = Rig(narrow, IDS).run()
    assert isinstance(end, Lost)
    assert "10 members, words are for 9" in end.reason

    def twist(stage: str, i: int, sent: Sent) -> Sent:
        if (stage, i) == ("shares", 3):
            rig.states[3] = replace(rig.states[3], setting=narrow)  # type: ignore[call-arg]
        return sent

    rig = Rig(make_setting(), IDS, twist=twist)
    assert isinstance(rig.run(), Opened)
    assert rig.refused[3].code == "too-many-nodes"


def test_three_nodes_are_too_few() -> None:
    end = Rig(make_setting(), IDS[:3]).run()
    assert isinstance(end, Lost)
    assert "4 nodes" in end.reason


def test_two_attempts_at_equal_vectors_share_no_keystream() -> None:
    vectors = {i: np.zeros(1000, np.uint32) for i in IDS}
    uploads = []
    for attempt in (1, 2):
        rig = Rig(make_setting(words=1000, attempt=attempt), IDS, vectors)
        rig.run()
        uploads.append(rig.answers["vector"])
    for i, j in itertools.product(IDS, IDS):
        first, second = uploads[0][i], uploads[1][j]
        assert isinstance(first, node.Upload)
        assert isinstance(second, node.Upload)
        assert np.count_nonzero(first.words == second.words) <= 1


def test_every_word_of_an_upload_is_masked() -> None:
    """A word left bare would show as a zero difference; one in 2^32 may be one by chance."""
    rig = Rig(make_setting(words=100_000), IDS)
    rig.run()
    for i in IDS:
        upload = rig.answers["vector"][i]
        assert isinstance(upload, node.Upload)
        assert np.count_nonzero(upload.words == rig.vectors[i]) <= 2


def test_a_node_draws_its_neighbourhood_as_the_specification_of_the_graph_does() -> None:
    rig = Rig(make_setting(), tuple(range(100, 170)))
    state, _ = node.begin(node.Node(100, signer(100), bytes), rig.setting)
    offers = tuple(replace(state.offer, node=i) for i in rig.ids)
    members = Members.of(rig.setting, messages.Roster(offers))
    positions = neighbours(members.parameters, graph_seed(members.transcript))
    for place, i in enumerate(rig.ids):
        assert members.neighbours(i) == tuple(rig.ids[other] for other in positions[place])


def test_node_and_coordinator_count_who_was_lost_at_the_reveal() -> None:
    """Bits so few that of 66 members each one lost asks for a denser graph."""
    setting = make_setting(malicious=True)
    few = replace(setting.assumptions, corrupt=Fraction(1, 5), security_bits=1, correctness_bits=1)
    assert [choose(66, few, lost).threshold for lost in (0, 1, 2)] == [14, 17, 19]
    tamper = silent({7: "nonce", 9: "nonce"})
    rig = Rig(replace(setting, assumptions=few), tuple(range(68)), tamper=tamper)
    opened(rig, set(rig.ids) - {7, 9})
    sent = rig.said("shares", 0)
    assert len(sent.entries) == choose(66, few, 2).neighbours
