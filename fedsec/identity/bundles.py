"""What a node checks before it believes the certificates that it was sent.

At enrolment the trust comes from outside: the servers' CA is pinned by the invite, the root by a
fingerprint where the operator gave one. At renewal it comes from the root of the enrolment.

Source: docs/spec/enrolment.md, sections "Enrolment" and "Renewal".
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedsec.errors import IdentityError
from fedsec.identity.authorities import check_issuer, fingerprint, show_fingerprint
from fedsec.identity.certificates import UNREADABLE, load_certificate, load_certificates
from fedsec.identity.names import Kind, Principal
from fedsec.identity.principals import admit, principal_of


@dataclass(frozen=True, slots=True)
class Bundle:
    """Certificates that a node received or holds, PEM each.

    Args:
        chain_pem: The node's own leaf, then the nodes' CA.
        servers_ca_pem: The anchor for the coordinator's certificates; while it is replaced, its
            successor follows.
        root_pem: The federation's root.
    """

    chain_pem: bytes
    servers_ca_pem: bytes
    root_pem: bytes


def check_enrolment(
    bundle: Bundle,
    *,
    key: ec.EllipticCurvePrivateKey,
    servers_ca_fingerprint: bytes,
    root_fingerprint: str | None,
    now: datetime,
) -> Principal:
    """Returns who the node has become, after every check of what the coordinator sent.

    Args:
        bundle: The coordinator's answer.
        key: The node's own TLS key.
        servers_ca_fingerprint: From the invite, 32 bytes.
        root_fingerprint: 64 hex digits that the operator got by another way, or None.
        now: Aware time.

    Raises:
        IdentityError: ``wrong-fingerprint``, the servers' CA or the root is not the pinned one;
            else as `check_issuer`, `principal_of` and `admit` say; ``wrong-key``, the leaf is
            for another key.
    """
    _check_fingerprint(bundle.servers_ca_pem, servers_ca_fingerprint.hex(), "servers' CA")
    if root_fingerprint is not None:
        _check_fingerprint(bundle.root_pem, root_fingerprint, "root")
    return _check_bundle(bundle, key=key, now=now)


def check_renewal(
    bundle: Bundle, *, key: ec.EllipticCurvePrivateKey, before: Principal, now: datetime
) -> Principal:
    """Returns the node's principal under its new certificate.

    Args:
        bundle: What the coordinator sent, with the root of the enrolment.
        key: The new TLS key.
        before: Whom the old certificate speaks for.
        now: Aware time.

    Raises:
        IdentityError: ``wrong-identity``, the new leaf is somebody else's; else as
            `check_enrolment` says.
    """
    principal = _check_bundle(bundle, key=key, now=now)
    if principal.spiffe_id != before.spiffe_id:
        raise IdentityError(
            "wrong-identity",
            f"the new certificate is for {principal.spiffe_id}, "
            f"the old one is for {before.spiffe_id}",
        )
    return principal


def split_chain(chain_pem: bytes) -> tuple[bytes, bytes]:
    """Returns (leaf, issuer), PEM each, of the chain that `leaves.issue` makes.

    Raises:
        IdentityError: ``malformed``, it does not hold exactly two certificates.
    """
    load_certificate(chain_pem)  # bounds its size
    try:
        leaf, issuer = x509.load_pem_x509_certificates(chain_pem)
    except UNREADABLE as error:
        raise IdentityError("malformed", "the chain is not a leaf and its issuer") from error
    encoding = serialization.Encoding.PEM
    return leaf.public_bytes(encoding), issuer.public_bytes(encoding)


def _check_bundle(bundle: Bundle, *, key: ec.EllipticCurvePrivateKey, now: datetime) -> Principal:
    leaf_pem, nodes_ca_pem = split_chain(bundle.chain_pem)
    for anchor in load_certificates(bundle.servers_ca_pem):
        anchor_pem = anchor.public_bytes(serialization.Encoding.PEM)
        check_issuer(anchor_pem, kind=Kind.SERVER, root_pem=bundle.root_pem, now=now)
    nodes = check_issuer(nodes_ca_pem, kind=Kind.NODE, root_pem=bundle.root_pem, now=now)
    principal = principal_of(leaf_pem, issuer=nodes, kind=Kind.NODE)
    admit(principal, now=now)
    if load_certificate(leaf_pem).public_key() != key.public_key():
        raise IdentityError("wrong-key", "the certificate received is for another key")
    return principal


def _check_fingerprint(certificate_pem: bytes, expected: str, what: str) -> None:
    found = fingerprint(certificate_pem)
    if found != expected:
        raise IdentityError(
            "wrong-fingerprint",
            f"the {what} is {show_fingerprint(found)}, not {show_fingerprint(expected)}; "
            "do not go on: another coordinator answered, or the fingerprint is of another one",
        )
