"""Nodes that lie: found out and named, and where they can be done without, the sum stands."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsec.secagg import messages, node
from fedsec.secagg.coordinator import Opened
from fedsec.secagg.messages import Offer, Revealed, Shares
from fedsec.secagg.recovery import Lost
from tests.secagg.rig import Rig, Tamper, make_setting, signer

IDS = tuple(range(10, 20))
LIAR, GONE = 12, 17
MODES = pytest.mark.parametrize("malicious", [False, True])


def lies(stage: str, change: object, *, gone: str = "") -> Tamper:
    def tamper(at: str, i: int, answer: object) -> object:
        if (at, i) == (gone, GONE):
            return None
        return change(answer) if (at, i) == (stage, LIAR) else answer  # type: ignore[operator]

    return tamper


def flip(revealed: object) -> object:
    """Changes one bit of every share."""
    assert isinstance(revealed, tuple)
    return tuple(replace(each, value=each.value ^ 1) for each in revealed)


@MODES
@pytest.mark.parametrize("gone", ["", "vector"])
def test_a_holder_that_reveals_other_shares_is_named_and_the_sum_stands(
    malicious: bool, gone: str
) -> None:
    rig = Rig(make_setting(malicious=malicious), IDS, tamper=lies("revealed", flip, gone=gone))
    end = rig.run()
    assert isinstance(end, Opened)
    assert end.total.tolist() == rig.expected(end.survivors)
    assert set(end.blamed) == {LIAR}
    assert "another share" in end.blamed[LIAR]


def test_a_flipped_share_that_is_needed_loses_the_sum_and_names_its_sender() -> None:
    def tamper(at: str, i: int, answer: object) -> object:
        if at == "revealed" and i in {10, 11, 13}:
            return None
        return flip(answer) if (at, i) == ("revealed", LIAR) else answer

    end = Rig(make_setting(), IDS, tamper=tamper).run()
    assert isinstance(end, Lost)
    assert set(end.blamed) == {LIAR}


@MODES
def test_who_gives_another_share_of_its_own_secret_is_named_where_each_is_needed(
    malicious: bool,
) -> None:
    """Nothing is committed to for that share; but the others' fit, and together they do not."""

    def tamper(at: str, i: int, answer: object) -> object:
        if at == "vector" and i in {10, 11, 13}:
            return None
        if (at, i) != ("revealed", LIAR):
            return answer
        assert isinstance(answer, tuple)
        return tuple(
            replace(each, value=each.value ^ 1) if each.owner == LIAR else each for each in answer
        )

    end = Rig(make_setting(malicious=malicious), IDS, tamper=tamper).run()
    assert isinstance(end, Lost)
    assert set(end.blamed) == {LIAR}
    assert "do not give the secret" in end.blamed[LIAR]


def lies_in_shares(rig: Rig, *, complain: bool) -> Tamper:
    begun: list[node.Secrets] = []

    def tamper(at: str, i: int, answer: object) -> object:
        state = rig.states[i]
        if i == LIAR and isinstance(state, node.Offered):
            begun.append(state.secrets)
        lie = (at, i) == ("shares", LIAR)
        return bad_polynomial(answer, rig, begun[0], complain=complain) if lie else answer

    return tamper


def bad_polynomial(answer: object, rig: Rig, secrets: node.Secrets, *, complain: bool) -> Shares:
    """Shares that agree with their commitments, or do not, but give no such secret."""
    assert isinstance(answer, Shares)
    state = rig.states[LIAR]
    assert isinstance(state, node.Shared)
    wrong = replace(secrets, seed=secrets.seed ^ 2, mask=secrets.mask ^ 8)
    offered = node.Offered(rig.setting, wrong, state.members.offers[LIAR])
    roster = messages.Roster(tuple(state.members.offers.values()), {})
    _, shares = node.step(rig.nodes[LIAR], offered, roster)
    assert isinstance(shares, Shares)
    entries = shares.entries
    if complain:
        entries = tuple(replace(entry, seed_commitment=bytes(32)) for entry in entries)
    made = replace(shares, seed_commitment=answer.seed_commitment, entries=entries)
    return made.signed_by(signer(LIAR), state.members.transcript)


def test_an_owner_whose_shares_give_another_secret_is_named() -> None:
    rig = Rig(make_setting(), IDS)
    rig.tamper = lies_in_shares(rig, complain=False)
    end = rig.run()
    assert isinstance(end, Lost)
    assert set(end.blamed) == {LIAR}
    assert "lied" in end.reason


def test_an_owner_of_whose_shares_many_complain_is_named() -> None:
    rig = Rig(make_setting(), IDS)
    rig.tamper = lies_in_shares(rig, complain=True)
    end = rig.run()
    assert isinstance(end, Lost)
    assert set(end.blamed) == {LIAR}
    assert "9 holders complain" in end.blamed[LIAR]


def test_an_owner_that_gives_one_holder_rubbish_changes_nothing() -> None:
    def change(answer: object) -> object:
        assert isinstance(answer, Shares)
        rubbish = replace(answer.entries[0], sealed=bytes(80))
        made = replace(answer, entries=(rubbish, *answer.entries[1:]))
        state = rig.states[LIAR]
        assert isinstance(state, node.Shared)
        return made.signed_by(signer(LIAR), state.members.transcript)

    rig = Rig(make_setting(), IDS)
    rig.tamper = lies("shares", change)
    end = rig.run()
    assert isinstance(end, Opened)
    assert end.total.tolist() == rig.expected(IDS)
    upload = rig.answers["vector"][10]
    assert isinstance(upload, node.Upload)
    assert upload.complaints == (LIAR,)


@MODES
@pytest.mark.parametrize(
    ("stage", "change", "code"),
    [
        ("offer", lambda o: replace(o, node=99), "wrong-node"),
        ("offer", lambda o: replace(o, mask_key=b"\x09" * 32), "bad-signature"),
        ("offer", lambda _: b"nonsense", "out-of-order"),
        ("shares", lambda s: replace(s, node=10), "wrong-node"),
        ("shares", lambda s: replace(s, entries=s.entries[:-1]), "bad-share"),
        ("shares", lambda s: replace(s, signature=bytes(64)), "bad-signature"),
        ("vector", lambda u: node.Upload(u.words[:-1], ()), "bad-vector"),
        ("vector", lambda _: node.Upload(np.zeros(10**6, np.uint32), ()), "bad-vector"),
        ("vector", lambda u: node.Upload(u.words.astype(np.int64), ()), "bad-vector"),
        ("vector", lambda u: node.Upload(u.words, (999,)), "malformed"),
        ("revealed", lambda r: (replace(r[0], kind=messages.Kind.KEY), *r[1:]), "bad-share"),
        ("revealed", lambda r: (*r, Revealed(999, messages.Kind.KEY, 1)), "bad-share"),
    ],
)
def test_a_message_that_is_refused_costs_its_sender_alone(
    malicious: bool, stage: str, change: object, code: str
) -> None:
    rig = Rig(make_setting(malicious=malicious), IDS, tamper=lies(stage, change))
    end = rig.run()
    assert isinstance(end, Opened)
    assert rig.rejected[LIAR].code == code
    assert rig.rejected[LIAR].peer == str(LIAR)
    expected = set(IDS) if stage == "revealed" else set(IDS) - {LIAR}
    assert set(end.survivors) == expected
    assert end.total.tolist() == rig.expected(end.survivors)


def signed(rig: Rig, key: Ed25519PrivateKey, **changes: bytes) -> object:
    def change(answer: object) -> Offer:
        assert isinstance(answer, Offer)
        public = key.public_key().public_bytes_raw()
        changed = replace(answer, signing_key=public, **changes)  # type: ignore[arg-type]
        return changed.signed_by(key, rig.setting.session.context)

    return change


@MODES
@pytest.mark.parametrize("name", ["mask_key", "seal_key"])
@pytest.mark.parametrize("key", [0, 2**255 - 19 + 9, 2**255 + 9])  # 9: the base point
def test_a_key_of_small_order_or_in_another_writing_is_refused_before_anyone_agrees_with_it(
    malicious: bool, name: str, key: int
) -> None:
    rig = Rig(make_setting(malicious=malicious), IDS)
    rig.tamper = lies("offer", signed(rig, signer(LIAR), **{name: key.to_bytes(32, "little")}))
    assert isinstance(rig.run(), Opened)
    assert rig.rejected[LIAR].code == "bad-key"


def test_a_node_that_is_not_on_the_roster_stops_nobody() -> None:
    rig = Rig(make_setting(malicious=True), IDS)
    rig.tamper = lies("offer", signed(rig, signer(999)))
    assert isinstance(rig.run(), Opened)
    assert rig.rejected[LIAR].code == "not-on-roster"


@pytest.mark.parametrize("name", ["mask_key", "seal_key", "signing_key"])
def test_a_copied_key_is_refused(name: str) -> None:
    rig = Rig(make_setting(), IDS)

    def change(answer: object) -> object:
        other = rig.answers["offer"][10]
        assert isinstance(other, Offer)
        if name == "signing_key":
            made = signed(rig, signer(10))
        else:
            made = signed(rig, signer(LIAR), **{name: getattr(other, name)})
        return made(answer)  # type: ignore[operator]

    rig.tamper = lies("offer", change)
    assert isinstance(rig.run(), Opened)
    assert rig.rejected[LIAR].code == "duplicate-key"


@pytest.mark.parametrize("stage", ["nonce", "signature"])
def test_wrong_nonces_and_signatures_cost_their_sender_alone(stage: str) -> None:
    rig = Rig(make_setting(malicious=True), IDS, tamper=lies(stage, lambda b: b[::-1]))
    assert isinstance(rig.run(), Opened)
    assert rig.rejected[LIAR].code == {"nonce": "bad-nonce", "signature": "bad-signature"}[stage]
