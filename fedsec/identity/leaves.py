"""Leaf certificates: keys, signing requests and issuing.

Of a request only the public key counts, and the proof that its sender holds the private one. Who
the certificate speaks for is decided by the issuer alone.

Source: RFC 2986 (requests), RFC 5280 (certificates). Profile: docs/spec/enrolment.md.
"""

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.authorities import Authority, issuer_of_kind, key_identifier_of
from fedsec.identity.certificates import (
    UNREADABLE,
    check_ending,
    check_validity,
    random_serial,
)
from fedsec.identity.names import (
    Kind,
    Role,
    check_name,
    check_node_id,
    check_role,
    is_dns_name,
    make_spiffe,
)
from fedsec.identity.principals import USAGE_OF_KIND, signature_only
from fedsec.identity.times import BACKDATE, whole_seconds

MAX_REQUEST = 16 << 10  # bytes
MAX_LIFETIME = timedelta(days=31)
COMMON_NAME = "fedsec leaf"  # the same for all: nobody may read a meaning into it

_REQUEST_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long new leaves live, and how far back their validity begins.

    Raises:
        ConfigError: A lifetime is not above 0 and at most 31 days, or `backdate` is negative.
    """

    node: timedelta = timedelta(hours=8)
    server: timedelta = timedelta(hours=24)
    person: timedelta = timedelta(hours=12)
    backdate: timedelta = BACKDATE

    def __post_init__(self) -> None:
        for kind in Kind:
            _check_lifetime(self.of(kind), f"lifetime of a {kind}")
        _check_backdate(self.backdate)

    def of(self, kind: Kind) -> timedelta:
        """Returns the lifetime for `kind`."""
        return {Kind.NODE: self.node, Kind.SERVER: self.server, Kind.PERSON: self.person}[kind]


def make_key() -> ec.EllipticCurvePrivateKey:
    """Returns a new EC P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Returns the private key, PKCS #8 PEM, not encrypted: for a file of mode 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Returns the EC P-256 key of a PEM text.

    Raises:
        IdentityError: ``malformed`` or ``wrong-key``.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError("malformed", "the key is no PKCS #8 PEM without passphrase") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("wrong-key", "the key is not EC P-256")
    return key


def make_request(key: ec.EllipticCurvePrivateKey, common_name: str = COMMON_NAME) -> bytes:
    """Returns a signing request (DER, about 220 bytes) for `key`. Its name is ignored."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def check_request(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    """Returns the public key of a signing request whose sender holds the private one.

    Raises:
        IdentityError: ``bad-request``, over 16 KiB or unreadable; ``wrong-key``, not EC P-256;
            ``bad-signature``, not made by that key.
    """
    if len(csr_der) > MAX_REQUEST:
        raise IdentityError(
            "bad-request", f"signing request has {len(csr_der)} bytes, max {MAX_REQUEST}"
        )
    try:
        request = x509.load_der_x509_csr(csr_der)
        key = request.public_key()
        check_ending(csr_der, request.signature)
    except UNREADABLE as error:
        raise IdentityError("bad-request", "signing request is unreadable") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("wrong-key", "the key of the signing request is not EC P-256")
    try:
        _check_request_signature(request, key)
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        detail = "the signing request is not signed by the key that it names"
        raise IdentityError("bad-signature", detail) from error
    return key


def issue(
    issuer: Authority,
    csr_der: bytes,
    *,
    kind: Kind,
    name: str,
    role: Role | None = None,
    hosts: Sequence[str] = (),
    lifetime: timedelta,
    now: datetime,
    backdate: timedelta = BACKDATE,
) -> bytes:
    """Returns a new certificate, PEM: the leaf, then the issuer.

    Of the request only the key counts; its names and extensions are ignored.

    Args:
        issuer: The issuing authority for `kind`; it also decides the federation.
        csr_der: The signing request, <= 16 KiB.
        kind: What the certificate is for.
        name: 32 hex digits for a node; for a server or person as `check_name` says.
        role: For a person, and only there.
        hosts: For a server, and only there: its DNS names and IP addresses, at least one.
        lifetime: From `now` on, above 0, at most 31 days; cut at the issuer's own end.
        now: Aware time.
        backdate: How long before `now` validity begins, >= 0; cut at the issuer's own beginning.

    Raises:
        ConfigError: An argument is out of range, or does not fit the others.
        IdentityError: The request was refused, see `check_request`; ``expired`` or
            ``not-yet-valid``, the issuer's validity does not hold `now`.
    """
    federation = _federation_for(issuer, kind)
    begin, end = _validity(issuer, lifetime, backdate, now)
    uri = make_spiffe(federation, kind, _role_for(kind, role), _name_for(kind, name))
    names = [x509.UniformResourceIdentifier(uri), *_hosts_for(kind, hosts)]
    builder = _leaf_builder(issuer.certificate, check_request(csr_der), kind, names)
    builder = builder.not_valid_before(begin).not_valid_after(end)
    leaf = builder.sign(issuer.key, hashes.SHA256())
    return leaf.public_bytes(serialization.Encoding.PEM) + issuer.certificate_pem


def check_host(host: str) -> x509.GeneralName:
    """Returns a host as it stands in a server's certificate: an IP address or a DNS name.

    Raises:
        ConfigError: It is neither. Wildcards are not accepted.
    """
    if "%" not in host:  # a zone means something on one machine only
        with suppress(ValueError):
            return x509.IPAddress(ipaddress.ip_address(host))
    name = host.lower()
    if not is_dns_name(name):
        raise ConfigError(
            f"host {host[:80]!r} must be a DNS name or an IP address, without port or wildcard"
        )
    return x509.DNSName(name)


def _leaf_builder(
    issuer: x509.Certificate,
    public_key: ec.EllipticCurvePublicKey,
    kind: Kind,
    names: list[x509.GeneralName],
) -> x509.CertificateBuilder:
    """Returns all of a leaf but its times."""
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, COMMON_NAME)]))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(random_serial())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(signature_only(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([USAGE_OF_KIND[kind]]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(key_identifier_of(issuer), critical=False)
    )


def _check_request_signature(
    request: x509.CertificateSigningRequest, key: ec.EllipticCurvePublicKey
) -> None:
    algorithm = request.signature_hash_algorithm
    if not isinstance(algorithm, _REQUEST_HASHES):
        raise UnsupportedAlgorithm("signing request: not ECDSA with SHA-2")
    key.verify(request.signature, request.tbs_certrequest_bytes, ec.ECDSA(algorithm))


def _validity(
    issuer: Authority, lifetime: timedelta, backdate: timedelta, now: datetime
) -> tuple[datetime, datetime]:
    """Returns the first and last moment of a new leaf, inside those of its issuer."""
    _check_lifetime(lifetime, "lifetime")
    _check_backdate(backdate)
    start, above = whole_seconds(now), issuer.certificate
    check_validity(above, now=start, what=f"the certificate of {issuer!r}")
    begin = max(start - backdate, above.not_valid_before_utc)
    return begin, min(start + lifetime, above.not_valid_after_utc)


def _federation_for(issuer: Authority, kind: Kind) -> str:
    federation, its_kind = issuer_of_kind(issuer.certificate)
    if its_kind is not kind:
        raise ConfigError(f"{issuer!r} issues certificates for {its_kind}, not for {kind}")
    return federation


def _role_for(kind: Kind, role: Role | None) -> Role:
    if kind is Kind.PERSON:
        if role is None:
            raise ConfigError("a person needs a role: admin, operator or auditor")
        return check_role(kind, role)
    return check_role(kind, role or Role(kind))


def _name_for(kind: Kind, name: str) -> str:
    return check_node_id(name) if kind is Kind.NODE else check_name(name)


def _hosts_for(kind: Kind, hosts: Sequence[str]) -> list[x509.GeneralName]:
    if (kind is Kind.SERVER) != bool(hosts):
        raise ConfigError(
            f"hosts of a {kind} must be {'at least one' if kind is Kind.SERVER else 'none'}, "
            f"got {list(hosts)}"
        )
    return [check_host(host) for host in dict.fromkeys(hosts)]


def _check_lifetime(lifetime: timedelta, what: str) -> None:
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise ConfigError(f"{what} must be above 0 and at most {MAX_LIFETIME}, got {lifetime}")


def _check_backdate(backdate: timedelta) -> None:
    if backdate < timedelta(0):
        raise ConfigError(f"backdate must be >= 0, got {backdate}")
