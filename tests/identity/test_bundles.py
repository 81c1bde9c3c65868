"""A node believes only what its invite, its root and its own key agree with."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedsec.errors import IdentityError
from fedsec.identity.authorities import make_issuer
from fedsec.identity.bundles import Bundle, check_enrolment, check_renewal, split_chain
from fedsec.identity.leaves import make_key
from fedsec.identity.names import Kind, Principal
from fedsec.identity.principals import principal_of
from tests.pki import FEDERATION, Leaf, forge, make_pki, node_uri

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PKI = make_pki(now=NOW)
OTHER = make_pki(now=NOW)  # the same names, other keys: an impostor
NODE = "0123456789abcdef0123456789abcdef"
LEAF = PKI.node(NODE)
DAY = timedelta(days=1)


def bundle(leaf: Leaf = LEAF) -> Bundle:
    return Bundle(leaf.chain_pem, PKI.servers.certificate_pem, PKI.root.certificate_pem)


def enrol(
    sent: Bundle,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    root: str | None = None,
    now: datetime = NOW,
) -> Principal:
    assert isinstance(LEAF.key, ec.EllipticCurvePrivateKey)
    return check_enrolment(
        sent,
        key=key or LEAF.key,
        servers_ca_fingerprint=bytes.fromhex(PKI.servers.fingerprint),
        root_fingerprint=root,
        now=now,
    )


@pytest.mark.parametrize("root", [None, PKI.root.fingerprint], ids=["unpinned", "pinned"])
def test_a_sound_answer(root: str | None) -> None:
    assert enrol(bundle(), root=root).spiffe_id == f"spiffe://{FEDERATION}/node/{NODE}"


NEXT = make_issuer(PKI.root, Kind.SERVER, now=NOW)  # the servers' CA to come


def two(second: bytes) -> Bundle:
    return replace(bundle(), servers_ca_pem=PKI.servers.certificate_pem + second)


def test_the_servers_ca_to_come_may_follow_the_present_one() -> None:
    assert enrol(two(NEXT.certificate_pem)) == enrol(bundle())


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (two(OTHER.servers.certificate_pem), "wrong-issuer"),
        (two(PKI.nodes.certificate_pem), "wrong-kind"),
        (two(PKI.root.certificate_pem), "not-an-authority"),
        (two(NEXT.certificate_pem * 4), "malformed"),
        (two(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "malformed"),
        (replace(bundle(), servers_ca_pem=NEXT.certificate_pem), "wrong-fingerprint"),
        (replace(bundle(), servers_ca_pem=OTHER.servers.certificate_pem), "wrong-fingerprint"),
        (replace(bundle(), servers_ca_pem=PKI.nodes.certificate_pem), "wrong-fingerprint"),
        (replace(bundle(), root_pem=OTHER.root.certificate_pem), "wrong-issuer"),
        (replace(bundle(), root_pem=PKI.servers.certificate_pem), "not-an-authority"),
        (bundle(OTHER.node(NODE)), "wrong-issuer"),
        (bundle(PKI.person()), "wrong-kind"),
        (bundle(PKI.server()), "wrong-kind"),
        (bundle(forge(PKI.nodes, [node_uri()], now=NOW - DAY)), "expired"),
        (bundle(forge(PKI.nodes, [node_uri("other.example")], now=NOW)), "wrong-federation"),
        (replace(bundle(), chain_pem=LEAF.certificate_pem), "malformed"),
        (replace(bundle(), chain_pem=LEAF.chain_pem * 2), "malformed"),
        (replace(bundle(), chain_pem=b""), "malformed"),
        (replace(bundle(), chain_pem=b"x" * 100_000), "malformed"),
    ],
)
def test_an_unsound_answer(sent: Bundle, code: str) -> None:
    with pytest.raises(IdentityError) as caught:
        enrol(sent)
    assert caught.value.code == code


def test_a_root_that_is_not_the_pinned_one() -> None:
    """All else agrees: only the fingerprint that came by another way tells them apart."""
    with pytest.raises(IdentityError, match="wrong-fingerprint: the root is") as caught:
        enrol(bundle(), root=OTHER.root.fingerprint)
    assert "do not go on" in caught.value.detail


def test_a_certificate_for_another_key() -> None:
    with pytest.raises(IdentityError, match="wrong-key"):
        enrol(bundle(), key=make_key())


def test_a_clock_ten_minutes_slow_is_named() -> None:
    with pytest.raises(IdentityError, match=r"not-yet-valid: .* clocks is wrong"):
        enrol(bundle(), now=NOW - timedelta(minutes=10))


def test_a_renewal() -> None:
    before = principal_of(LEAF.certificate_pem, issuer=PKI.nodes.certificate, kind=Kind.NODE)
    fresh = PKI.node(NODE)
    assert isinstance(fresh.key, ec.EllipticCurvePrivateKey)
    after = check_renewal(bundle(fresh), key=fresh.key, before=before, now=NOW)
    assert after.spiffe_id == before.spiffe_id
    assert after.serial != before.serial


def test_a_renewal_for_somebody_else() -> None:
    before = principal_of(LEAF.certificate_pem, issuer=PKI.nodes.certificate, kind=Kind.NODE)
    fresh = PKI.node("f" * 32)
    assert isinstance(fresh.key, ec.EllipticCurvePrivateKey)
    with pytest.raises(IdentityError, match="wrong-identity: the new certificate is for"):
        check_renewal(bundle(fresh), key=fresh.key, before=before, now=NOW)


def test_a_renewal_under_another_servers_ca_is_held_to_the_root() -> None:
    before = principal_of(LEAF.certificate_pem, issuer=PKI.nodes.certificate, kind=Kind.NODE)
    fresh = PKI.node(NODE)
    assert isinstance(fresh.key, ec.EllipticCurvePrivateKey)
    foreign = replace(bundle(fresh), servers_ca_pem=OTHER.servers.certificate_pem)
    with pytest.raises(IdentityError, match="wrong-issuer"):
        check_renewal(foreign, key=fresh.key, before=before, now=NOW)


def test_a_chain_is_split() -> None:
    leaf, issuer = split_chain(LEAF.chain_pem)
    assert leaf == LEAF.certificate_pem
    assert issuer == PKI.nodes.certificate_pem
