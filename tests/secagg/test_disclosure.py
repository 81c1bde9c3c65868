"""In a ring: what a node gives up hangs on its own neighbourhood, not on how many there are."""

from fractions import Fraction

import pytest

from fedsec.errors import ProtocolError
from fedsec.secagg import disclosure
from fedsec.secagg.membership import Members
from fedsec.secagg.messages import Survivors
from fedsec.secagg.parameters import Assumptions, Mode, choose
from tests.secagg.rig import make_setting, signer

IDS = tuple(range(1, 151))
ME = 75


def ring(mode: Mode) -> Members:
    parameters = choose(len(IDS), Assumptions(mode, Fraction(1, 10), Fraction(1, 10)))
    assert not parameters.complete
    indices = {identity: place for place, identity in enumerate(IDS, start=1)}
    offers = dict.fromkeys(IDS)  # who is a member; nobody's keys are looked at
    return Members(offers, parameters, parameters.least, bytes(32), indices, IDS, {})  # type: ignore[arg-type]


def refusal(survivors: tuple[int, ...], members: Members) -> str:
    with pytest.raises(ProtocolError) as caught:
        disclosure.check(ME, members, members.neighbours(ME), survivors)
    return caught.value.code


def test_fewer_holders_than_the_threshold_are_left_though_the_sum_is_large_enough() -> None:
    members = ring(Mode.SEMI_HONEST)
    around = members.neighbours(ME)
    lost = len(around) - members.parameters.threshold + 1
    assert len(IDS) - lost >= members.least  # else another check refuses it
    gone = sorted(around)[:lost]
    assert refusal(tuple(i for i in IDS if i not in gone), members) == "too-few-shares"
    rest = tuple(i for i in IDS if i not in gone[1:])
    disclosure.check(ME, members, around, rest)


def test_signatures_of_who_holds_nothing_of_this_node_do_not_count() -> None:
    members = ring(Mode.MALICIOUS)
    holders = set(members.holders(ME))
    strangers = [i for i in IDS if i not in holders and i != ME]
    assert len(strangers) > members.parameters.threshold
    signed = Survivors(IDS, {i: signer(i).sign(b"anything") for i in strangers})
    with pytest.raises(ProtocolError) as caught:
        disclosure.check_signatures(ME, members, signed)
    assert caught.value.code == "too-few-signatures"


def test_the_setting_of_the_rig_is_no_ring() -> None:
    """Which is why these are here: ten nodes are each other's neighbours all."""
    assert make_setting().parameters(10).complete
