"""A coordinator that lies: what it sends is refused, no share leaves, the state stays as it was."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsec.errors import ConfigError, PolicyRefusal, ProtocolError
from fedsec.secagg import messages, node
from fedsec.secagg.keys import commit_seed
from fedsec.secagg.messages import Delivery, Roster, Survivors
from fedsec.secagg.parameters import Minima
from fedsec.secagg.recovery import Lost
from tests.secagg.rig import Rig, Sent, make_setting, roster_of, signer

IDS = tuple(range(10, 20))
VICTIM = 14


def attacked(
    stage: str, change: Callable[[Sent], Sent], *, malicious: bool = True, rig: Rig | None = None
) -> str:
    """Changes what the victim is sent at a stage; returns the code with which it refuses."""
    before: dict[int, node.State] = {}

    def twist(at: str, i: int, sent: Sent) -> Sent:
        if (at, i) != (stage, VICTIM):
            return sent
        before[i] = rig.states[i]
        return change(sent)

    rig = rig or Rig(make_setting(malicious=malicious), IDS)
    rig.twist = twist
    rig.run()
    assert set(rig.refused) == {VICTIM}
    assert rig.states[VICTIM] is before[VICTIM]
    return rig.refused[VICTIM].code


def edit_offer(sent: Sent, which: int, **changes: object) -> Roster:
    assert isinstance(sent, Roster)
    offers = tuple(
        replace(offer, **changes) if offer.node == which else offer  # type: ignore[arg-type]
        for offer in sent.offers
    )
    return replace(sent, offers=offers)


def forge(sent: Sent, which: int, key: int) -> Roster:
    """Puts keys of the coordinator's own in the place of a node's, signed by the key of `key`."""
    assert isinstance(sent, Roster)
    setting = make_setting(malicious=True)
    mallory = node.Node(which, signer(key), lambda n: b"\x11" * n, roster_of(IDS))
    _, offer = node.begin(mallory, setting)
    offers = tuple(offer if known.node == which else known for known in sent.offers)
    return replace(sent, offers=offers)


FIRST_ROSTER = {True: "nonce", False: "shares"}


@pytest.mark.parametrize("malicious", [False, True])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda sent: edit_offer(sent, 11, mask_key=b"\x09" * 32), "bad-signature"),
        (lambda sent: edit_offer(sent, 11, seal_key=b"\x09" * 32), "bad-signature"),
        (lambda sent: edit_offer(sent, 11, node=9), "malformed"),
        (lambda sent: edit_offer(sent, 11, commitment=b"\x09" * 32), "bad-signature"),
        (lambda sent: edit_offer(sent, VICTIM, mask_key=b"\x09" * 32), "not-mine"),
        (lambda sent: replace(sent, offers=sent.offers[:2] + sent.offers[5:]), "not-mine"),
        (lambda sent: replace(sent, offers=sent.offers[3:6]), "too-few-nodes"),
        (lambda sent: replace(sent, nonces={11: bytes(32)}), "bad-nonce"),
    ],
)
def test_rosters_that_are_changed(
    malicious: bool, change: Callable[[Sent], Sent], code: str
) -> None:
    assert attacked(FIRST_ROSTER[malicious], change, malicious=malicious) == code


def test_keys_of_the_coordinator_s_own_are_not_on_the_federation_s_roster() -> None:
    assert attacked("nonce", lambda sent: forge(sent, 11, key=999)) == "not-on-roster"


def test_one_key_for_two_nodes() -> None:
    def change(sent: Sent) -> Sent:
        assert isinstance(sent, Roster)
        twin = replace(sent.offers[0], node=9).signed_by(
            signer(10), make_setting(malicious=True).session.context
        )
        return replace(sent, offers=(twin, *sent.offers))

    assert attacked("nonce", change) == "duplicate-key"


@pytest.mark.parametrize("malicious", [False, True])
@pytest.mark.parametrize("name", ["mask_key", "seal_key"])
def test_one_exchange_key_for_two_nodes(malicious: bool, name: str) -> None:
    def change(sent: Sent) -> Sent:
        assert isinstance(sent, Roster)
        copied = replace(sent.offers[1], **{name: getattr(sent.offers[0], name)}).signed_by(
            signer(11), make_setting(malicious=malicious).session.context
        )
        return replace(sent, offers=(sent.offers[0], copied, *sent.offers[2:]))

    assert attacked(FIRST_ROSTER[malicious], change, malicious=malicious) == "duplicate-key"


@pytest.mark.parametrize("malicious", [False, True])
@pytest.mark.parametrize("other", [{"attempt": 2}, {"asked": bytes(32)}])
def test_offers_of_another_attempt_or_for_another_model(
    malicious: bool, other: dict[str, Any]
) -> None:
    elsewhere = Rig(make_setting(malicious=malicious, **other), IDS)
    elsewhere.run()
    replayed = elsewhere.answers["offer"][11]

    def change(sent: Sent) -> Sent:
        assert isinstance(sent, Roster)
        offers = tuple(replayed if o.node == 11 else o for o in sent.offers)
        return replace(sent, offers=offers)  # type: ignore[arg-type]

    assert attacked(FIRST_ROSTER[malicious], change, malicious=malicious) == "bad-signature"


def left_out(sent: Sent, gone: int) -> Roster:
    """Returns the roster as if `gone` had not revealed its nonce."""
    assert isinstance(sent, Roster)
    offers = tuple(offer for offer in sent.offers if offer.node != gone)
    return Roster(offers, {i: nonce for i, nonce in sent.nonces.items() if i != gone})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda sent: replace(sent, nonces={**sent.nonces, 11: b"\x01" * 32}), "bad-nonce"),
        (lambda sent: replace(sent, nonces=dict(list(sent.nonces.items())[:-1])), "bad-nonce"),
        (lambda sent: forge(sent, 11, key=11), "equivocation"),
        (lambda sent: left_out(sent, VICTIM), "equivocation"),
    ],
)
def test_nonces_and_roster_must_be_those_shown_before(
    change: Callable[[Sent], Sent], code: str
) -> None:
    assert attacked("shares", change) == code


def without(sent: Sent, *owners: int) -> Delivery:
    assert isinstance(sent, Delivery)
    return Delivery(tuple(entry for entry in sent.entries if entry.peer not in owners))


def test_shares_of_an_invented_neighbour() -> None:
    def change(sent: Sent) -> Sent:
        assert isinstance(sent, Delivery)
        return Delivery((*sent.entries, replace(sent.entries[0], peer=99)))

    assert attacked("vector", change) == "not-a-neighbour"


def test_a_neighbourhood_of_fewer_than_the_threshold() -> None:
    assert attacked("vector", lambda sent: without(sent, 10, 11, 12, 13)) == "too-few-shares"


def test_shares_swapped_between_owners_do_not_open_and_are_complained_of() -> None:
    def twist(stage: str, i: int, sent: Sent) -> Sent:
        if (stage, i) != ("vector", VICTIM):
            return sent
        assert isinstance(sent, Delivery)
        first, second, *rest = sent.entries
        swapped = (replace(second, peer=first.peer), replace(first, peer=second.peer), *rest)
        return Delivery(swapped)

    rig = Rig(make_setting(), IDS, twist=twist)
    end = rig.run()
    upload = rig.answers["vector"][VICTIM]
    assert isinstance(upload, node.Upload)
    assert upload.complaints == (10, 11)
    assert not isinstance(end, Lost)  # two shares fewer are no harm


@pytest.mark.parametrize("malicious", [False, True])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda _: Survivors(IDS[:6]), "too-few-nodes"),
        (lambda _: Survivors((*IDS, 99)), "bad-survivors"),
        (lambda _: Survivors(tuple(i for i in IDS if i != VICTIM)), "bad-survivors"),
        (lambda _: Survivors(IDS[:3]), "too-few-nodes"),
    ],
)
def test_survivors_that_cannot_be(
    malicious: bool, change: Callable[[Sent], Sent], code: str
) -> None:
    stage = "signature" if malicious else "revealed"
    assert attacked(stage, change, malicious=malicious) == code


def test_a_survivor_that_shared_nothing_with_the_victim() -> None:
    rig = Rig(make_setting(malicious=True), IDS)

    def twist(stage: str, i: int, sent: Sent) -> Sent:
        return without(sent, 11) if (stage, i) == ("vector", VICTIM) else sent

    rig.twist = twist
    rig.run()
    assert rig.refused[VICTIM].code == "bad-survivors"


def forged_by(sent: Survivors, who: int) -> Survivors:
    return Survivors(sent.nodes, {**sent.signatures, who: b"\x07" * 64})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda sent: replace(sent, nodes=sent.nodes[:-1]), "equivocation"),
        (lambda sent: replace(sent, signatures={}), "too-few-signatures"),
        (
            lambda sent: Survivors(sent.nodes, dict(list(sent.signatures.items())[:6])),
            "too-few-signatures",
        ),
        (
            lambda sent: Survivors(sent.nodes, dict.fromkeys(sent.signatures, b"\x07" * 64)),
            "bad-signature",
        ),
        (lambda sent: forged_by(sent, min(sent.signatures)), "bad-signature"),
        (lambda sent: forged_by(sent, max(sent.signatures)), "bad-signature"),
    ],
)
def test_signatures_on_the_survivors(change: Callable[[Sent], Sent], code: str) -> None:
    assert attacked("revealed", change) == code


def test_two_halves_are_shown_different_survivors_and_neither_reveals() -> None:
    """The classic split: some are told that the victim is alive, some that it is lost."""

    def twist(stage: str, i: int, sent: Sent) -> Sent:
        if stage == "signature" and i % 2 and i != VICTIM:
            assert isinstance(sent, Survivors)
            return Survivors(tuple(n for n in sent.nodes if n != VICTIM))
        return sent

    rig = Rig(make_setting(malicious=True), IDS, twist=twist)
    assert isinstance(rig.run(), Lost)
    assert "revealed" not in rig.answers


@pytest.mark.parametrize("malicious", [False, True])
def test_a_second_request_for_shares_is_refused_whatever_it_says(malicious: bool) -> None:
    rig = Rig(make_setting(malicious=malicious), IDS)
    rig.run()
    for survivors in (IDS, IDS[1:]):
        with pytest.raises(ProtocolError) as raised:
            node.step(rig.nodes[VICTIM], rig.states[VICTIM], Survivors(survivors))
        assert raised.value.code == "out-of-order"


def test_no_share_of_both_kinds_leaves_any_node_for_any_peer() -> None:
    def twist(stage: str, i: int, sent: Sent) -> Sent:
        if stage == "revealed" and i % 2 and i != VICTIM:  # semi-honest: nothing forbids the lie
            assert isinstance(sent, Survivors)
            return Survivors(tuple(n for n in sent.nodes if n != VICTIM))
        return sent

    rig = Rig(make_setting(), IDS, twist=twist)
    rig.run()
    for i in IDS:
        answer = rig.answers["revealed"].get(i, ())
        assert isinstance(answer, tuple)
        assert len({each.owner for each in answer}) == len(answer)


def test_events_that_do_not_fit_the_state() -> None:
    rig = Rig(make_setting(malicious=True), IDS)
    me = node.Node(VICTIM, signer(VICTIM), bytes, rig.trusted)
    state, _ = node.begin(me, rig.setting)
    events = (Survivors(IDS), node.Deliver(Delivery(()), np.zeros(5, np.uint32)))
    for event in events:
        with pytest.raises(ProtocolError) as raised:
            node.step(me, state, event)
        assert raised.value.code == "out-of-order"


def test_malicious_mode_without_a_roster_is_refused() -> None:
    me = node.Node(1, signer(1), bytes)
    with pytest.raises(ConfigError, match="signed roster"):
        node.begin(me, make_setting(malicious=True))


def test_the_site_asks_for_more_nodes_than_there_are() -> None:
    rig = Rig(make_setting(), IDS)
    rig.run()
    me = replace(rig.nodes[VICTIM], minima=Minima(cohort=11))
    state, offer = node.begin(me, rig.setting)
    sent = rig.asked["shares"][VICTIM]
    assert isinstance(sent, Roster)
    roster = replace(sent, offers=tuple(offer if o.node == VICTIM else o for o in sent.offers))
    with pytest.raises(PolicyRefusal, match="min_cohort = 11"):
        node.step(me, state, roster)


def test_members_that_did_not_reveal_do_not_make_the_session_smaller_than_the_site_allows() -> None:
    shown: dict[str, tuple[node.State, Sent]] = {}

    def twist(stage: str, i: int, sent: Sent) -> Sent:
        if i == VICTIM:
            shown[stage] = rig.states[i], sent
        return sent

    rig = Rig(make_setting(malicious=True), IDS, twist=twist)
    rig.run()
    state, sent = shown["shares"]
    assert isinstance(sent, Roster)
    nonces = {identity: nonce for identity, nonce in sent.nonces.items() if identity != 11}
    offers = tuple(offer for offer in sent.offers if offer.node != 11)
    fewer = replace(sent, offers=offers, nonces=nonces)
    node.step(replace(rig.nodes[VICTIM], minima=Minima(cohort=9)), state, fewer)
    with pytest.raises(PolicyRefusal, match="min_cohort = 10"):
        node.step(replace(rig.nodes[VICTIM], minima=Minima(cohort=10)), state, fewer)


def test_a_vector_of_other_words_than_the_session_s_is_not_masked() -> None:
    rig = Rig(make_setting(words=5), IDS)
    rig.vectors = {**rig.vectors, VICTIM: np.zeros(5, np.uint16)}
    with pytest.raises(ConfigError, match="32 bits"):
        rig.run()


def test_no_effect_holds_a_secret_and_no_state_prints_one() -> None:
    rig = Rig(make_setting(malicious=True), IDS)
    secrets: list[bytes] = []

    def tamper(stage: str, i: int, answer: object) -> object:
        state = rig.states[i]
        if isinstance(state, node.Offered):
            mine = state.secrets
            secrets.extend(n.to_bytes(32, "big") for n in (mine.mask, mine.seal, mine.seed))
            secrets.extend(n.to_bytes(32, "little") for n in (mine.mask, mine.seal, mine.seed))
        return answer

    rig.tamper = tamper
    rig.run()
    said = b"".join(
        answer.to_bytes() if isinstance(answer, (messages.Offer, messages.Shares)) else b""
        for answers in rig.answers.values()
        for answer in answers.values()
    ) + b"".join(
        messages.write_revealed(answer)
        for answer in rig.answers["revealed"].values()
        if isinstance(answer, tuple)
    )
    assert len(secrets) == 6 * len(IDS)
    assert not any(secret in said for secret in secrets)
    shown = repr(rig.nodes) + repr(node.begin(rig.nodes[10], rig.setting)[0])
    assert "mask=" not in shown.replace("mask_key=", "")
    assert "seed=" not in shown


def test_a_seed_is_committed_to_with_node_and_transcript() -> None:
    one = commit_seed(7, bytes(32), 1)
    assert one != commit_seed(7, bytes(32), 2)
    assert one != commit_seed(7, b"\x01" * 32, 1)
