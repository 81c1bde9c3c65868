"""What a request may ask for is nothing; what the issuer writes is all."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.leaves import (
    MAX_REQUEST,
    Lifetimes,
    check_host,
    check_request,
    issue,
    key_pem,
    load_key,
    make_key,
    make_request,
)
from fedsec.identity.names import Kind, Role
from fedsec.identity.principals import principal_of, signature_only
from tests.pki import CLIENT, FEDERATION, SERVER, hostile_request, make_pki

NOW = datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC)
SECOND = NOW.replace(microsecond=0)
PKI = make_pki(now=NOW)
NODE = "0123456789abcdef0123456789abcdef"
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
KEY = make_key()
CSR = make_request(KEY)


def issue_node(
    csr: bytes = CSR, *, now: datetime = NOW, lifetime: timedelta = 8 * HOUR
) -> x509.Certificate:
    chain = issue(PKI.nodes, csr, kind=Kind.NODE, name=NODE, lifetime=lifetime, now=now)
    leaf, issuer = x509.load_pem_x509_certificates(chain)
    assert issuer == PKI.nodes.certificate
    return leaf


def issue_server(hosts: Sequence[str]) -> x509.Certificate:
    chain = issue(
        PKI.servers, CSR, kind=Kind.SERVER, name="fleet", hosts=hosts, lifetime=HOUR, now=NOW
    )
    return x509.load_pem_x509_certificate(chain)


@pytest.mark.parametrize("csr", [CSR, hostile_request(KEY)], ids=["plain", "hostile"])
def test_the_profile_of_a_node(csr: bytes) -> None:
    leaf = issue_node(csr)
    assert leaf.public_key() == KEY.public_key()
    assert leaf.subject.rfc4514_string() == "CN=fedsec leaf"
    assert 0 < leaf.serial_number < 1 << 128
    assert leaf.not_valid_before_utc == SECOND - timedelta(seconds=60)
    assert leaf.not_valid_after_utc == SECOND + 8 * HOUR
    found = {type(each.value): each for each in leaf.extensions}
    assert len(found) == len(leaf.extensions) == 6
    assert found[x509.BasicConstraints].critical
    assert found[x509.BasicConstraints].value == x509.BasicConstraints(ca=False, path_length=None)
    assert found[x509.KeyUsage].critical
    assert found[x509.ExtendedKeyUsage].value == x509.ExtendedKeyUsage([CLIENT])
    uri = x509.UniformResourceIdentifier(f"spiffe://{FEDERATION}/node/{NODE}")
    assert found[x509.SubjectAlternativeName].value == x509.SubjectAlternativeName([uri])
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage == signature_only()
    pointer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    above = PKI.nodes.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert pointer.key_identifier == above.value.digest


def test_the_profile_of_a_server() -> None:
    leaf = issue_server(["Fed.Example", "10.0.0.7", "::1", "10.0.0.7"])
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [SERVER]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [
        x509.UniformResourceIdentifier(f"spiffe://{FEDERATION}/server/fleet"),
        x509.DNSName("fed.example"),
        x509.IPAddress(ipaddress.ip_address("10.0.0.7")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]


def test_two_certificates_of_one_request_differ_in_their_serials() -> None:
    assert issue_node().serial_number != issue_node().serial_number


def test_a_leaf_never_outlives_its_issuer() -> None:
    end = PKI.nodes.certificate.not_valid_after_utc
    assert issue_node(now=end - HOUR).not_valid_after_utc == end
    begin = PKI.nodes.certificate.not_valid_before_utc
    assert issue_node(now=begin).not_valid_before_utc == begin


@pytest.mark.parametrize(
    ("now", "code"), [(NOW + 400 * DAY, "expired"), (NOW - DAY, "not-yet-valid")]
)
def test_an_issuer_out_of_its_time_issues_nothing(now: datetime, code: str) -> None:
    with pytest.raises(IdentityError) as caught:
        issue_node(now=now)
    assert caught.value.code == code


def test_defaults_of_lifetimes() -> None:
    lifetimes = Lifetimes()
    assert [lifetimes.of(kind) for kind in (Kind.NODE, Kind.SERVER, Kind.PERSON)] == [
        8 * HOUR,
        24 * HOUR,
        12 * HOUR,
    ]
    assert lifetimes.backdate == timedelta(seconds=60)


@pytest.mark.parametrize("lifetime", [timedelta(0), -HOUR, 32 * DAY])
def test_lifetimes_out_of_range(lifetime: timedelta) -> None:
    for kind in Kind:
        with pytest.raises(ConfigError, match=f"lifetime of a {kind} must be above 0"):
            Lifetimes(**{kind.value: lifetime})
    with pytest.raises(ConfigError, match="lifetime must be above 0"):
        issue_node(lifetime=lifetime)


def test_backdate_is_not_negative() -> None:
    with pytest.raises(ConfigError, match="backdate must be >= 0"):
        Lifetimes(backdate=-HOUR)
    with pytest.raises(ConfigError, match="backdate must be >= 0"):
        issue(PKI.nodes, CSR, kind=Kind.NODE, name=NODE, lifetime=HOUR, now=NOW, backdate=-HOUR)


def test_a_lifetime_of_seconds() -> None:
    leaf = issue_node(lifetime=timedelta(seconds=2))
    assert leaf.not_valid_after_utc == SECOND + timedelta(seconds=2)


def test_arguments_that_do_not_fit_each_other() -> None:
    for issuer, kind, name, role, hosts, sentence in (
        (PKI.people, Kind.NODE, NODE, None, (), "issues certificates for person, not for node"),
        (PKI.root, Kind.NODE, NODE, None, (), "not the subject of an issuing authority"),
        (PKI.nodes, Kind.NODE, "site-a", None, (), "must be 32 lower-case hex digits"),
        (PKI.nodes, Kind.NODE, NODE, Role.ADMIN, (), "role admin does not fit a node"),
        (PKI.nodes, Kind.NODE, NODE, None, ("a.example",), "hosts of a node must be none"),
        (PKI.people, Kind.PERSON, "ann", None, (), "a person needs a role"),
        (PKI.people, Kind.PERSON, "ann", Role.NODE, (), "role node does not fit a person"),
        (PKI.people, Kind.PERSON, "../ann", Role.ADMIN, (), "must be 1 to 63 characters"),
        (PKI.people, Kind.PERSON, "ann", Role.ADMIN, ("a",), "hosts of a person must be none"),
        (PKI.servers, Kind.SERVER, "fleet", None, (), "hosts of a server must be at least one"),
        (PKI.servers, Kind.SERVER, "fleet", None, ("*.a",), "without port or wildcard"),
    ):
        with pytest.raises((ConfigError, IdentityError), match=sentence):
            issue(issuer, CSR, kind=kind, name=name, role=role, hosts=hosts, lifetime=HOUR, now=NOW)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        dsa.generate_private_key(2048),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["RSA", "DSA", "P-384", "P-521", "secp256k1", "Ed25519"],
)
def test_a_key_that_is_not_p256_is_refused(key: CertificateIssuerPrivateKeyTypes) -> None:
    with pytest.raises(IdentityError) as caught:
        issue_node(hostile_request(key))
    assert caught.value.code == "wrong-key"


def test_a_large_request_is_refused_before_it_is_parsed() -> None:
    large = hostile_request(KEY, attributes=1200)
    assert len(large) > MAX_REQUEST
    with pytest.raises(IdentityError, match=r"bad-request: signing request has .* max 16384"):
        check_request(large)
    just_fits = hostile_request(KEY, attributes=700)
    assert len(just_fits) < MAX_REQUEST
    assert check_request(just_fits) == KEY.public_key()


def test_a_request_for_somebody_elses_key_is_refused() -> None:
    """The public key in it is exchanged; its private key never signed."""
    other = make_key().public_key()
    place = CSR.index(_point(KEY.public_key()))
    forged = CSR[:place] + _point(other) + CSR[place + 65 :]
    with pytest.raises(IdentityError, match="bad-signature"):
        issue_node(forged)


def test_a_request_signed_over_a_weak_hash_is_refused() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for weak in (hashes.SHA224(), hashes.SHA3_256()):
        request = builder.sign(KEY, weak)
        assert request.is_signature_valid
        with pytest.raises(IdentityError, match="bad-signature"):
            check_request(request.public_bytes(serialization.Encoding.DER))
    for sound in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        request = builder.sign(KEY, sound)
        assert check_request(request.public_bytes(serialization.Encoding.DER)) == KEY.public_key()


def test_bytes_after_a_request_are_refused() -> None:
    for damaged in (CSR + b"\x00", CSR[:-1], b"", b"\x30\x80" + CSR):
        with pytest.raises(IdentityError, match="bad-request"):
            check_request(damaged)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_with_a_code(raw: bytes) -> None:
    with pytest.raises(IdentityError, match="bad-request"):
        check_request(raw)


@given(data=st.data())
def test_any_damage_to_a_request_is_refused(data: st.DataObject) -> None:
    damaged = bytearray(CSR)
    damaged[data.draw(st.integers(0, len(CSR) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IdentityError):
        check_request(bytes(damaged))


def test_keys_are_kept_and_loaded() -> None:
    assert load_key(key_pem(KEY)).private_numbers() == KEY.private_numbers()
    assert isinstance(KEY.curve, ec.SECP256R1)


def test_keys_of_other_kinds_are_not_loaded() -> None:
    p384 = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(IdentityError, match="wrong-key: the key is not EC P-256"):
        load_key(key_pem(p384))
    encrypted = PKI.nodes.key_pem(b"correct horse")
    for pem in (b"", b"x", encrypted, PKI.nodes.certificate_pem):
        with pytest.raises(IdentityError, match="malformed"):
            load_key(pem)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", x509.DNSName("localhost")),
        ("Fed.Example", x509.DNSName("fed.example")),
        ("127.0.0.1", x509.IPAddress(ipaddress.ip_address("127.0.0.1"))),
        ("::1", x509.IPAddress(ipaddress.ip_address("::1"))),
    ],
)
def test_good_hosts(host: str, name: x509.GeneralName) -> None:
    assert check_host(host) == name


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "*.example",
        "a b",
        "a:1",
        "[::1]",
        "fe80::1%eth0",
        "a.",
        "1.2.3",
        "a\n",
        "ü.example",
    ],
)
def test_bad_hosts(host: str) -> None:
    with pytest.raises(ConfigError, match="without port or wildcard"):
        check_host(host)


def test_the_principal_of_a_hostile_request_is_whom_the_issuer_named() -> None:
    chain = issue(
        PKI.people,
        hostile_request(KEY),
        kind=Kind.PERSON,
        name="eve",
        role=Role.AUDITOR,
        lifetime=HOUR,
        now=NOW,
    )
    principal = principal_of(chain, issuer=PKI.people.certificate, kind=Kind.PERSON)
    assert principal.spiffe_id == f"spiffe://{FEDERATION}/person/auditor/eve"


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
