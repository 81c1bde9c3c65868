"""Certificates as such: reading them without surprises, who signed them, when they hold.

Source: RFC 5280 sections 4.1 and 6.1.
"""

import secrets
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from fedsec.errors import IdentityError
from fedsec.identity.times import show_time

MAX_PEM = 64 << 10  # bytes; a certificate of this profile has about 1 KiB
MAX_BUNDLE = 4  # certificates; an authority and its successor are two
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)  # what cryptography raises at encodings that it does not like


def load_certificate(certificate_pem: bytes) -> x509.Certificate:
    """Returns the first certificate of a PEM text. Its fields can all be read without an error.

    Raises:
        IdentityError: ``malformed``, there is none that can be read, or the text is over 64 KiB.
    """
    if len(certificate_pem) > MAX_PEM:
        raise IdentityError("malformed", f"PEM has {len(certificate_pem)} bytes, max {MAX_PEM}")
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        _read_fields(certificate)
    except UNREADABLE as error:
        raise IdentityError("malformed", "the text holds no readable certificate") from error
    return certificate


def load_certificates(bundle_pem: bytes) -> tuple[x509.Certificate, ...]:
    """Returns all certificates of a PEM text, one to `MAX_BUNDLE`, in order.

    Raises:
        IdentityError: ``malformed``: none or too many, or one of them cannot be read.
    """
    load_certificate(bundle_pem)  # bounds its size
    try:
        certificates = tuple(x509.load_pem_x509_certificates(bundle_pem))
        for certificate in certificates:
            _read_fields(certificate)
    except UNREADABLE as error:
        raise IdentityError("malformed", "the text holds an unreadable certificate") from error
    if len(certificates) > MAX_BUNDLE:
        raise IdentityError(
            "malformed", f"the text holds {len(certificates)} certificates, max {MAX_BUNDLE}"
        )
    return certificates


def _read_fields(certificate: x509.Certificate) -> None:
    """Reads what the library reads late, so that what is damaged shows here and not later."""
    _ = (certificate.subject, certificate.issuer, certificate.extensions)
    _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    if certificate.serial_number <= 0:
        raise ValueError("serial number is not positive")
    check_ending(certificate.public_bytes(serialization.Encoding.DER), certificate.signature)


def check_ending(der: bytes, signature: bytes) -> None:
    """Raises ValueError unless `der` ends in `signature`, a bit string of whole bytes.

    The count of unused bits lies before it, is not signed, and may be other than 0 for the library:
    then one certificate would have several spellings.
    """
    if not der.endswith(b"\x00" + signature):
        raise ValueError("the signature is not of whole bytes")


def check_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raises IdentityError ``wrong-issuer`` unless `issuer`'s key signed `certificate`.

    Both the name and the signature count: a foreign authority may bear the same name.
    """
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature) as error:
        subject = issuer.subject.rfc4514_string()
        raise IdentityError("wrong-issuer", f"not signed by {subject!r} of this federation") from (
            error
        )


def check_validity(certificate: x509.Certificate, *, now: datetime, what: str) -> None:
    """Raises IdentityError ``expired`` or ``not-yet-valid`` unless `now` is inside.

    Args:
        certificate: Whose validity counts, both ends included.
        now: Aware time.
        what: Names the certificate in the sentence.
    """
    check_window(
        certificate.not_valid_before_utc, certificate.not_valid_after_utc, now=now, what=what
    )


def check_window(not_before: datetime, not_after: datetime, *, now: datetime, what: str) -> None:
    """Raises IdentityError ``expired`` or ``not-yet-valid`` unless `now` is inside both ends."""
    if now > not_after:
        raise IdentityError(
            "expired",
            f"{what} expired at {show_time(not_after)}, it is {show_time(now)} here",
        )
    if now < not_before:
        raise IdentityError(
            "not-yet-valid",
            f"{what} is valid from {show_time(not_before)}, it is {show_time(now)} here; "
            "one of the two clocks is wrong",
        )


def random_serial() -> int:
    """Returns a certificate serial, uniform over 1 to 2^128 - 1."""
    return secrets.randbelow((1 << 128) - 1) + 1
