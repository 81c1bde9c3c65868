"""The certificate authorities: one root, and one issuing authority per kind of principal.

    root (EC P-384, 10 years, path length 1; kept apart from the coordinator)
      |-- servers' CA   (EC P-256, 1 year, path length 0)   signs kind `server`
      |-- nodes' CA     (the same)                          signs kind `node`
      `-- people's CA   (the same)                          signs kind `person`

An authority's subject says which one it is (organisation = federation, common name by the table
below), so a certificate's kind is decided by who signed it before its own names are read. A
critical name constraint keeps an issuing authority to the SPIFFE ids of its own federation.

Source: RFC 5280 sections 4.1-4.2. Profile: docs/spec/enrolment.md.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.certificates import (
    UNREADABLE,
    check_signed_by,
    check_validity,
    load_certificate,
    random_serial,
)
from fedsec.identity.names import Kind, check_federation, is_federation
from fedsec.identity.pkcs8 import encrypted_key_pem
from fedsec.identity.times import BACKDATE, whole_seconds

__all__ = [
    "Authority",
    "check_issuer",
    "check_signed_by",
    "federation_of_root",
    "fingerprint",
    "is_root",
    "issuer_of_kind",
    "key_identifier_of",
    "load_authority",
    "load_certificate",
    "make_issuer",
    "make_root",
    "read_fingerprint",
    "show_fingerprint",
]

ROOT_LIFETIME = timedelta(days=3650)
ISSUER_LIFETIME = timedelta(days=365)

ROOT_NAME = "fedsec root CA"
ISSUER_NAMES: dict[Kind, str] = {
    Kind.SERVER: "fedsec servers CA",
    Kind.NODE: "fedsec nodes CA",
    Kind.PERSON: "fedsec people CA",
}


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """A certificate authority: its certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Authority({self.certificate.subject.rfc4514_string()!r})"

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate's DER, 64 hex digits."""
        return _fingerprint(self.certificate)

    def key_pem(self, passphrase: bytes | None) -> bytes:
        """Returns the private key, PKCS #8 PEM, encrypted where there is a passphrase.

        Raises:
            ConfigError: The passphrase has fewer than 8 bytes.
        """
        if passphrase is None:
            encoding, encryption = serialization.Encoding.PEM, serialization.NoEncryption()
            return self.key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, encryption)
        return encrypted_key_pem(self.key, passphrase)


def make_root(federation: str, *, now: datetime) -> Authority:
    """Returns a new root for `federation`, self-signed, valid for ten years.

    Raises:
        ConfigError: `federation` is no name for one, or `now` has no time zone.
    """
    check_federation(federation)
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _subject(federation, ROOT_NAME)
    start = whole_seconds(now)
    builder = _authority_builder(subject, key.public_key(), path_length=1)
    builder = builder.issuer_name(subject)
    builder = builder.not_valid_before(start - BACKDATE).not_valid_after(start + ROOT_LIFETIME)
    return Authority(builder.sign(key, hashes.SHA384()), key)


def make_issuer(root: Authority, kind: Kind, *, now: datetime) -> Authority:
    """Returns a new issuing authority for principals of `kind`, valid for a year.

    It never outlives the root.

    Raises:
        ConfigError: `root` is no root, or `now` has no time zone.
        IdentityError: ``expired`` or ``not-yet-valid``, the root's validity does not hold `now`.
    """
    federation = _organisation(root.certificate)
    if not _is_root(root.certificate) or federation is None:
        raise ConfigError(f"{root!r} is not the root of a federation; it cannot make issuers")
    start = whole_seconds(now)
    check_validity(root.certificate, now=start, what="the root certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _authority_builder(
        _subject(federation, ISSUER_NAMES[kind]), key.public_key(), path_length=0
    )
    only_here = x509.NameConstraints([x509.UniformResourceIdentifier(federation)], None)
    builder = (
        builder.issuer_name(root.certificate.subject)
        .not_valid_before(max(start - BACKDATE, root.certificate.not_valid_before_utc))
        .not_valid_after(min(start + ISSUER_LIFETIME, root.certificate.not_valid_after_utc))
        .add_extension(key_identifier_of(root.certificate), critical=False)
        .add_extension(only_here, critical=True)
    )
    return Authority(builder.sign(root.key, hashes.SHA384()), key)


def load_authority(
    certificate_pem: bytes, key_pem: bytes, passphrase: bytes | None = None
) -> Authority:
    """Returns the authority of a certificate and its key.

    Raises:
        IdentityError: ``malformed`` certificate or key; ``bad-passphrase``, missing, superfluous
            or wrong; ``wrong-key``, the key is another one's; ``not-an-authority``.
    """
    certificate = load_certificate(certificate_pem)
    _check_is_authority(certificate)
    try:
        key = serialization.load_pem_private_key(key_pem, passphrase or None)
    except TypeError as error:
        needed = "needs a passphrase" if not passphrase else "is not encrypted"
        raise IdentityError("bad-passphrase", f"the authority's key {needed}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if passphrase:
            detail = "the passphrase is wrong, or the key file is damaged"
            raise IdentityError("bad-passphrase", detail) from error
        raise IdentityError("malformed", "the authority's key is no PKCS #8 PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (
        key.public_key() != certificate.public_key()
    ):
        subject = certificate.subject.rfc4514_string()
        raise IdentityError("wrong-key", f"the key does not belong to the certificate {subject!r}")
    return Authority(certificate, key)


def issuer_of_kind(certificate: x509.Certificate) -> tuple[str, Kind]:
    """Returns (federation, kind): which principals this issuing authority speaks for.

    Raises:
        IdentityError: ``not-an-authority``, it is no issuing authority of this profile.
    """
    _check_is_authority(certificate)
    federation, common_name = _organisation(certificate), _common_name(certificate)
    kinds = [kind for kind, name in ISSUER_NAMES.items() if name == common_name]
    if not kinds or federation is None or not is_federation(federation):
        raise IdentityError(
            "not-an-authority",
            f"{certificate.subject.rfc4514_string()!r} is not the subject of an issuing authority",
        )
    return federation, kinds[0]


def check_issuer(
    issuer_pem: bytes, *, kind: Kind, root_pem: bytes, now: datetime
) -> x509.Certificate:
    """Returns the issuing authority for `kind` of the federation whose root is `root_pem`.

    Raises:
        IdentityError: ``not-an-authority``; ``wrong-kind``, it speaks for another kind;
            ``wrong-issuer``, the root did not sign it; ``expired`` or ``not-yet-valid``.
    """
    issuer, root = load_certificate(issuer_pem), load_certificate(root_pem)
    federation, its_kind = issuer_of_kind(issuer)
    if its_kind is not kind:
        raise IdentityError("wrong-kind", f"the authority is for {its_kind}, want {kind}")
    if not _is_root(root) or _organisation(root) != federation:
        raise IdentityError("not-an-authority", f"the root is not that of {federation}")
    check_signed_by(issuer, root)
    check_validity(root, now=now, what="the root certificate")
    check_validity(issuer, now=now, what=f"the certificate of the {ISSUER_NAMES[kind]}")
    return issuer


def federation_of_root(certificate: x509.Certificate) -> str:
    """Returns the federation whose root this is.

    Raises:
        IdentityError: ``not-an-authority``, it is no root.
    """
    federation = _organisation(certificate)
    if not _is_root(certificate) or federation is None or not is_federation(federation):
        subject = certificate.subject.rfc4514_string()
        raise IdentityError("not-an-authority", f"{subject!r} is not the root of a federation")
    return federation


def fingerprint(certificate_pem: bytes) -> str:
    """Returns the SHA-256 of the first certificate's DER, 64 hex digits.

    Raises:
        IdentityError: ``malformed``.
    """
    return _fingerprint(load_certificate(certificate_pem))


def show_fingerprint(digits: str) -> str:
    """Returns hex digits in groups of four, as people compare them.

    >>> show_fingerprint("00ff12ab")
    '00ff 12ab'
    """
    return " ".join(re.findall(".{1,4}", digits))


def read_fingerprint(text: str) -> str:
    """Returns the 64 hex digits of a SHA-256 fingerprint that a person typed or pasted.

    Spaces, colons and upper case are accepted.

    Raises:
        ConfigError: It does not hold exactly 64 hex digits.
    """
    digits = re.sub(r"[\s:]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ConfigError(f"fingerprint must be 64 hex digits, got {len(digits)} characters")
    return digits


def is_root(certificate_pem: bytes) -> bool:
    """True where the first certificate of the PEM is a self-signed authority.

    Raises:
        IdentityError: ``malformed``.
    """
    return _is_root(load_certificate(certificate_pem))


def key_identifier_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Returns the extension that points to `issuer`'s key."""
    extension = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def _authority_builder(
    subject: x509.Name, public_key: ec.EllipticCurvePublicKey, *, path_length: int
) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(random_serial())
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _subject(federation: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _organisation(certificate: x509.Certificate) -> str | None:
    return _only(certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))


def _common_name(certificate: x509.Certificate) -> str | None:
    return _only(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))


def _only(attributes: list[x509.NameAttribute[str | bytes]]) -> str | None:
    values = [attribute.value for attribute in attributes]
    match values:
        case [str() as value]:
            return value
        case _:
            return None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        extensions.get_extension_for_class(x509.SubjectKeyIdentifier)  # leaves point to it
    except x509.ExtensionNotFound:
        return False
    return constraints.critical and constraints.value.ca and usage.value.key_cert_sign


def _check_is_authority(certificate: x509.Certificate) -> None:
    if not _is_authority(certificate):
        subject = certificate.subject.rfc4514_string()
        raise IdentityError("not-an-authority", f"{subject!r} may not sign certificates")


def _is_root(certificate: x509.Certificate) -> bool:
    if not _is_authority(certificate):
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _fingerprint(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
