"""From a peer's certificate to a `Principal`, or to the reason why not.

The certificate is read twice, independently: who signed it decides its kind, and its one SPIFFE id
must say the same. The subject's common name is never read.

Source: RFC 5280 section 4.2; SPIFFE X.509-SVID standard, sections 2-5. Profile and the order of
checks: docs/spec/enrolment.md.
"""

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from fedsec.errors import IdentityError
from fedsec.identity.authorities import issuer_of_kind
from fedsec.identity.certificates import check_signed_by, check_window, load_certificate
from fedsec.identity.names import Kind, Principal, Role, parse_spiffe

USAGE_OF_KIND: dict[Kind, x509.ObjectIdentifier] = {
    Kind.NODE: ExtendedKeyUsageOID.CLIENT_AUTH,
    Kind.PERSON: ExtendedKeyUsageOID.CLIENT_AUTH,
    Kind.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
}

_KNOWN = frozenset(
    {
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)


def principal_of(
    certificate_pem: bytes, *, issuer: x509.Certificate | bytes, kind: Kind
) -> Principal:
    """Returns whom the first certificate of a PEM speaks for. Looks at no clock: see `admit`.

    Args:
        certificate_pem: The leaf; what follows it is not read.
        issuer: The one authority that may have signed it, a certificate or its PEM.
        kind: What the caller's listener is for; leaf and issuer must both be of it.

    Raises:
        IdentityError: with one of the codes
            ``malformed``         not one readable certificate, or an extension twice;
            ``not-an-authority``  `issuer` is no issuing authority;
            ``wrong-kind``        `issuer`, or the leaf's SPIFFE id, is of another kind;
            ``wrong-issuer``      `issuer` did not sign it;
            ``wrong-key``         its key is not EC P-256;
            ``is-authority``      it may sign certificates, or does not say that it may not;
            ``wrong-usage``       another key usage or extended key usage than the kind's one;
            ``wrong-san``         not exactly one URI, or a name that the kind may not have;
            ``bad-spiffe``        the URI is no SPIFFE id of this project's form;
            ``wrong-federation``  the SPIFFE id names another federation than the issuer;
            ``unknown-extension`` a critical extension that nobody here understands.
    """
    authority = load_certificate(issuer) if isinstance(issuer, bytes) else issuer
    federation, issuer_kind = issuer_of_kind(authority)
    if issuer_kind is not kind:
        raise IdentityError("wrong-kind", f"the authority signs for {issuer_kind}, want {kind}")
    leaf = load_certificate(certificate_pem)
    check_signed_by(leaf, authority)  # nothing below looks at what nobody signed
    extensions = _extensions(leaf)
    _check_key(leaf)
    _check_constraints(extensions)
    _check_usage(extensions, kind)
    role, name = _identity(_only_uri(extensions, kind), federation, kind)
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    return Principal(federation, kind, role, name, leaf.serial_number, begin, end)


def admit(principal: Principal, *, now: datetime) -> None:
    """Raises IdentityError ``expired`` or ``not-yet-valid`` unless it is valid at `now` (aware)."""
    check_window(
        principal.not_before,
        principal.not_after,
        now=now,
        what=f"the certificate of {principal.label}",
    )


def _extensions(leaf: x509.Certificate) -> x509.Extensions:
    for extension in leaf.extensions:
        if extension.critical and extension.oid not in _KNOWN:
            raise IdentityError(
                "unknown-extension", f"critical extension {extension.oid.dotted_string}"
            )
    return leaf.extensions


def _check_key(leaf: x509.Certificate) -> None:
    try:
        key = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError("wrong-key", "the certificate's key is unreadable") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("wrong-key", "the certificate's key is not EC P-256")


def _check_constraints(extensions: x509.Extensions) -> None:
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound as error:
        raise IdentityError("is-authority", "it does not say that it is no authority") from error
    if constraints.value.ca or not constraints.critical:
        raise IdentityError("is-authority", "basicConstraints is not critical with CA=false")


def _check_usage(extensions: x509.Extensions, kind: Kind) -> None:
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise IdentityError("wrong-usage", "key usage or extended key usage is absent") from error
    if usage != signature_only():
        raise IdentityError("wrong-usage", "key usage is not digitalSignature alone")
    if list(purposes) != [USAGE_OF_KIND[kind]]:
        found = ", ".join(purpose.dotted_string for purpose in purposes)
        raise IdentityError(
            "wrong-usage",
            f"extended key usage of a {kind} must be {USAGE_OF_KIND[kind].dotted_string} alone, "
            f"got {found}",
        )


def _only_uri(extensions: x509.Extensions, kind: Kind) -> str:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise IdentityError("wrong-san", "there is no subject alternative name") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityError("wrong-san", f"there must be exactly one URI name, got {len(uris)}")
    hosts = (x509.DNSName, x509.IPAddress) if kind is Kind.SERVER else ()
    others = [
        name for name in names if not isinstance(name, (x509.UniformResourceIdentifier, *hosts))
    ]
    if others:
        raise IdentityError("wrong-san", f"a {kind} may not have a {type(others[0]).__name__}")
    return uris[0]


def _identity(uri: str, federation: str, kind: Kind) -> tuple[Role, str]:
    """Returns (role, name) of a SPIFFE id that must agree with the authority that signed it."""
    its_federation, its_kind, role, name = parse_spiffe(uri)
    if its_kind is not kind:
        raise IdentityError("wrong-kind", f"{uri} was signed by the authority for {kind}")
    if its_federation != federation:
        raise IdentityError("wrong-federation", f"{uri} was signed by an authority of {federation}")
    return role, name


def signature_only() -> x509.KeyUsage:
    """Returns the key usage of every leaf: digitalSignature and nothing else."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
