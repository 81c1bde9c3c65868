"""The tree of authorities: its profile, its files, and whom it does not believe."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.authorities import (
    Authority,
    check_issuer,
    fingerprint,
    is_root,
    issuer_of_kind,
    load_authority,
    make_issuer,
    make_root,
    read_fingerprint,
    show_fingerprint,
)
from fedsec.identity.certificates import load_certificate, random_serial
from fedsec.identity.names import Kind
from tests.pki import FEDERATION, lookalike, make_pki

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PKI = make_pki(now=NOW)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def test_the_root() -> None:
    root = PKI.root.certificate
    assert root.subject.rfc4514_string() == f"CN=fedsec root CA,O={FEDERATION}"
    assert root.issuer == root.subject
    assert isinstance(root.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(PKI.root.key.curve, ec.SECP384R1)
    assert (root.not_valid_before_utc, root.not_valid_after_utc) == (NOW - MINUTE, NOW + 3650 * DAY)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 1)


@pytest.mark.parametrize("kind", Kind)
def test_an_issuer(kind: Kind) -> None:
    authority = PKI.issuer(kind)
    issuer = authority.certificate
    assert issuer_of_kind(issuer) == (FEDERATION, kind)
    assert isinstance(authority.key.curve, ec.SECP256R1)
    assert (issuer.not_valid_before_utc, issuer.not_valid_after_utc) == (
        NOW - MINUTE,
        NOW + 365 * DAY,
    )
    extensions = issuer.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    names = extensions.get_extension_for_class(x509.NameConstraints)
    assert names.critical
    assert names.value.permitted_subtrees == [x509.UniformResourceIdentifier(FEDERATION)]
    pointer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    root_key = PKI.root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert pointer.key_identifier == root_key.value.digest


def test_the_three_issuers_have_three_names() -> None:
    names = {PKI.issuer(kind).certificate.subject.rfc4514_string() for kind in Kind}
    assert names == {
        f"CN=fedsec {which} CA,O={FEDERATION}" for which in ("servers", "nodes", "people")
    }


def test_an_issuer_never_outlives_the_root() -> None:
    late = NOW + 3600 * DAY
    issuer = make_issuer(PKI.root, Kind.NODE, now=late).certificate
    assert issuer.not_valid_after_utc == PKI.root.certificate.not_valid_after_utc
    early = NOW - MINUTE
    issuer = make_issuer(PKI.root, Kind.NODE, now=early).certificate
    assert issuer.not_valid_before_utc == PKI.root.certificate.not_valid_before_utc


@pytest.mark.parametrize(
    ("now", "code"), [(NOW + 3651 * DAY, "expired"), (NOW - DAY, "not-yet-valid")]
)
def test_a_root_out_of_its_time_makes_no_issuer(now: datetime, code: str) -> None:
    with pytest.raises(IdentityError) as caught:
        make_issuer(PKI.root, Kind.NODE, now=now)
    assert caught.value.code == code


def test_an_issuer_makes_no_issuer() -> None:
    with pytest.raises(ConfigError, match="is not the root of a federation"):
        make_issuer(PKI.nodes, Kind.NODE, now=NOW)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no zone"):
        make_root(FEDERATION, now=datetime(2026, 3, 1))  # noqa: DTZ001 - that is the point


def test_a_bad_federation_is_refused() -> None:
    with pytest.raises(ConfigError, match="federation 'Fed'"):
        make_root("Fed", now=NOW)


def test_serials_have_128_bits() -> None:
    serials = [random_serial() for _ in range(2000)]
    assert len(set(serials)) == len(serials)
    assert all(0 < serial < 1 << 128 for serial in serials)
    # each bit is set in half of them; 2000 draws stay within 5 standard deviations (112)
    for bit in range(128):
        assert abs(sum(serial >> bit & 1 for serial in serials) - 1000) < 112


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_authorities_are_kept_and_loaded(passphrase: bytes | None) -> None:
    pem = PKI.root.key_pem(passphrase)
    assert (b"ENCRYPTED" in pem) == (passphrase is not None)
    loaded = load_authority(PKI.root.certificate_pem, pem, passphrase)
    assert loaded.fingerprint == PKI.root.fingerprint
    assert loaded.key.private_numbers() == PKI.root.key.private_numbers()


@pytest.mark.parametrize(
    ("stored", "given", "sentence"),
    [
        (b"correct horse", b"wrong horse!", "the passphrase is wrong, or the key file is damaged"),
        (b"correct horse", None, "needs a passphrase"),
        (b"correct horse", b"", "needs a passphrase"),
        (None, b"correct horse", "is not encrypted"),
    ],
)
def test_a_wrong_passphrase(stored: bytes | None, given: bytes | None, sentence: str) -> None:
    pem = PKI.nodes.key_pem(stored)
    with pytest.raises(IdentityError, match=f"bad-passphrase: .*{sentence}") as caught:
        load_authority(PKI.nodes.certificate_pem, pem, given)
    assert "correct" not in str(caught.value)


def test_a_key_of_another_authority() -> None:
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for key in (PKI.people.key_pem(None), other):
        with pytest.raises(IdentityError, match=r"wrong-key: .*CN=fedsec nodes CA"):
            load_authority(PKI.nodes.certificate_pem, key)


def test_damaged_files() -> None:
    for certificate, key in ((b"", PKI.nodes.key_pem(None)), (PKI.nodes.certificate_pem, b"x")):
        with pytest.raises(IdentityError, match="malformed"):
            load_authority(certificate, key)


def test_a_leaf_is_no_authority() -> None:
    leaf = PKI.node()
    with pytest.raises(IdentityError, match=r"not-an-authority: .*may not sign certificates"):
        load_authority(leaf.certificate_pem, leaf.key_pem)


def test_only_the_root_is_a_root() -> None:
    assert is_root(PKI.root.certificate_pem)
    assert not is_root(PKI.nodes.certificate_pem)
    assert not is_root(PKI.node().certificate_pem)


def test_what_has_no_extensions_is_no_authority() -> None:
    name = PKI.root.certificate.subject
    bare = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(PKI.root.key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .sign(PKI.root.key, hashes.SHA384())
        .public_bytes(serialization.Encoding.PEM)
    )
    assert not is_root(bare)
    with pytest.raises(IdentityError, match="not-an-authority"):
        load_authority(bare, PKI.root.key_pem(None))


def test_nothing_shows_a_key() -> None:
    secret = f"{PKI.root.key.private_numbers().private_value:x}"
    for shown in (repr(PKI.root), str(PKI.root)):
        assert shown == f"Authority('CN=fedsec root CA,O={FEDERATION}')"
        assert secret not in shown


def check(issuer: Authority, *, kind: Kind, root: Authority, now: datetime = NOW) -> None:
    found = check_issuer(issuer.certificate_pem, kind=kind, root_pem=root.certificate_pem, now=now)
    assert found == issuer.certificate


def test_an_issuer_of_the_root_is_believed() -> None:
    for kind in Kind:
        check(PKI.issuer(kind), kind=kind, root=PKI.root)


def test_an_issuer_that_is_not_what_it_should_be() -> None:
    stranger = make_pki(now=NOW)
    elsewhere = make_pki(now=NOW, federation="other.example")
    late = NOW + 366 * DAY
    for issuer, root, now, code in (
        (PKI.people, PKI.root, NOW, "wrong-kind"),
        (stranger.nodes, PKI.root, NOW, "wrong-issuer"),
        (lookalike(PKI.nodes), PKI.root, NOW, "wrong-issuer"),
        (elsewhere.nodes, PKI.root, NOW, "not-an-authority"),
        (PKI.nodes, PKI.servers, NOW, "not-an-authority"),
        (PKI.root, PKI.root, NOW, "not-an-authority"),
        (PKI.nodes, PKI.root, late, "expired"),
        (PKI.nodes, PKI.root, NOW + 4000 * DAY, "expired"),
        (PKI.nodes, PKI.root, NOW - DAY, "not-yet-valid"),
    ):
        with pytest.raises(IdentityError) as caught:
            check(issuer, kind=Kind.NODE, root=root, now=now)
        assert caught.value.code == code


def test_an_issuer_that_outlives_its_root_is_refused() -> None:
    """`make_issuer` makes none; the root's own end counts all the same."""
    old = make_root(FEDERATION, now=NOW - 3651 * DAY)
    nodes = PKI.nodes.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(nodes.subject)
        .issuer_name(old.certificate.subject)
        .public_key(PKI.nodes.key.public_key())
        .serial_number(1)
        .not_valid_before(nodes.not_valid_before_utc)
        .not_valid_after(nodes.not_valid_after_utc)
    )
    for extension in nodes.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    issuer = Authority(builder.sign(old.key, hashes.SHA384()), PKI.nodes.key)
    with pytest.raises(IdentityError, match="expired: the root certificate"):
        check(issuer, kind=Kind.NODE, root=old)


def test_fingerprints() -> None:
    der = load_certificate(PKI.root.certificate_pem).public_bytes(serialization.Encoding.DER)
    digits = hashlib.sha256(der).hexdigest()
    assert fingerprint(PKI.root.certificate_pem) == digits == PKI.root.fingerprint
    shown = show_fingerprint(digits)
    assert len(shown.split()) == 16
    colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2)).upper()
    assert read_fingerprint(shown) == read_fingerprint(f" {colons}\n") == digits


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "a" * 63, "a" * 65, "٣" * 64])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ConfigError, match="fingerprint must be 64 hex digits"):
        read_fingerprint(text)
