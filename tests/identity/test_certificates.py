"""Damaged certificates are refused with a code, whichever byte it is; one spelling each."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import IdentityError
from fedsec.identity.authorities import Authority, check_issuer
from fedsec.identity.certificates import load_certificate
from fedsec.identity.names import Kind
from fedsec.identity.principals import principal_of
from tests.pki import Leaf, forge, make_pki, node_uri

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PKI = make_pki(now=NOW)
LEAF = PKI.node("0123456789abcdef0123456789abcdef").certificate
DER = serialization.Encoding.DER
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def as_node(pem: bytes) -> None:
    principal_of(pem, issuer=PKI.nodes.certificate, kind=Kind.NODE)


def as_issuer(pem: bytes) -> None:
    check_issuer(pem, kind=Kind.NODE, root_pem=PKI.root.certificate_pem, now=NOW)


@pytest.mark.filterwarnings("ignore")  # the library remarks on what it reads; the codes count
@pytest.mark.parametrize(
    ("certificate", "use"), [(LEAF, as_node), (PKI.nodes.certificate, as_issuer)]
)
@given(data=st.data())
def test_any_damage_is_refused_with_a_code(
    certificate: x509.Certificate, use: Callable[[bytes], None], data: st.DataObject
) -> None:
    der = bytearray(certificate.public_bytes(DER))
    use(to_pem(der))
    place = data.draw(st.integers(0, len(der) - 1))
    der[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IdentityError):
        use(to_pem(der))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a003020102", "a003020103"),
        (b"\x0c\x0ffedsec nodes".hex(), b"\x03\x0ffedsec nodes".hex()),
        (b"fedsec nodes CA".hex(), b"fedsec \xff\xfe\xfdes CA".hex()),
        ("0603551d25", "0603551d0f"),
        ("863a73", "a33a73"),
    ],
    ids=["version 4", "name that is no text", "no UTF-8", "extension twice", "X.400 address"],
)
def test_what_the_library_reads_late_is_refused_early(old: str, new: str) -> None:
    der = LEAF.public_bytes(DER)
    assert bytes.fromhex(old) in der
    with pytest.raises(IdentityError, match="malformed"):
        load_certificate(to_pem(der.replace(bytes.fromhex(old), bytes.fromhex(new))))


@pytest.mark.filterwarnings("ignore")
def test_a_serial_below_zero_is_refused() -> None:
    """Setting its first bit makes a serial of 16 bytes a negative number, of the same length."""
    leaf = next(
        leaf.certificate
        for leaf in iter(fresh_leaf, None)
        if leaf.certificate.serial_number.bit_length() in range(121, 128)
    )
    serial, tbs = leaf.serial_number.to_bytes(16, "big"), leaf.tbs_certificate_bytes
    below = signed(PKI.nodes, tbs.replace(serial, bytes([serial[0] | 0x80]) + serial[1:]))
    assert x509.load_der_x509_certificate(below).serial_number < 0
    with pytest.raises(IdentityError, match="malformed"):
        as_node(to_pem(below))


def test_a_key_that_is_no_point_of_the_curve_is_refused() -> None:
    """The issuer never signs one; were it to, the check of the key would still hold."""
    key = LEAF.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    point = key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    tbs = LEAF.tbs_certificate_bytes
    as_node(to_pem(signed(PKI.nodes, tbs)))
    off = signed(PKI.nodes, tbs.replace(point, point[:-1] + bytes([point[-1] ^ 1])))
    with pytest.raises(IdentityError, match="wrong-key: the certificate's key is unreadable"):
        as_node(to_pem(off))


def test_a_certificate_has_one_spelling() -> None:
    """Unused bits of the signature are nobody's business; the library lets them be."""
    leaf = next(leaf for leaf in iter(fresh_leaf, None) if leaf.certificate.signature[-1] % 2 == 0)
    der = bytearray(leaf.certificate.public_bytes(DER))
    der[-len(leaf.certificate.signature) - 1] = 1
    other = x509.load_der_x509_certificate(bytes(der))
    other.verify_directly_issued_by(PKI.nodes.certificate)
    with pytest.raises(IdentityError, match="malformed"):
        as_node(to_pem(der))


def fresh_leaf() -> Leaf:
    return forge(PKI.nodes, [node_uri()], now=NOW)


def signed(issuer: Authority, tbs: bytes) -> bytes:
    """Returns a certificate (DER) over content that no builder would make."""
    signature = issuer.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    bits = bytes([0x03, len(signature) + 1, 0]) + signature
    body = tbs + ECDSA_SHA256 + bits
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


def to_pem(der: bytes | bytearray) -> bytes:
    return ssl.DER_cert_to_PEM_cert(bytes(der)).encode()
