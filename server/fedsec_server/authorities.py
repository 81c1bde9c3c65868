"""The three issuing authorities of a coordinator as they count at a moment, and what they issue.

Where they lie, and how one takes the place of another, is in `fedsec_server.generations`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime

from cryptography import x509

from fedsec.identity.authorities import Authority, issuer_of_kind
from fedsec.identity.leaves import Lifetimes, issue
from fedsec.identity.names import Kind, Role
from fedsec.identity.principals import principal_of
from fedsec_server.state.values import CertificateRecord

SERVER_NAME = "coordinator"  # of the coordinator in its own certificate


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate just issued: the chain to hand out, and the row to keep of it."""

    chain_pem: bytes
    record: CertificateRecord


@dataclass(slots=True)
class Authorities:
    """The servers', nodes' and people's CA of one federation, and its root's certificate.

    One value is shared by all parts of a coordinator; `become` changes it for all of them.

    Args:
        servers: Issues the coordinator's own certificates.
        nodes: Issues the nodes' certificates.
        people: Issues the people's certificates.
        root_pem: The root's certificate; its key is elsewhere.
        beside: PEM of the CA that is trusted beside the issuing one while one takes the place of
            the other, by kind.
        ends: When that is over, by kind.
    """

    servers: Authority
    nodes: Authority
    people: Authority
    root_pem: bytes
    beside: Mapping[Kind, bytes] = field(default_factory=dict)
    ends: Mapping[Kind, datetime] = field(default_factory=dict)

    @property
    def federation(self) -> str:
        """The trust domain."""
        return issuer_of_kind(self.nodes.certificate)[0]

    def of(self, kind: Kind) -> Authority:
        """Returns the authority that issues for `kind`."""
        return {Kind.SERVER: self.servers, Kind.NODE: self.nodes, Kind.PERSON: self.people}[kind]

    def anchors(self, kind: Kind) -> bytes:
        """Returns, as PEM, every CA whose certificates of `kind` count; the issuing one first."""
        return self.of(kind).certificate_pem + self.beside.get(kind, b"")

    def become(self, other: "Authorities") -> None:
        """Takes the values of another one."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))

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
