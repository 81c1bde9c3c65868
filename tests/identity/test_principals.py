"""Every attack on a certificate ends in the code that the docstring promises."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from fedsec.errors import IdentityError
from fedsec.identity.authorities import Authority
from fedsec.identity.names import Kind, Principal, Role
from fedsec.identity.principals import admit, principal_of
from tests.pki import (
    BAD_NODES,
    CLIENT,
    FEDERATION,
    SERVER,
    Leaf,
    forge,
    forge_server,
    make_pki,
    node_uri,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PKI = make_pki(now=NOW)
NODE = "0123456789abcdef0123456789abcdef"
SECOND = timedelta(seconds=1)


def as_node(leaf: Leaf) -> Principal:
    return principal_of(leaf.certificate_pem, issuer=PKI.nodes.certificate, kind=Kind.NODE)


def code_of(leaf: Leaf, *, kind: Kind = Kind.NODE) -> str:
    with pytest.raises(IdentityError) as caught:
        principal_of(leaf.chain_pem, issuer=PKI.issuer(kind).certificate_pem, kind=kind)
    return caught.value.code


def test_a_node() -> None:
    leaf = PKI.node(NODE)
    principal = as_node(leaf)
    assert principal == Principal(
        federation=FEDERATION,
        kind=Kind.NODE,
        role=Role.NODE,
        name=NODE,
        serial=leaf.certificate.serial_number,
        not_before=NOW - timedelta(seconds=60),
        not_after=NOW + timedelta(hours=8),
    )
    assert principal.spiffe_id == f"spiffe://fed.example/node/{NODE}"


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OPERATOR, Role.AUDITOR])
def test_a_person_has_the_role_of_the_certificate(role: Role) -> None:
    leaf = PKI.person("ann", role)
    principal = principal_of(leaf.chain_pem, issuer=PKI.people.certificate_pem, kind=Kind.PERSON)
    assert (principal.kind, principal.role, principal.name) == (Kind.PERSON, role, "ann")


def test_a_server() -> None:
    leaf = PKI.server("fleet", hosts=("fed.example", "10.1.2.3", "::1"))
    principal = principal_of(leaf.chain_pem, issuer=PKI.servers.certificate, kind=Kind.SERVER)
    assert principal.spiffe_id == "spiffe://fed.example/server/fleet"


@pytest.mark.parametrize("attack", BAD_NODES)
def test_a_bad_certificate_is_refused(attack: str) -> None:
    defect = BAD_NODES[attack]
    with pytest.raises(IdentityError) as caught:
        admit(as_node(defect.make(PKI)), now=NOW)
    assert caught.value.code == defect.code
    assert "\n" not in caught.value.detail


def test_the_kind_is_decided_twice() -> None:
    """A leaf of another authority is refused whatever it calls itself, and the reverse."""
    for signer in Kind:
        for claimed in Kind:
            uri = {
                Kind.NODE: node_uri(),
                Kind.SERVER: f"spiffe://{FEDERATION}/server/fleet",
                Kind.PERSON: f"spiffe://{FEDERATION}/person/admin/ann",
            }[claimed]
            purposes = (SERVER,) if signer is Kind.SERVER else (CLIENT,)
            leaf = forge(PKI.issuer(signer), [uri], now=NOW, purposes=purposes)
            for door in Kind:
                if signer is claimed is door:
                    anchor = PKI.issuer(door).certificate
                    assert principal_of(leaf.chain_pem, issuer=anchor, kind=door).kind is door
                elif signer is door:
                    assert code_of(leaf, kind=door) == "wrong-kind"
                else:
                    assert code_of(leaf, kind=door) == "wrong-issuer"


@pytest.mark.parametrize("kind", [Kind.SERVER, Kind.PERSON])
def test_an_anchor_of_another_kind_is_refused(kind: Kind) -> None:
    """A listener set up with the wrong authority lets nobody in."""
    leaf = PKI.node()
    with pytest.raises(IdentityError, match=f"wrong-kind: the authority signs for {kind}"):
        principal_of(leaf.chain_pem, issuer=PKI.issuer(kind).certificate, kind=Kind.NODE)


def test_neither_the_root_nor_a_leaf_is_an_anchor() -> None:
    leaf = PKI.node()
    for anchor in (PKI.root.certificate, leaf.certificate):
        with pytest.raises(IdentityError) as caught:
            principal_of(leaf.chain_pem, issuer=anchor, kind=Kind.NODE)
        assert caught.value.code == "not-an-authority"


def test_the_common_name_is_never_read() -> None:
    victim = PKI.node(NODE)
    spoof = forge(PKI.nodes, [node_uri()], now=NOW, common_name=victim.spiffe_id)
    assert as_node(spoof).name != NODE


def test_a_signature_of_the_same_issuer_over_other_content_does_not_pass() -> None:
    """One bit of the signed part differs."""
    leaf = PKI.node(NODE)
    der = _der(leaf)
    place = der.index(NODE.encode())
    other = der[:place] + b"1" + der[place + 1 :]
    forged = Leaf(x509.load_der_x509_certificate(other), leaf.issuers_pem, leaf.key)
    assert code_of(forged) == "wrong-issuer"


def test_usage_must_be_signature_alone() -> None:
    for changes in ({"key_agreement": True}, {"key_cert_sign": True}, {"digital_signature": False}):
        bits = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        usage = x509.KeyUsage(**{"digital_signature": True, **bits, **changes})
        assert code_of(forge(PKI.nodes, [node_uri()], now=NOW, usage=usage)) == "wrong-usage"


def test_constraints_must_be_critical() -> None:
    leaf = forge(PKI.nodes, [node_uri()], now=NOW, critical_constraints=False)
    assert code_of(leaf) == "is-authority"


def test_an_unknown_critical_extension_is_refused_and_an_uncritical_one_is_not() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    uncritical = forge(PKI.nodes, [node_uri()], now=NOW, extra=[(unknown, False)])
    assert as_node(uncritical).kind is Kind.NODE
    critical = forge(PKI.nodes, [node_uri()], now=NOW, extra=[(unknown, True)])
    assert code_of(critical) == "unknown-extension"


def test_an_extension_that_does_not_parse_is_refused() -> None:
    broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x86\x05a")
    assert code_of(forge(PKI.nodes, [], now=NOW, extra=[(broken, False)])) == "malformed"


def test_a_key_of_another_kind_of_algorithm_is_refused() -> None:
    leaf = forge(PKI.nodes, [node_uri()], now=NOW, key=ed25519.Ed25519PrivateKey.generate())
    assert code_of(leaf) == "wrong-key"


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"\xff" * 100,
        PKI.nodes.key_pem(None),
        b" " * 100_000,
    ],
)
def test_what_is_no_certificate_is_malformed(pem: bytes) -> None:
    with pytest.raises(IdentityError) as caught:
        principal_of(pem, issuer=PKI.nodes.certificate, kind=Kind.NODE)
    assert caught.value.code == "malformed"


def test_validity_includes_both_ends() -> None:
    principal = as_node(PKI.node())
    admit(principal, now=principal.not_before)
    admit(principal, now=principal.not_after)
    for now, code in (
        (principal.not_before - SECOND, "not-yet-valid"),
        (principal.not_after + SECOND, "expired"),
    ):
        with pytest.raises(IdentityError) as caught:
            admit(principal, now=now)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("moment", "skew", "code"),
    [
        (timedelta(0), timedelta(minutes=10), None),
        (timedelta(0), timedelta(minutes=-10), "not-yet-valid"),
        (timedelta(0), timedelta(seconds=-59), None),
        (timedelta(hours=7, minutes=55), timedelta(minutes=10), "expired"),
        (timedelta(hours=7, minutes=55), timedelta(minutes=-10), None),
        (timedelta(hours=8, minutes=5), timedelta(minutes=-10), None),
    ],
)
def test_clocks_ten_minutes_off(moment: timedelta, skew: timedelta, code: str | None) -> None:
    """The checking clock is `skew` off when the certificate is `moment` old."""
    principal = as_node(PKI.node())
    if code is None:
        admit(principal, now=NOW + moment + skew)
        return
    with pytest.raises(IdentityError) as caught:
        admit(principal, now=NOW + moment + skew)
    assert caught.value.code == code
    if code == "not-yet-valid":
        assert "clock" in caught.value.detail


def test_the_time_zone_of_now_does_not_matter() -> None:
    principal = as_node(PKI.node())
    admit(principal, now=NOW.astimezone(timezone(timedelta(hours=-11))))


def test_a_server_may_not_carry_a_mail_address() -> None:
    leaf = forge_server(PKI, others=[x509.RFC822Name("a@fed.example")])
    assert code_of(leaf, kind=Kind.SERVER) == "wrong-san"


def test_a_server_with_a_clients_usage_is_refused() -> None:
    assert code_of(forge_server(PKI, purposes=(CLIENT,)), kind=Kind.SERVER) == "wrong-usage"


def test_an_authority_with_another_subject_is_no_anchor() -> None:
    """The mark of the kind is the subject; what bears none of the three speaks for nobody."""
    for organisation, common_name in (
        (FEDERATION, "fedsec others CA"),
        ("Not A Name", "fedsec nodes CA"),
        (None, "fedsec nodes CA"),
    ):
        stranger = _authority(organisation, common_name)
        leaf = forge(stranger, [node_uri()], now=NOW)
        with pytest.raises(IdentityError) as caught:
            principal_of(leaf.chain_pem, issuer=stranger.certificate, kind=Kind.NODE)
        assert caught.value.code == "not-an-authority"


def _authority(organisation: str | None, common_name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name(attributes))
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    for extension in PKI.nodes.certificate.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def _der(leaf: Leaf) -> bytes:
    return leaf.certificate.public_bytes(serialization.Encoding.DER)
