"""The three issuing authorities that a coordinator holds, and what they issue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from fedsec.errors import IdentityError
from fedsec.files import read_private, read_public
from fedsec.identity.authorities import Authority, check_issuer, issuer_of_kind, load_authority
from fedsec.identity.leaves import Lifetimes, issue
from fedsec.identity.names import Kind, Role
from fedsec.identity.principals import principal_of
from fedsec_server.layout import Layout
from fedsec_server.state.values import CertificateRecord

SERVER_NAME = "coordinator"  # of the coordinator in its own certificate


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate just issued: the chain to hand out, and the row to keep of it."""

    chain_pem: bytes
    record: CertificateRecord


@dataclass(frozen=True, slots=True)
class Authorities:
    """The servers', nodes' and people's CA of one federation, and its root's certificate.

    Args:
        servers: Issues the coordinator's own certificates.
        nodes: Issues the nodes' certificates.
        people: Issues the people's certificates.
        root_pem: The root's certificate; its key is elsewhere.
    """

    servers: Authority
    nodes: Authority
    people: Authority
    root_pem: bytes

    @property
    def federation(self) -> str:
        """The trust domain."""
        return issuer_of_kind(self.nodes.certificate)[0]

    def of(self, kind: Kind) -> Authority:
        """Returns the authority that issues for `kind`."""
        return {Kind.SERVER: self.servers, Kind.NODE: self.nodes, Kind.PERSON: self.people}[kind]

    def issue(
        self,
        kind: Kind,
        csr_der: bytes,
        *,
        name: str,
        lifetimes: Lifetimes,
        now: datetime,
        role: Role | None = None,
        hosts: Sequence[str] = (),
    ) -> Issued:
        """Issues a certificate for the key of a signing request; its names are ignored.

        Args:
            kind: Decides authority and lifetime.
            csr_der: The signing request.
            name: As `fedsec.identity.leaves.issue` wants it for the kind.
            lifetimes: From the settings.
            now: Aware time.
            role: For people.
            hosts: For servers.

        Raises:
            ConfigError: An argument is out of range.
            IdentityError: The request was refused, or the authority has expired.
        """
        authority = self.of(kind)
        chain_pem = issue(
            authority,
            csr_der,
            kind=kind,
            name=name,
            role=role,
            hosts=hosts,
            lifetime=lifetimes.of(kind),
            now=now,
            backdate=lifetimes.backdate,
        )
        return Issued(chain_pem, record_of(chain_pem, authority.certificate, kind))


def record_of(chain_pem: bytes, issuer: x509.Certificate, kind: Kind) -> CertificateRecord:
    """Returns the row to keep of a certificate."""
    principal = principal_of(chain_pem, issuer=issuer, kind=kind)
    return CertificateRecord(
        serial=principal.serial,
        spiffe_id=principal.spiffe_id,
        not_before=principal.not_before.timestamp(),
        not_after=principal.not_after.timestamp(),
    )


def load_authorities(layout: Layout, *, now: datetime) -> Authorities:
    """Returns the authorities of a coordinator's directory, after checking them.

    Raises:
        ConfigError: A file is missing, or open to others.
        IdentityError: A certificate and its key do not fit, the root did not sign it, or it is
            not valid at `now`; the sentence names the file.
    """
    root_pem = read_public(layout.root_certificate)
    found = {kind: _load(layout, kind, root_pem, now) for kind in Kind}
    return Authorities(
        servers=found[Kind.SERVER],
        nodes=found[Kind.NODE],
        people=found[Kind.PERSON],
        root_pem=root_pem,
    )


def load_issuer(layout: Layout, kind: Kind, *, now: datetime) -> Authority:
    """Returns one authority of a coordinator's directory; raises as `load_authorities` does."""
    return _load(layout, kind, read_public(layout.root_certificate), now)


def _load(layout: Layout, kind: Kind, root_pem: bytes, now: datetime) -> Authority:
    path = layout.issuer_certificate(kind)
    certificate_pem = read_public(path)
    key_pem = read_private(layout.issuer_key(kind))
    try:
        check_issuer(certificate_pem, kind=kind, root_pem=root_pem, now=now)
        return load_authority(certificate_pem, key_pem)
    except IdentityError as error:
        raise IdentityError(error.code, f"{path}: {error.detail}") from error
